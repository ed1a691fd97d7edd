"""A listener in this process, and clients that say exactly which bytes they send and when."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.types import Receive, Scope, Send

from gateway.server import listener as module
from gateway.server.listener import Listener, bind, listener
from gateway.server.protocol import Limits

GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


class App:
    """Reads the body and answers with its length; under /slow in two parts, the second when `go_on` is set; under
    /big with `big` bytes at once; under /early before it has read anything."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.half = asyncio.Event()  # the first part is out
        self.big = 0
        self.ended: list[str] = []  # paths of answers that were completed
        self.headers: list[tuple[bytes, bytes]] = []  # of the last request, once its body was there

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        body = b""
        while path != "/early":
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.headers = list(scope["headers"])
        if path == "/slow":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            self.half.set()
            await self.go_on.wait()
            await send({"type": "http.response.body", "body": b"two"})
        else:
            text = b"x" * self.big if path == "/big" else b"%d" % len(body)
            headers = [(b"content-length", b"%d" % len(text))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": text})
        self.ended.append(path)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, port: int, *, receive_buffer: int = 0) -> Client:
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=sock, limit=receive_buffer or 2**16))

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of the next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await self.reader.readexactly(int(headers["content-length"]))
        return int(head[0].split(" ")[1]), headers, body

    async def error(self) -> tuple[int, dict[str, Any]]:
        """(status, error) of an answer in OpenAI's envelope that ends the connection."""
        status, headers, body = await self.answer()
        assert headers["connection"] == "close"
        assert await self.ended()
        error = json.loads(body)["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        return status, error

    async def ended(self, within: float = 30.0) -> bool:
        """Whether the other side closes, and says nothing before."""
        try:
            async with asyncio.timeout(within):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def until(reached: Callable[[], bool], within: float = 30.0) -> None:
    async with asyncio.timeout(within):
        while not reached():  # noqa: ASYNC110 - what is asked is a server that announces nothing
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(app: Any, limits: Limits, *, drain_timeout: float = 1.0) -> AsyncIterator[tuple[Listener, int]]:
    """(listener, port). Limits are looked at every 0.1 s."""
    before, module.LOOK_EVERY = module.LOOK_EVERY, 1
    sock = bind("127.0.0.1:0")
    port = sock.getsockname()[1]
    server = listener(app, drain_timeout=drain_timeout, limits=limits)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        await until(lambda: server.started)
        yield server, port
    finally:
        server.force_exit = server.should_exit = True
        await task
        module.LOOK_EVERY = before
