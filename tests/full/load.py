"""Load on a gateway from one event loop: many clients, each with one kept connection and one request at a time.

Written on bare streams: an HTTP library would cost more than the gateway that is being looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

LIMIT = 1024 * 1024


class Ask(NamedTuple):
    """One request. `leave_after`: seconds until the client hangs up, in the middle of whatever is going on then."""

    id: str
    model: str
    stream: bool
    leave_after: float | None = None

    def bytes(self) -> bytes:
        body = json.dumps(
            {"model": self.model, "stream": self.stream, "messages": [{"role": "user", "content": "Say hello."}]}
        ).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nx-request-id: {self.id}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Got(NamedTuple):
    """What came of it. `broken`: the transport failed, which is never right unless the client left."""

    ask: Ask
    status: int
    body: bytes
    began: float  # monotonic seconds
    seconds: float
    left: bool
    broken: str
    overhead_ms: float  # the gateway's own word: x-gateway-overhead-ms

    @property
    def error_event(self) -> bool:
        return self.status == 200 and self.ask.stream and b'"error"' in self.body

    @property
    def whole(self) -> bool:
        """A good answer to its end."""
        end = b"data: [DONE]\n\n" if self.ask.stream else b"}"
        return self.status == 200 and self.body.endswith(end) and not self.error_event


class Client:
    """One caller."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, ask: Ask) -> Got:
        began = time.monotonic()
        status, body, overhead, left, broken = 0, b"", 0.0, False, ""
        try:
            reader, writer = await self._connected()
            writer.write(ask.bytes())
            async with asyncio.timeout(ask.leave_after):
                status, headers = await self._head(reader)
                overhead = float(headers.get("x-gateway-overhead-ms", 0))
                body = await self._body(reader, headers)
                if headers.get("connection") == "close":
                    self.close()
        except TimeoutError:
            left = True
            self.close()
        except (OSError, EOFError, ValueError) as error:
            broken = repr(error)
            self.close()
        return Got(ask, status, body, began, time.monotonic() - began, left, broken, overhead)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=LIMIT)
        return self._streams

    async def _head(self, reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in lines if line]
        return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def _body(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await reader.readexactly(int(headers["content-length"]))
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return body


async def play(port: int, asks: list[Ask], clients: int, seen: Callable[[int], Awaitable[None]]) -> list[Got]:
    """As fast as `clients` callers can. `seen(count)` is awaited after each answer."""
    queue = iter(asks)
    got: list[Got] = []

    async def caller() -> None:
        client = Client(port)
        try:
            for ask in queue:
                got.append(await client.ask(ask))
                await seen(len(got))
        finally:
            client.close()

    await asyncio.gather(*(caller() for _ in range(clients)))
    return got


async def paced(port: int, asks: list[Ask], per_second: float, at: dict[float, Callable[[], None]]) -> list[Got]:
    """At a steady rate, however long each takes. `at`: what else happens, by the second it happens at."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    for second, happens in at.items():
        loop.call_at(started + second, happens)
    free: list[Client] = []
    clients: list[Client] = []

    async def one(ask: Ask) -> Got:
        client = free.pop() if free else Client(port)
        if client not in clients:
            clients.append(client)
        try:
            return await client.ask(ask)
        finally:
            free.append(client)

    tasks = []
    for index, ask in enumerate(asks):
        await asyncio.sleep(started + index / per_second - loop.time())
        tasks.append(asyncio.create_task(one(ask)))
    got = await asyncio.gather(*tasks)
    for client in clients:
        client.close()
    return list(got)


def descriptors(pid: int) -> list[str]:
    """What each of a process's descriptors leads to: a path, or like `socket:[1234]`."""
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            found.append(str(each.readlink()))
    return found


def resident_mb(pid: int) -> float:
    """Resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def quantile(values: list[float], q: float) -> float:
    with contextlib.suppress(IndexError):
        return sorted(values)[int(q * len(values))]
    return 0.0
