"""The client's side over ASGI; errors in its own dialect."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Send
from uvicorn.protocols.http.flow_control import FlowControl

from gateway.errors import GatewayError
from gateway.flight import Header, latin
from gateway.server.errors import OPENAI

PIECE = 64 * 1024  # bytes of a stream that are handed over at once


class AsgiClient:
    """Implements `gateway.exchange.Client`."""

    __slots__ = ("_abort", "_flow", "_last", "_send", "errors", "finished", "in_pieces", "request_id", "started")

    def __init__(self, send: Send, flow: FlowControl, abort: Callable[[], None]) -> None:
        """`flow`: of the connection that `send` writes to; `abort` drops it."""
        self._send = send
        self._flow = flow
        self._abort = abort
        self.errors = OPENAI  # of the endpoint, once that is known
        self.request_id = ""  # the client's, else ours, once it is known
        self.started = False
        self.finished = False
        self._last = b""  # of a stream, what was sent last
        self.in_pieces = False  # a part of something is out, which nothing else may follow

    @property
    def identity(self) -> list[Header]:
        """`x-request-id` of an answer that no flight makes."""
        return [(b"x-request-id", latin(self.request_id))] if self.request_id else []

    async def start(self, status: int, headers: list[Header]) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, body: bytes, *, more: bool) -> None:
        if not more:
            self.finished = True
        else:
            self._last = body
            if len(body) > PIECE:
                await self._send_in_pieces(memoryview(body))
                return
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
        if more and self._flow.write_paused:
            await self._flow.drain()

    async def _send_in_pieces(self, body: memoryview) -> None:
        self.in_pieces = True
        for start in range(0, len(body), PIECE):
            await self._send({"type": "http.response.body", "body": body[start : start + PIECE], "more_body": True})
            if self._flow.write_paused:
                await self._flow.drain()
        self.in_pieces = False

    def cut(self) -> None:
        self.finished = True
        self._abort()

    async def fail(self, error: GatewayError, headers: list[Header]) -> None:
        if self.started:
            await self.send(self.errors.event(error, self._last), more=False)
            return
        body = self.errors.whole(error)
        extra = [(name.encode(), latin(value)) for name, value in error.headers.items()]
        content = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await self.start(error.status, headers + extra + content)
        await self.send(body, more=False)
