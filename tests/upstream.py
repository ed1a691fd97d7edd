"""A loopback upstream whose every byte is scripted: a real HTTP/1.1 server that speaks what a test tells it to.

A request is answered by a **reply**: a function from what was received to **steps** (`tests/replies.py` has the usual
ones). A model's replies are queued by its upstream name with `script`; a model without any gets the default one.

Steps: ``bytes`` are sent as they are; a ``float`` is a pause in seconds; a `Gate` waits until the test opens it; a
`Billed` goes to the server's own log of what it charged; `STALL` holds the connection until the client leaves; `CUT`
resets it; `CLOSE` ends it. Without `CUT` or `CLOSE` it is kept for the next request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from email.parser import BytesParser
from email.policy import HTTP
from enum import Enum
from functools import cached_property
from types import TracebackType
from typing import Any, NamedTuple, Self

LIMIT = 64 * 1024 * 1024


class Billed(NamedTuple):
    """Tokens charged for one request, by type; disjoint, as in `gateway.core.usage.Usage`."""

    model: str
    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0


class End(Enum):
    STALL = "stall"
    CUT = "cut"
    CLOSE = "close"


STALL, CUT, CLOSE = End.STALL, End.CUT, End.CLOSE


class Gate:
    """Holds a reply until the test calls `open`; `reached` says that the reply stands before it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def open(self) -> None:
        self.opened.set()


Step = bytes | float | Gate | Billed | End


class Received:
    """One request, to the byte."""

    def __init__(self, head: bytes, body: bytes, connection: int) -> None:
        self.head = head  # request line and headers, without the blank line
        self.body = body
        self.connection = connection  # which TCP connection, counted from 1
        self.at = time.monotonic()
        self.gone = threading.Event()  # the client closed before the reply was through
        self.gone_at = 0.0
        self.done = threading.Event()  # every step was carried out, or the client left
        lines = head.decode("latin-1").split("\r\n")
        self.method, self.path, _ = lines[0].split(" ", 2)
        pairs = [line.partition(":") for line in lines[1:]]
        self.headers = [(name.lower(), value.strip()) for name, _, value in pairs]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name.lower()), None)

    @cached_property
    def json(self) -> dict[str, Any]:
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @cached_property
    def form(self) -> dict[str, list[bytes]]:
        """The parts of a form with files, by name, as Python's own parser of MIME reads them."""
        kind = self.header("content-type") or ""
        if not kind.startswith("multipart/form-data"):
            return {}
        message = BytesParser(policy=HTTP).parsebytes(f"content-type: {kind}\r\n\r\n".encode() + self.body)
        found: dict[str, list[bytes]] = {}
        for part in message.iter_parts():
            name = part.get_param("name", header="content-disposition")
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            found.setdefault(str(name), []).append(content)
        return found

    @property
    def model(self) -> str:
        return self.form["model"][0].decode() if "model" in self.form else str(self.json.get("model", ""))

    @property
    def stream(self) -> bool:
        return self.json.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        return (self.json.get("stream_options") or {}).get("include_usage") is True


Reply = Callable[[Received], Iterable[Step]]


class Upstream:
    """Use as a context manager: the server runs in a thread of its own from start to end."""

    def __init__(self, default: Reply, port: int = 0) -> None:
        self.default = default
        self.requests: list[Received] = []
        self.probes: list[Received] = []  # the gateway's own questions whether somebody is there
        self.billed: list[Billed] = []
        self.open_connections = 0
        self.connections = 0
        self._scripts: dict[str, deque[Reply]] = {}
        self._always: dict[str, Reply] = {}
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._server: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def script(self, model: str, *replies: Reply) -> None:
        """Queues one reply for each of the next requests for `model`."""
        self._scripts.setdefault(model, deque()).extend(replies)

    def always(self, model: str, reply: Reply) -> None:
        """Answers `model` so whenever its queue is empty."""
        self._always[model] = reply

    @property
    def calls(self) -> list[Received]:
        """The requests that somebody asked for: a gateway's probes are GETs."""
        return [request for request in self.requests if request.method == "POST"]

    def seen(self, model: str) -> list[Received]:
        return [request for request in self.requests if request.model == model]

    def wait_for(self, condition: Callable[[Upstream], bool], timeout: float = 60.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), timeout), "the upstream saw nothing of the kind"

    def forget(self) -> None:
        """Clears the logs and the scripts; connections stay."""
        self.requests.clear()
        self.probes.clear()
        self.billed.clear()
        self._scripts.clear()
        self._always.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        serving = asyncio.start_server(self._connected, sock=self._listener, limit=LIMIT)
        self._server = self._loop.run_until_complete(serving)
        self._loop.run_forever()
        self._loop.run_until_complete(self._shut())
        self._loop.close()

    async def _shut(self) -> None:
        if self._server:
            self._server.close()
        for _ in range(10):  # a connection that was just accepted gets its task, and that its first step
            await asyncio.sleep(0)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # closed connections are let go of in the next turn

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # asyncio does so only for sockets that know their protocol, which accepted ones of `create_server` do not.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        self._note(open_connections=+1)
        try:
            await self._converse(reader, writer, self.connections)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side left, or the test is over
        finally:
            writer.close()
            self._note(open_connections=-1)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
            received = Received(head, await self._body(reader, head), connection)
            (self.probes if received.method == "GET" else self.requests).append(received)
            self._note()
            queue = self._scripts.get(received.model)
            reply = queue.popleft() if queue else self._always.get(received.model, self.default)
            try:
                goes_on = await self._play(reply(received), received, reader, writer)
            except ConnectionError:
                self._left(received)
                raise
            finally:
                received.done.set()
                self._note()
            if not goes_on:
                return

    async def _body(self, reader: asyncio.StreamReader, head: bytes) -> bytes:
        lower = head.lower()
        if b"\r\ntransfer-encoding: chunked" in lower:
            body = b""
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readuntil(b"\r\n")
            return body
        for line in lower.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return await reader.readexactly(int(line.split(b":")[1]))
        return b""

    async def _play(
        self, steps: Iterable[Step], received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Whether the connection can take another request."""
        for step in steps:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, Billed):
                if received.method != "GET":  # a probe uses no tokens
                    self.billed.append(step)
                self._note()
            elif step is CUT:
                self._reset(writer)
                return False
            elif step is CLOSE:
                return False
            elif not await self._pause(step, reader):
                self._left(received)
                return False
        return True

    async def _pause(self, step: float | Gate | End, reader: asyncio.StreamReader) -> bool:
        """Waits as the step says; False as soon as the client has left."""
        leaving = asyncio.ensure_future(reader.read(1))
        if isinstance(step, Gate):
            step.reached.set()
            waiting: asyncio.Future[Any] = asyncio.ensure_future(asyncio.to_thread(step.opened.wait, 30))
        else:
            waiting = asyncio.ensure_future(asyncio.sleep(step if isinstance(step, float | int) else 3600))
        try:
            await asyncio.wait({leaving, waiting}, return_when=asyncio.FIRST_COMPLETED)
            return not leaving.done()
        finally:
            for future in (leaving, waiting):
                future.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await future

    def _left(self, received: Received) -> None:
        received.gone_at = time.monotonic()
        received.gone.set()

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        """Ends the connection with RST instead of FIN."""
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    def _note(self, open_connections: int = 0) -> None:
        with self._changed:
            self.open_connections += open_connections
            self._changed.notify_all()
