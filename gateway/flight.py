"""A call under way: what has happened to it so far, and at its end the Record of it.

The engine writes here while it acts; nobody else does. `Flight.record` is the only maker of Records.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from gateway.core.attempts import Past
from gateway.core.budgets import Action
from gateway.core.caching import Kept
from gateway.core.call import Call, Principal
from gateway.core.capture import Assembly
from gateway.core.hedging import HEDGE
from gateway.core.pieces import priced
from gateway.core.pricing import baseline_cost, cost, price_at, source_of
from gateway.core.record import AttemptRecord, Record, Stages
from gateway.core.resume import Partial
from gateway.core.routing import Plan, Target
from gateway.core.tasks import Task
from gateway.core.traces import Parent, Sampling, Span, begin, outgoing
from gateway.core.translate import dropped
from gateway.core.usage import estimate_tokens, together
from gateway.core.verdicts import said
from gateway.errors import RequestError
from gateway.observed import NOTHING, Observed
from gateway.providers.base import Upload

Header = tuple[bytes, bytes]

T = TypeVar("T")


class Request(NamedTuple):
    """What is known of a request before, or without, a parsed call."""

    endpoint: str
    client_request_id: str = ""
    parent: Parent | None = None  # the client's trace
    arrived: float = 0.0  # seconds on the monotonic clock: when its head was there
    id: str = ""  # of ours; empty: its flight makes one


class Refusal(NamedTuple):
    """An upstream's own 4xx about the request, as it came, for the client to see."""

    status: int
    content_type: str
    body: bytes


class AttemptEnd(NamedTuple):
    """How an attempt ended. Times are seconds on the monotonic clock."""

    result: str  # as in AttemptRecord
    reason: str
    purpose: str
    status: int
    started: float
    first_token: float | None = None
    detail: str = ""
    committed: bool = False  # it answered the client, if only in part
    budgets: tuple[str, ...] = ()  # that it is charged to
    reserved: int | None = None  # nano-USD held in each of them; None: it touches none
    retry_after: float | None = None  # seconds, as the upstream asked


def new_id() -> str:
    return "req_" + secrets.token_hex(12)


class Flight:
    """The running account of one call. Times are seconds on the loop's monotonic clock; `began` is unix time."""

    def __init__(self, request: Request, principal: Principal, *, began: float, start: float) -> None:
        self.id = request.id or new_id()
        self.request = request
        self.principal = principal
        self.began = began
        self.start = start
        self.call: Call | None = None
        self.task: Task | None = None
        self.route = ""
        self.plan: Plan | None = None
        self.history: list[Past] = []
        self.attempts: list[AttemptRecord] = []
        self.answering: Target | None = None  # the one that the client hears
        self.answered_by: Target | None = None  # it has, to the end
        self.usage = NOTHING
        self.outcome = "upstream_error"
        self.rejection = ""
        self.budget = ""  # that had no room for it, or whose threshold decided
        self.cap: int | None = None  # tokens of output that we asked for at most, of our own accord
        self.dropped = ""  # as of Observed, of the attempt that answers
        self.quota_headers: list[Header] = []  # how the limits on its traffic stand
        self.status = 0
        self.first_token: float | None = None
        self.waited = 0.0  # seconds spent on upstreams, back-off and a slow client, which are not ours
        self.lines_dropped = 0
        self.refusal: Refusal | None = None  # of the last attempt
        self.tries = 0  # attempts begun
        self.passed = bytearray()  # of the stream, as far as it may be continued
        self.partial: Partial | None = None  # what can be continued, once it broke off
        self._booked_until = 0.0
        self.span: Span | None = None
        self.cached = ""  # hit, miss or bypass; empty: its route gives no answer again
        self.cache_key = b""  # what its answer is to be kept under; empty: nowhere
        self.kept: Kept | None = None  # the answer that was given again
        self.assembly: Assembly | None = None  # of the answer, where its route keeps that
        self.admitted: float | None = None  # when it had its place, and when its plan was made
        self.decided: float | None = None
        self.upload: Upload | None = None  # the files of a form
        self.binary = False  # bytes of an answer are out that cannot hold an error
        self.error_told = False  # the stream's last event was the upstream's own error

    def trace(self, sampling: Sampling) -> None:
        """Traces are recorded: its ids are made now, so that attempts can carry them."""
        self.span = begin(self.request.parent, sampling, os.urandom(24))

    def trace_headers(self, attempt_id: str) -> tuple[Header, ...] | None:
        """What an attempt sends in place of the client's; None: the client's own."""
        return outgoing(self.span, attempt_id) if self.span is not None else None

    @property
    def trace_id(self) -> str:
        """Of a trace that somebody records, for rows, logs and exemplars; empty where nobody does."""
        if self.request.parent is not None:
            return self.request.parent.trace_id
        return self.span.trace_id if self.span is not None and self.span.sampled else ""

    def _stages(self) -> Stages:
        arrived, admitted, decided = self.request.arrived, self.admitted, self.decided
        return Stages(
            self.start - arrived if arrived else None,
            admitted - self.start if admitted is not None else None,
            decided - admitted if admitted is not None and decided is not None else None,
        )

    @property
    def no_fallback(self) -> bool:
        return self.call is not None and self.call.hints.no_fallback

    @property
    def estimated_input(self) -> int:
        call = self.call
        return 0 if call is None else _read(lambda: call.estimated_input, estimate_tokens(len(call.body)))

    def end_attempt(self, target: Target, seen: Observed, end: AttemptEnd) -> AttemptRecord:
        """Closes an attempt: what it used and what that costs, whatever its end was."""
        result = end.result
        if result == "ok":
            usage = seen.usage(self.estimated_input)
            self.answered_by = target
        elif result == "relayed":
            usage = NOTHING
        else:
            billed = target.model.bills_filtered and self.call is not None and not self.call.form.sold
            usage = seen.failed_usage(result, end.status, self.estimated_input, bills_filtered=billed)
        if end.committed:  # the client has it, or a part of it
            self.usage = together(self.usage, usage)
        price = target.price if usage.more is None else priced(usage, target.price)
        record = AttemptRecord(
            model=target.model.name,
            provider=target.model.provider,
            hosting=target.model.hosting,
            purpose=end.purpose,
            reason=end.reason,
            result=result,
            status=end.status,
            started=end.started - self.start,
            duration=time.monotonic() - end.started,
            first_token=end.first_token,
            usage=usage,
            price_source=source_of(usage, price) if price is not None else "",
            cost_nano=cost(usage, price) if price is not None else 0,
            upstream_request_id=seen.upstream_request_id,
            detail=end.detail,
            budgets=end.budgets,
            reserved_nano=end.reserved,
            replica=target.replica.name if target.replica.provider else "",
            retry_after=end.retry_after,
            stages=seen.stages(end.started),
            span_id=seen.span_id,
            upstream_model=target.upstream_name,
            response_model=seen.response_model,
            finish=seen.finish,
        )
        self.attempts.append(record)
        return record

    @property
    def cost_nano(self) -> int:
        """Of all attempts that have ended, answered or not: what the request has cost so far."""
        return sum(attempt.cost_nano for attempt in self.attempts)

    @property
    def tokens(self) -> int:
        """Input and output of all attempts, as billed so far."""
        return sum(attempt.usage.total_input + attempt.usage.total_output for attempt in self.attempts)

    def book(self, since: float, now: float) -> None:
        """Books a stretch of time as not ours: an upstream's, a pause, a slow client. Overlaps count once."""
        self.waited += max(0.0, now - max(since, self._booked_until))
        self._booked_until = max(now, self._booked_until)

    def fallback_reason(self, model: str) -> str:
        """The kind of failure that made `model` take over from another; empty where the first target answered."""
        assert self.plan is not None
        for past in reversed(self.history):
            if past.skipped:
                continue
            if self.plan.targets[past.target].model.name != model:
                return str(past.kind)
        return ""

    def headers(self, attempting: Target | None = None, upstream_request_id: str = "") -> list[Header]:
        """The response headers of contract section 1, as far as they are known now.

        `attempting`: the target of an attempt that has not ended yet, else the last attempt speaks.
        """
        headers = self._opening()
        model = provider = ""
        if attempting is not None:
            model, provider = attempting.model.name, attempting.model.provider
        elif (last := self._speaker()) is not None:
            model, provider, upstream_request_id = last.model, last.provider, last.upstream_request_id
        if self.plan is not None and self.plan.verdict.action >= Action.PREFER_SELF_HOSTED:
            headers.append((b"x-gateway-budget", latin(said(self.plan.verdict))))
        if model:
            headers.append((b"x-gateway-model", latin(model)))
            headers.append((b"x-gateway-provider", latin(provider)))
            headers.append((b"x-gateway-attempts", b"%d" % self.tries))
            if self.history and (reason := self.fallback_reason(model)):
                headers.append((b"x-gateway-fallback-reason", reason.encode()))
            headers += self._asked_headers(attempting or self.answered_by)
            if upstream_request_id:
                headers.append((b"x-gateway-upstream-request-id", latin(upstream_request_id)))
        return headers + self._closing()

    def hit_headers(self, kept: Kept) -> list[Header]:
        """The same for an answer that is given again."""
        who = [(b"x-gateway-model", latin(kept.model)), (b"x-gateway-provider", latin(kept.provider))]
        return [*self._opening(), *who, (b"x-gateway-cost-usd", b"0"), *self._closing()]

    def _opening(self) -> list[Header]:
        headers = [(b"x-request-id", latin(self.request.client_request_id or self.id))]
        if self.route:
            headers.append((b"x-gateway-route", latin(self.route)))
        if self.task is not None:
            headers.append((b"x-gateway-task", latin(self.task.label)))
        if self.cached:
            headers.append((b"x-gateway-cache", self.cached.encode()))
        return headers

    def _closing(self) -> list[Header]:
        ours = max(0.0, time.monotonic() - self.start - self.waited)
        return [*self.quota_headers, (b"x-gateway-overhead-ms", b"%.2f" % (ours * 1000))]

    def baseline(self) -> tuple[str, int]:
        """The baseline model's name and what it would have cost; empty where none applies (contract section 5)."""
        plan = self.plan
        if self.outcome != "ok" or plan is None or plan.baseline is None or plan.baseline.price is None:
            return "", 0
        if self.answered_by is None or self.answered_by.price is None:
            return "", 0  # unpriced requests add none
        price = price_at(plan.baseline.price, self.began)
        return ("", 0) if price is None else (plan.baseline.name, baseline_cost(self.usage, price))

    def _asked_headers(self, target: Target | None) -> list[Header]:
        """How what a target was asked for differs from the request."""
        headers = [] if self.cap is None else [(b"x-gateway-max-tokens", b"%d" % self.cap)]
        ours = dropped(self.call, target) if target is not None and self.call is not None else ()
        if left_out := [name for name in (*ours, self.dropped) if name]:
            headers.append((b"x-gateway-dropped", latin(", ".join(left_out))))
        return headers

    def _speaker(self) -> AttemptRecord | None:
        """The attempt that answered, else the last; never one that lost a race, which may end after the winner."""
        spoke = [attempt for attempt in self.attempts if attempt.purpose != HEDGE] or self.attempts
        return spoke[-1] if spoke else None

    def record(self, now: float, config_hash: str) -> Record:
        last = self._speaker()
        who = last if self.kept is None else self.kept
        call = self.call
        baseline_model, baseline_nano = self.baseline()
        duration = now - self.start
        return Record(
            id=self.id,
            client_request_id=self.request.client_request_id,
            started=self.began,
            key=self.principal.key,
            team=self.principal.team,
            user=self.principal.user or (_read(lambda: call.user, "") if call is not None else ""),
            tags=tuple(sorted(self.principal.tags | call.hints.tags)) if call is not None else (),
            endpoint=self.request.endpoint,
            requested_model=call.model if call is not None else "",
            stream=call.stream if call is not None else False,
            route=self.route,
            task=self.task.label if self.task is not None else "",
            task_why=self.task.why if self.task is not None else "",
            model=who.model if who is not None else "",
            provider=who.provider if who is not None else "",
            hosting=who.hosting if who is not None else "",
            outcome=self.outcome,
            rejection=self.rejection,
            status=self.status or 500,  # a defect: nobody came to say
            fallback_reason=self.fallback_reason(last.model) if last is not None and self.history else "",
            usage=self.usage,
            cost_nano=self.cost_nano,
            baseline_nano=baseline_nano,
            baseline_model=baseline_model,
            unpriced=any(not a.price_source and a.usage != NOTHING for a in self.attempts),
            duration=duration,
            first_token=self.first_token,
            overhead=max(0.0, duration - self.waited),
            has=_read(lambda: tuple(sorted(call.has)), ()) if call is not None else (),
            estimated_input=self.estimated_input,
            max_output=call.max_output if call is not None else None,
            lines_dropped=self.lines_dropped,
            config_hash=config_hash,
            attempts=tuple(self.attempts),
            budget=self.budget if self.outcome == "rejected" else "",
            n=call.n if call is not None else 1,
            no_fallback=self.no_fallback,
            max_cost_nano=call.hints.max_cost_nano_usd if call is not None else None,
            timeout=call.hints.timeout if call is not None else None,
            asked_task=call.hints.task if call is not None else "",
            body_bytes=call.body_size if call is not None else None,
            cache=self.cached,
            cache_saved_nano=self.kept.cost_nano if self.kept is not None else 0,
            trace_id=self.trace_id,
            span=self.span,
            stages=self._stages(),
        )


def _read(look: Callable[[], T], otherwise: T) -> T:
    """What a request says, which is read when it is asked for: a record is made whatever it holds."""
    try:
        return look()
    except RequestError:
        return otherwise


def latin(text: str) -> bytes:
    """A header value's bytes (RFC 9110, 5.5). Control characters and what latin-1 lacks become question marks."""
    return "".join(c if c.isprintable() else "?" for c in text).encode("latin-1", "replace")
