"""The client's side in OpenAI's dialect, over ASGI."""

from __future__ import annotations

from starlette.types import Send

from gateway.errors import GatewayError
from gateway.flight import Header, latin
from gateway.server.errors import envelope, event


class OpenAIClient:
    """Implements `gateway.exchange.Client`."""

    __slots__ = ("_send", "finished", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.finished = False

    async def start(self, status: int, headers: list[Header]) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, body: bytes, *, more: bool) -> None:
        if not more:
            self.finished = True
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def fail(self, error: GatewayError, headers: list[Header]) -> None:
        if self.started:
            await self.send(event(error), more=False)
            return
        body = envelope(error)
        extra = [(name.encode(), latin(value)) for name, value in error.headers.items()]
        content = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await self.start(error.status, headers + extra + content)
        await self.send(body, more=False)
