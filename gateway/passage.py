"""A request that a provider's `passthrough:` lets through: sent on, answered, and recorded as one attempt.

There is no route and no fallback, and nobody knows what it costs, so no budget may be about it.
"""

from __future__ import annotations

import asyncio
import time

from gateway.client import Client, relay
from gateway.core.failures import Kind
from gateway.core.index import resolve
from gateway.core.passing import MODEL, ROUTE
from gateway.core.rules import Model, Target, Timeouts
from gateway.errors import RouteExhausted, UpstreamFailure
from gateway.flight import AttemptEnd, Flight, Header, Refusal, latin
from gateway.observed import NOTHING, Observed
from gateway.providers.base import REFUSAL_LIMIT, REFUSAL_SECONDS, Passage, Passing, Upstream

OURS = frozenset({401, 402, 403})  # about our account at the provider, not about the client's key
HEADERS = ("content-type", "content-length", "content-disposition", "content-range", "accept-ranges", "retry-after")
_WITHOUT_BODY = frozenset({204, 304})


class Through:
    """One request on its way through. `run` is called once."""

    def __init__(self, passage: Passage, provider: Passing, limits: Timeouts) -> None:
        self._passage = passage
        self._provider = provider
        self._limits = resolve((limits,), reasoning=False)
        self._target = Target(
            Model(MODEL, passage.provider, ""), "", None, self._limits, fallback=False, why="let through"
        )
        self._seen = Observed()
        self._seen.reported = NOTHING  # nobody here can read it
        self._started = time.monotonic()
        self._status = 0

    async def run(self, flight: Flight, client: Client) -> None:
        """Raises RouteExhausted where the provider did not answer, or not well."""
        flight.route = ROUTE
        flight.tries = 1
        self._started = time.monotonic()
        try:
            await self._run(flight, client)
        except (UpstreamFailure, TimeoutError) as failure:
            late = isinstance(failure, TimeoutError)
            kind = Kind.TIMEOUT if late else Kind(failure.kind)  # type: ignore[union-attr]  # one of the two
            said = f"no answer within {self._limits.attempt:g} s" if late else str(failure)
            self._end(flight, str(kind), said)
            status, code = (504, "upstream_timeout") if late else (502, "upstream_error")
            raise RouteExhausted(f"{self._passage.provider}: {kind}: {said}", status=status, code=code) from None
        except BaseException:  # cancellation above all; it goes on, but the account is closed, once, before
            self._end(flight, "cancelled", "the client hung up, or the drain is over")
            raise

    async def _run(self, flight: Flight, client: Client) -> None:
        self._seen.sent_at = time.monotonic()
        async with asyncio.timeout(self._limits.attempt):
            upstream = await self._provider.open(self._passage)
        try:
            self._status = upstream.status
            self._seen.upstream_request_id = (upstream.headers.get("x-request-id") or "")[:128]
            flight.book(self._started, time.monotonic())
            if 300 <= upstream.status < 400 and upstream.status != 304:
                raise UpstreamFailure(Kind.MALFORMED, f"an unexpected redirect ({upstream.status})")
            if upstream.status in OURS:
                raise UpstreamFailure(Kind.ACCOUNT, f"{upstream.status}: the provider refuses our account")
            if upstream.status >= 400:
                await self._refused(upstream, flight, client)
                return
            await self._pass_on(upstream, flight, client)
        finally:
            upstream.close()

    async def _refused(self, upstream: Upstream, flight: Flight, client: Client) -> None:
        async with asyncio.timeout(REFUSAL_SECONDS):
            body = await upstream.read(REFUSAL_LIMIT)
        self._end(flight, "relayed", "")
        await relay(flight, client, Refusal(upstream.status, upstream.headers.get("content-type", ""), body))

    async def _pass_on(self, upstream: Upstream, flight: Flight, client: Client) -> None:
        flight.status, flight.binary = upstream.status, True
        given: list[Header] = [
            (name.encode(), latin(upstream.headers[name])) for name in HEADERS if name in upstream.headers
        ]
        own = flight.headers(attempting=self._target, upstream_request_id=self._seen.upstream_request_id)
        await client.start(upstream.status, own + given)
        while upstream.status not in _WITHOUT_BODY:
            async with asyncio.timeout(self._limits.idle):
                data = await upstream.chunk()
            if not data:
                break
            await self._send(data, flight, client)
        self._end(flight, "ok", "")
        flight.outcome = "ok"
        await client.send(b"", more=False)

    async def _send(self, data: bytes, flight: Flight, client: Client) -> None:
        """A client that reads nothing for as long as an upstream may be silent has left, as in any exchange."""
        try:
            async with asyncio.timeout(self._limits.idle):
                await client.send(data, more=True)
        except TimeoutError:
            self._end(flight, "cancelled", "the client did not read its answer")
            raise asyncio.CancelledError from None

    def _end(self, flight: Flight, result: str, detail: str) -> None:
        if flight.attempts:
            return
        end = AttemptEnd(result, "first", "answer", self._status, self._started, detail=detail, committed=True)
        flight.end_attempt(self._target, self._seen, end)
