"""An attempt whose answer is bytes that nobody here can read: speech. They pass unchanged, as fast as the client reads.

Text where sound should be is a failure, whatever its status says, and so is an answer without a byte; both happen
before the client has seen anything. After the first byte an answer can only be broken off.
"""

from __future__ import annotations

import asyncio

from gateway.core.attempts import Past
from gateway.core.failures import Kind, describe
from gateway.core.pieces import assumed
from gateway.core.pricing import cost, dollars
from gateway.exchange import Exchange
from gateway.flight import Header, latin
from gateway.providers.base import REFUSAL_LIMIT, Upstream

_TEXTS = ("application/json", "application/problem+json", "text/")
_SIGNS = (b'{"error', b'{"detail', b"<!doctype", b"<!DOCTYPE", b"<html")  # what servers send with a wrong content-type


class BinaryExchange(Exchange):
    """Events, where the client asked for them, go as in any exchange."""

    async def _whole(self, upstream: Upstream, timer: asyncio.Timeout) -> Past | None:
        if self.call.stream or upstream.headers.get("content-type", "").lower().startswith(_TEXTS):
            return self._text(await upstream.read(REFUSAL_LIMIT))
        data = await upstream.chunk()
        if not data:
            return self._failed(Kind.EMPTY, describe(Kind.EMPTY, None))
        if data.startswith(_SIGNS):
            return self._text(data)
        self.seen.reported = assumed(self.call, self.target.price)
        await self._commit(self._headers(upstream))
        self.flight.binary = True
        while data:
            await self._pass_on(data)
            self._expect_more(timer)
            data = await upstream.chunk()
        self._book()
        self._end("ok")
        self.flight.outcome = "ok"
        await self.client.send(b"", more=False)
        return None

    def _text(self, body: bytes) -> Past:
        seen = self.provider.read_answer(self.call, body)
        return self._failed(Kind.MALFORMED, describe(Kind.MALFORMED, seen.error if seen is not None else None))

    def _headers(self, upstream: Upstream) -> list[Header]:
        """What the body is, and its cost, which what was asked decides."""
        given = upstream.headers
        headers = [(b"content-type", latin(given.get("content-type") or "application/octet-stream"))]
        if length := given.get("content-length"):
            headers.append((b"content-length", latin(length)))
        usage, price = self.seen.reported, self.target.price
        if usage is not None and price is not None and not usage.estimated:
            nano = self.flight.cost_nano + cost(usage, price)
            headers.append((b"x-gateway-cost-usd", dollars(nano).encode()))
        return headers
