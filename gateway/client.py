"""The caller's side of a call: what may be told to a client, whatever its dialect."""

from __future__ import annotations

from typing import Protocol

from gateway.core.capture import Assembly
from gateway.errors import GatewayError
from gateway.flight import Flight, Header, Refusal, latin

_READABLE = (b"application/json", b"text/")
EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class Client(Protocol):
    """The caller's side of a call, in its own dialect. `start` is called at most once."""

    async def start(self, status: int, headers: list[Header]) -> None: ...

    async def send(self, body: bytes, *, more: bool) -> None:
        """Returns when there is room for more: a slow reader holds the upstream back."""

    async def fail(self, error: GatewayError, headers: list[Header]) -> None:
        """Answers with the error in the client's dialect; inside a stream that has begun, as its last event."""

    def cut(self) -> None:
        """Breaks off an answer that has no way to say that it is not whole: the client sees its connection end."""


class Recording:
    """Implements `Client`: passes everything on, and gathers what the client gets where its route keeps that."""

    def __init__(self, client: Client, assembly: Assembly) -> None:
        self._client = client
        self._assembly = assembly
        self._readable = True  # what is no text is nobody's to read, and is not kept

    async def start(self, status: int, headers: list[Header]) -> None:
        stream = any(name == b"content-type" and b"event-stream" in value for name, value in headers)
        self._readable = any(name == b"content-type" and value.startswith(_READABLE) for name, value in headers)
        self._assembly.begin(stream=stream)
        await self._client.start(status, headers)

    async def send(self, body: bytes, *, more: bool) -> None:
        if self._readable:
            self._assembly.feed(body)
        await self._client.send(body, more=more)

    async def fail(self, error: GatewayError, headers: list[Header]) -> None:
        await self._client.fail(error, headers)

    def cut(self) -> None:
        self._client.cut()


async def relay(flight: Flight, client: Client, refusal: Refusal) -> None:
    """Gives the client the upstream's own refusal, byte for byte."""
    flight.outcome, flight.status = "client_error" if refusal.status >= 400 else "ok", refusal.status
    await client.start(refusal.status, flight.headers() + content(refusal.content_type, refusal.body))
    await client.send(refusal.body, more=False)


def content(content_type: str, body: bytes) -> list[Header]:
    return [(b"content-type", latin(content_type or "application/json")), (b"content-length", b"%d" % len(body))]
