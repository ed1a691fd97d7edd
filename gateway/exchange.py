"""One attempt: one conversation with one upstream, until the client has its answer or the attempt has failed.

The engine makes an `Exchange` for each attempt. Failures come back as `Past` values for the attempt loop; only a client
that hangs up (cancellation) comes out as an exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import Any, NamedTuple

from gateway.client import EVENT_STREAM, Client, content, relay
from gateway.config.redact import without_secrets
from gateway.config.types import ProviderConfig
from gateway.core.answers import Seen
from gateway.core.attempts import Continue, Past, Try
from gateway.core.call import Endpoint, Json
from gateway.core.failures import Kind, blames_request, describe, judge_answer, retry_after
from gateway.core.hedging import HEDGE
from gateway.core.pieces import assumed, unanswered
from gateway.core.pricing import cost, dollars
from gateway.core.purse import FREE, Hold
from gateway.core.resume import KEPT, ContinuingTap, Partial, may_resume, read_partial, resumed
from gateway.core.routing import Target
from gateway.core.splice import add_cost
from gateway.core.stored import judged
from gateway.core.stream import StreamTap, judge_stream
from gateway.core.usage import lacking, read_usage
from gateway.errors import UpstreamFailure
from gateway.flight import AttemptEnd, Flight, Header, Refusal
from gateway.observed import Observed
from gateway.patience import Patience
from gateway.providers.base import REFUSAL_LIMIT, REFUSAL_SECONDS, Attempt, Provider, Upstream
from gateway.race import Race
from gateway.views import read_error

ANSWER_LIMIT = 64 * 1024 * 1024  # bytes of one whole answer; 2,048 embeddings of 3,072 numbers are about 60 MB of JSON
HELD = 4 * 1024 * 1024  # bytes of a stream without content that are held back: comments, roles, empty pieces
AFTER_FINISH = 2.0  # seconds: usage and [DONE] follow a finish at once, or never
MARGIN = 0.05  # seconds before its limit that a finished answer stops waiting for its end
LINGER = 0.1  # seconds to wait for the end of a body whose [DONE] has come, so that its connection can be used again
_NEEDS_A_REASON = frozenset({400, 413, 422})  # statuses that mean different things
_ANSWERS = frozenset({"ok", "relayed", "cancelled"})  # ends of attempts that no other followed


class Surroundings(NamedTuple):
    """What an exchange is given besides its call."""

    provider: Provider
    client: Client
    json: Json
    race: Race | None = None  # None: it runs alone
    partial: Partial | None = None  # what the client has already seen, to be continued
    charge: Hold = FREE  # what it holds in the budgets
    began: float = 0.0  # when it asked for its place, on the monotonic clock
    account: ProviderConfig | None = None  # by which the upstream knows us


class Exchange:
    """One try of `step.target`. `talk` is called once."""

    def __init__(self, flight: Flight, step: Try | Continue, given: Surroundings) -> None:
        assert flight.call is not None
        assert flight.plan is not None
        self.flight = flight
        flight.refusal = None
        self.call = flight.call if given.partial is None else resumed(flight.call, given.partial)
        self.index = step.target
        self.target: Target = flight.plan.targets[step.target]
        self.reason = step.reason
        self.provider = given.provider
        self._account = given.account
        self.client = given.client
        self.json = given.json
        self._race = given.race
        self._partial = given.partial
        self._charge = given.charge
        self.cost_nano: int | None = None  # what it has cost, once it has ended
        self.seen = Observed(given.began, os.urandom(8).hex() if flight.span is not None else "")
        if self.call.form.sold:
            self.seen.assumed = unanswered(self.call, self.target.price)
        self._traced = flight.span is not None and flight.span.sampled
        self.started = time.monotonic()
        self.committed = given.partial is not None  # content from this very call has reached the client
        self._keep = flight.plan.mid_stream == "continue" and may_resume(flight.call)
        flight.tries += 1
        self._patience = Patience(flight)
        self._late = False
        self._fallback_on = flight.plan.fallback_on
        self._ended = False
        self._booked = self.started  # up to here the time has been booked as the upstream's or ours
        self._status = 0
        self.retry_after: float | None = None  # seconds, as the upstream asked
        self._blameless = False  # it failed, and not because of the upstream
        self.verdict = "cancelled"  # what its end says about the upstream: a result as in AttemptRecord
        self._first_token: float | None = None
        self._sending = False
        self._moved = 0.0  # when the idle limit was last set anew, on the loop's clock

    async def talk(self) -> Past | None:
        """None: the client has been answered. Otherwise how the attempt failed."""
        try:
            return await self._talk()
        except TimeoutError:
            if self._sending:
                self._end("cancelled", detail="the client did not read its answer")
                raise asyncio.CancelledError from None
            self._late = True
            if not self.seen.sent:
                return self._failed(Kind.CONNECT, f"no connection within {self._patience.limit:.3g} s")
            return self._failed(Kind.TIMEOUT, f"no {self._patience.awaiting} within {self._patience.limit:.3g} s")
        except UpstreamFailure as failure:
            return self._failed(Kind(failure.kind), failure.message)
        except asyncio.CancelledError:
            self._end(
                "cancelled",
                detail="another attempt was faster" if self._lost() else "the client hung up, or the drain is over",
            )
            raise

    async def _talk(self) -> Past | None:
        streamed = self.call.stream
        limits = self.target.timeouts
        what, own = ("first token", limits.first_token) if streamed else ("whole answer", limits.attempt)
        self._patience.expect(what, own)
        if not self._patience.limit:
            raise TimeoutError  # the call's time ended in a queue: nothing is sent any more
        upstream: Upstream | None = None
        try:
            async with asyncio.timeout(self._patience.limit) as timer:
                upstream = await self.provider.open(self._attempt())
                self._opened(upstream)
                if not 200 <= upstream.status < 300:
                    return await self._refused(upstream)
                if streamed and "text/event-stream" in upstream.headers.get("content-type", "").lower():
                    return await self._stream(upstream, timer)
                return await self._whole(upstream, timer)
        finally:
            if upstream is not None:
                upstream.close()

    async def _refused(self, upstream: Upstream) -> Past | None:
        """An error status: a failure of some kind, or the request's own fault, which is relayed as it is."""
        body = await self._reason(upstream)
        self._book()
        if upstream.status < 400:
            return self._failed(Kind.MALFORMED, f"an unexpected redirect ({upstream.status}): check base_url")
        reason = read_error(body)
        kind = judged(self.call, upstream.status, upstream.headers, reason)
        if kind is None and self.committed:
            kind = Kind.MALFORMED  # the client is in the middle of an answer: nothing can be relayed any more
        refusal = Refusal(upstream.status, upstream.headers.get("content-type", "application/json"), body)
        self.flight.refusal = refusal
        if kind is not None:
            self._blameless = blames_request(upstream.status, reason)
            return self._failed(kind, f"{upstream.status}: {reason.message}")
        if self._race is not None and self.reason == HEDGE:
            await self._race.first_over.wait()  # a refusal is no answer to be faster with
        self._claim()
        self._end("relayed")
        await relay(self.flight, self.client, refusal)
        return None

    async def _reason(self, upstream: Upstream) -> bytes:
        """The body of a refusal. Where it is cut short or does not come, the status has said enough."""
        try:
            async with asyncio.timeout(REFUSAL_SECONDS):
                return await upstream.read(REFUSAL_LIMIT)
        except (TimeoutError, UpstreamFailure) as lost:
            if upstream.status in _NEEDS_A_REASON:
                raise UpstreamFailure(Kind.MALFORMED, f"{upstream.status} without its reason") from lost
            return b""

    async def _whole(self, upstream: Upstream, timer: asyncio.Timeout) -> Past | None:  # noqa: ARG002  # others use it
        body = await upstream.read(ANSWER_LIMIT)
        self._book()
        seen = self.provider.read_answer(self.call, body)
        if seen is not None:
            if seen.usage:
                self.seen.report(seen.usage)
            self.seen.text_bytes, self.seen.reasoning_bytes = seen.text_bytes, seen.reasoning_bytes
            if self.call.form.sold and seen.useful:
                self.seen.assumed = assumed(self.call, self.target.price, seen.text_bytes, seen.choices)
            if self._traced:
                self.seen.describe(body, seen.finish, self.json)
        useful = seen is not None and seen.useful
        kind = judge_answer(seen, ends_in_tool_result=not useful and self.call.ends_in_tool_result)
        if self.call.stream and not self.call.form.may_be_whole and (kind is None or self.committed):
            return self._failed(Kind.MALFORMED, "a stream was asked for and a whole answer came")
        if kind is Kind.CONTENT_FILTER:
            self.flight.refusal = Refusal(upstream.status, upstream.headers.get("content-type", ""), body)
        if kind is not None and not self._stands(kind):
            return self._failed(kind, describe(kind, seen.error if seen is not None else None))
        self._claim()
        self.committed = True
        self._end("ok")
        self.flight.outcome = "ok"
        headers = self.flight.headers()
        if self.target.price is not None:
            body = add_cost(body, self.json, self.flight.cost_nano)
            headers.append((b"x-gateway-cost-usd", dollars(self.flight.cost_nano).encode()))
        await self._answer(upstream, body, headers)
        return None

    async def _answer(self, upstream: Upstream, body: bytes, headers: list[Header]) -> None:
        self.flight.status = upstream.status
        self._sending = True
        await self.client.start(upstream.status, headers + content(upstream.headers.get("content-type", ""), body))
        await self.client.send(body, more=False)
        self._book()

    async def _stream(self, upstream: Upstream, timer: asyncio.Timeout) -> Past | None:
        """Events pass as they come. Nothing reaches the client before the first useful content: the commit point."""
        tap = self._tap()
        held = bytearray()
        try:
            while not tap.done and tap.error is None:
                data = await (self._after_finish(upstream, timer) if tap.over else upstream.chunk())
                out = tap.feed(data) if data else tap.end()
                if not self.committed:
                    held += out
                    if tap.useful:
                        await self._commit()
                        out = bytes(held)
                        held.clear()
                    elif len(held) > HELD:
                        raise UpstreamFailure(Kind.MALFORMED, f"{HELD} bytes without content")
                if self.committed:
                    if out:
                        await self._pass_on(out)
                    self._expect_more(timer)  # after a comment too: servers send them while they think
                if not data:
                    break
        finally:
            self._absorb(tap)
        return await self._end_stream(tap, upstream, bytes(held))

    async def _pass_on(self, out: bytes) -> None:
        if self._keep:
            self._remember(out)
        self._sending = True
        await self.client.send(out, more=True)
        self._sending = False

    def _expect_more(self, timer: asyncio.Timeout) -> None:
        """Sets the idle limit anew: at most every sixteenth of it, and so it ends at most that much late."""
        idle = self.target.timeouts.idle or 0.0
        now = asyncio.get_running_loop().time()
        if now - self._moved > idle / 16:
            self._patience.expect("next chunk", idle + idle / 16)
            timer.reschedule(now + self._patience.limit)
            self._moved = now

    async def _end_stream(self, tap: StreamTap, upstream: Upstream, held: bytes) -> Past | None:
        self._book()
        kind = judge_stream(tap, ends_in_tool_result=not tap.useful and self.call.ends_in_tool_result)
        if kind is Kind.CONTENT_FILTER:
            self.flight.refusal = Refusal(upstream.status, "text/event-stream", held)
        if kind is not None and not self._stands(kind):
            return self._failed(kind, describe(kind, tap.error))
        if not self.committed:  # an answer without content that is fine all the same: finish_reason "length", say
            await self._commit()
            await self.client.send(held, more=True)
        self._end("ok")
        self.flight.outcome = "ok"
        await self.client.send(b"", more=False)
        # The client has it all: neither a limit that passes now nor a hang-up makes it less.
        with contextlib.suppress(TimeoutError, UpstreamFailure, asyncio.CancelledError):
            async with asyncio.timeout(LINGER):
                await upstream.chunk()
        return None

    async def _after_finish(self, upstream: Upstream, timer: asyncio.Timeout) -> bytes:
        """What follows a finish. The answer is whole without it: an end that does not come, or comes badly, is one."""
        ends = timer.when()
        left = AFTER_FINISH if ends is None else ends - asyncio.get_running_loop().time() - MARGIN
        try:
            async with asyncio.timeout(min(AFTER_FINISH, left)):
                return await upstream.chunk()
        except (TimeoutError, UpstreamFailure):
            return b""

    def _stands(self, kind: Kind) -> bool:
        """Whether a provider's filter has the last word: the client sees it as it came, unless the route goes on."""
        return kind is Kind.CONTENT_FILTER and kind not in self._fallback_on

    def _tap(self) -> StreamTap:
        show_usage, add_cost = self.call.wants_usage, self._with_cost
        if self._partial is None:
            choices = self.call.n if self.call.endpoint is Endpoint.CHAT else self.call.n * self.call.items
            passes = not self._keep
            return StreamTap(
                self._read_chunk, show_usage=show_usage, add_cost=add_cost, pass_errors=passes, choices=choices
            )
        tap = ContinuingTap(self._read_chunk, show_usage=show_usage, add_cost=add_cost, pass_errors=False)
        return tap.continuing(self._partial, self.json)

    def _remember(self, out: bytes) -> None:
        """Keeps what the client sees, so that the answer could be continued."""
        if len(self.flight.passed) + len(out) <= KEPT:
            self.flight.passed += out
        else:
            self._keep = False

    def _lost(self) -> bool:
        return self._race is not None and self._race.winner not in (None, self)

    def _claim(self) -> None:
        if self._race is not None:
            self._race.claim(self)
        self.flight.cap, self.flight.answering, self.flight.dropped = self._charge.cap, self.target, self.seen.dropped

    async def _commit(self, content_headers: list[Header] = EVENT_STREAM) -> None:
        self._claim()
        self._book()
        self.committed = True
        self._first_token = self._booked - self.started
        self.flight.first_token = self._booked - self.flight.start
        self.flight.status = 200
        headers = self.flight.headers(attempting=self.target, upstream_request_id=self.seen.upstream_request_id)
        await self.client.start(200, headers + content_headers)

    def _read_chunk(self, data: bytes) -> Seen | None:
        return self.provider.read_chunk(self.call, data)

    def _with_cost(self, data: bytes, reported: dict[str, Any]) -> bytes:
        usage = read_usage(reported)
        if usage is None or self.target.price is None or any(lacking(reported)):
            return data
        return add_cost(data, self.json, self.flight.cost_nano + cost(usage, self.target.price))

    def _attempt(self) -> Attempt:
        trace = self.flight.trace_headers(self.seen.span_id)
        return Attempt(self.call, self.target, self._charge.cap, self._sent, trace, self.flight.upload)

    def _sent(self) -> None:
        if self.seen.sent_at is None:
            self.seen.sent_at = time.monotonic()

    def _opened(self, upstream: Upstream) -> None:
        self.seen.opened_at = time.monotonic()
        self._status = upstream.status
        headers = upstream.headers
        self.seen.upstream_request_id = (headers.get("x-request-id") or headers.get("request-id") or "")[:128]
        self.seen.dropped = headers.get("x-gateway-dropped", "")
        if upstream.status >= 400:
            self.retry_after = retry_after(headers, time.time())

    def _book(self) -> None:
        """Books the time since the last booking as not ours: the upstream's, or the client's."""
        now = time.monotonic()
        self.flight.book(self._booked, now)
        self._booked = now

    def _absorb(self, tap: StreamTap) -> None:
        if tap.usage:
            self.seen.report(tap.usage)
        self.seen.text_bytes, self.seen.reasoning_bytes = tap.text_bytes, tap.reasoning_bytes
        if self.call.form.sold and tap.useful:
            self.seen.assumed = assumed(self.call, self.target.price, tap.text_bytes)
        if self._traced:
            self.seen.describe(tap.first, tap.finish, self.json)
        if not self._lost():  # what a loser saw never reached the client
            self.flight.lines_dropped += tap.dropped
            self.flight.error_told = tap.error_passed and self.committed

    def _end(self, result: str, *, detail: str = "") -> None:
        """Closes the attempt's account, once: an answer that was whole stays so when the client hangs up after it."""
        if self._ended:
            return
        self._ended = True
        # A limit that is shorter than usual says nothing: with it one client could shut out a model for all.
        self.verdict = "cancelled" if self._blameless or (self._late and self._patience.hurried) else result
        purpose = HEDGE if self._lost() else "answer" if self.committed or result in _ANSWERS else "retry"
        end = AttemptEnd(
            *(result, self.reason, purpose, self._status, self.started, self._first_token, detail, self.committed),
            *(self._charge.budgets, self._charge.reserved, self.retry_after),
        )
        self.cost_nano = self.flight.end_attempt(self.target, self.seen, end).cost_nano

    def _failed(self, kind: Kind, detail: str) -> Past:
        self._book()
        if self._account is not None:  # it ends up in logs, rows and messages
            detail = without_secrets(detail, self._account)
        self._end(str(kind), detail=detail)
        if self.committed:
            self.flight.partial = read_partial(bytes(self.flight.passed), self.json) if self._keep else None
        return Past(
            target=self.index,
            kind=kind,
            detail=detail,
            ended=time.monotonic(),
            status=self._status or None,
            retry_after=self.retry_after,
            committed=self.committed,
            resumable=self.committed and self.flight.partial is not None,
        )
