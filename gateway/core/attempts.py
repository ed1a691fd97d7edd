"""What to do next with a call: `next_step(plan, history, now)` -> Try | Continue | Wait | Fail, as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.core.failures import Kind
from gateway.core.routing import Plan


class Past(NamedTuple):
    """One finished attempt that did not answer the client."""

    target: int  # index into plan.targets
    kind: Kind
    detail: str  # for people: "503 from the upstream: model is loading"
    ended: float  # seconds on the caller's monotonic clock
    status: int | None = None  # the upstream's, where it gave one
    retry_after: float | None = None  # seconds, from `ended`, as the upstream asked
    committed: bool = False  # content had reached the client
    resumable: bool = False  # another target could go on from what the client has seen
    rest: float = 0.0  # seconds, from `ended`, that its endpoint's breaker lets nobody in: it may have opened it
    skipped: str = ""  # it was not tried at all, and why: breaker, overload. Costs no attempt and is not retried
    code: str = ""  # of the error it comes to where a budget had no room for it: insufficient_quota, ...
    budget: str = ""  # that budget's name

    @property
    def reason(self) -> str:
        """Why the next target is tried."""
        return BUDGET if self.code else self.kind.value


BUDGET = "budget"
"""The reason of an attempt that was made because a budget had no room for the target before it."""


class Try(NamedTuple):
    target: int
    reason: str  # "first", "retry", "budget", or the kind of failure that led to this fallback


class Continue(NamedTuple):
    """Try a target with the conversation and what the client has seen of the answer."""

    target: int
    reason: str  # the kind of failure that broke the answer off


class Wait(NamedTuple):
    """Sleep, then ask again."""

    seconds: float


class Fail(NamedTuple):
    """No attempt is left: the answer is an error."""

    status: int  # 502, 503 or 504; 429 or 400 where budgets left no target
    code: str
    message: str  # lists each attempt and why it failed


Step = Try | Continue | Wait | Fail


# Worth another try of the same target: the next moment may be different. Not `timeout`: the client has waited a whole
# limit already, and the request may still be running there. Not `account`, `context_length`, `content_filter`: the
# same request would be refused again.
RETRIED = frozenset({Kind.CONNECT, Kind.SERVER_ERROR, Kind.RATE_LIMITED, Kind.EMPTY, Kind.MALFORMED, Kind.STREAM_CUT})

_FIRST_PAUSE = 0.25  # seconds, doubling, times the dice: full jitter (AWS, "Exponential Backoff and Jitter")
_LONGEST_PAUSE = 8.0
_PATIENCE = 5.0  # seconds of Retry-After that are waited where there is nowhere else to go
_PATIENCE_WITH_ALTERNATIVE = 2.0  # the same where another target is left: it would have begun to answer by then
_CLOCK_GRAIN = 0.001  # seconds: a sleeper may wake this much early
_REST_GRAIN = 1.0  # seconds that a rest may be rounded up by: one that ends with a pause is waited for

# Where budgets leave no target: the code that gives the client the most hope, and its status (contract section 1).
_BUDGET_CODES: Mapping[str, int] = {"rate_limit_exceeded": 429, "insufficient_quota": 429, "unpriced_model": 400}
_NO_CAPACITY = frozenset({Kind.CONNECT, Kind.RATE_LIMITED})
_OF_THE_MODEL = frozenset({Kind.CONTEXT_LENGTH, Kind.CONTENT_FILTER})
_DETAIL_LIMIT = 200  # characters


def next_step(
    plan: Plan, history: Sequence[Past], *, started: float, now: float, no_fallback: bool, roll: float
) -> Step:
    """The whole retry and fallback policy. The last attempt goes to another target rather than to a retry.

    `started`, `now`: the caller's monotonic clock, seconds. `roll`: uniform in [0, 1), the dice for full jitter; fresh
    after each failure, kept while its Wait lasts. `no_fallback`: the first target's model only.
    """
    deadline = started + plan.total
    if now >= deadline - _CLOCK_GRAIN or not plan.targets:
        return _fail(plan, history, out_of_time=now >= deadline - _CLOCK_GRAIN)
    if not history:
        return Try(0, "first")
    last = history[-1]
    attempts = sum(not past.skipped for past in history)
    if (last.kind not in plan.fallback_on and not last.skipped) or attempts >= plan.max_attempts:
        return _fail(plan, history)
    left = plan.max_attempts - attempts
    other = _next_target(plan, history, left=left, no_fallback=no_fallback)
    if last.committed:
        goes_on = other is not None and last.resumable and plan.mid_stream == "continue"
        return Continue(other, last.reason) if other is not None and goes_on else _fail(plan, history)
    pause = None if left == 1 and other is not None else _pause(plan, history, roll, other)
    if pause is not None and last.ended + pause < deadline:
        rest = last.ended + pause - now
        return Wait(rest) if rest > _CLOCK_GRAIN else Try(last.target, "retry")
    if other is not None:
        return Try(other, last.reason)
    return _fail(plan, history)


def others_left(plan: Plan, history: Sequence[Past], target: int, no_fallback: bool) -> bool:
    """Whether the call could still go elsewhere than to `target`: then nothing is worth queueing for."""
    tried = {past.target for past in history} | {target}
    first = plan.targets[0].model.name
    return any(
        index not in tried and not (no_fallback and other.model.name != first)
        for index, other in enumerate(plan.targets)
    )


def _next_target(plan: Plan, history: Sequence[Past], *, left: int, no_fallback: bool) -> int | None:
    """The first target that was not tried and may cure the last failure. `left`: attempts that are left.

    The last attempt goes to a model that has had none, where there is one, rather than to one more replica.
    """
    last = history[-1]
    tried = {past.target for past in history}
    failed = plan.targets[last.target].model.name
    found: list[int] = []
    for index, target in enumerate(plan.targets):
        # Another replica of the same model has the same context window and the same filter.
        hopeless = last.kind in _OF_THE_MODEL and target.model.name == failed
        unable = last.committed and "prefill" not in target.model.supports
        unwanted = no_fallback and target.model.name != plan.targets[0].model.name
        if index not in tried and not (hopeless or unable or unwanted):
            found.append(index)
    if left == 1:
        known = {plan.targets[index].model.name for index in tried}
        found.sort(key=lambda index: plan.targets[index].model.name in known)
    return found[0] if found else None


def _pause(plan: Plan, history: Sequence[Past], roll: float, other: int | None) -> float | None:
    """Seconds from the last failure to a retry of the same target; None where it should be left for `other`."""
    last = history[-1]
    if other is not None and plan.targets[other].model.name == plan.targets[last.target].model.name:
        return None  # a retry on another replica says more, and takes no longer
    tries = sum(past.target == last.target for past in history)
    if last.skipped or last.kind not in RETRIED or tries > plan.retries:
        return None
    pause = roll * min(_FIRST_PAUSE * 2.0 ** min(tries - 1, 16), _LONGEST_PAUSE)
    if last.retry_after is not None:
        if last.retry_after > (_PATIENCE_WITH_ALTERNATIVE if other is not None else _PATIENCE):
            return None
        pause = max(last.retry_after, pause)
    return None if last.rest > pause + _REST_GRAIN else pause  # nobody would be let in at its end


def _fail(plan: Plan, history: Sequence[Past], *, out_of_time: bool = False) -> Fail:
    if out_of_time or (history and history[-1].kind is Kind.TIMEOUT):
        status, code = 504, "upstream_timeout"
    elif history and all(past.code for past in history):
        code = next(code for code in _BUDGET_CODES if any(past.code == code for past in history))
        status = _BUDGET_CODES[code]
    elif history and all(past.skipped and past.kind is Kind.RATE_LIMITED for past in history):
        status, code = 503, "overloaded"
    elif all(past.kind in _NO_CAPACITY for past in history):
        status, code = 503, "no_healthy_upstream"
    else:
        status, code = 502, "upstream_error"
    return Fail(status, code, _story(plan, history, out_of_time=out_of_time))


def _opening(plan: Plan, history: Sequence[Past]) -> str:
    if history and history[-1].committed:
        return f"Route {plan.route}: the answer broke off"
    if history and all(past.code for past in history):
        return f"Route {plan.route}: no model fits the budgets"
    return f"Route {plan.route}: no upstream answered"


def _story(plan: Plan, history: Sequence[Past], *, out_of_time: bool) -> str:
    """Each attempt in order and why it failed: "1. qwen: connect: refused; 2. gpt: ..."."""
    opening = _opening(plan, history)
    if out_of_time:
        opening += f" within {plan.total:g} s"
    attempts = "; ".join(f"{number}. {_line(plan, past)}" for number, past in enumerate(history, 1))
    return f"{opening}: {attempts}" if attempts else f"{opening}: none was tried"


def _line(plan: Plan, past: Past) -> str:
    name = plan.targets[past.target].model.name
    if past.skipped:
        return f"{name}: not tried: {past.skipped}"
    if past.kind is Kind.ACCOUNT:
        # What an upstream says about our account (masked keys, organisations, balances) is not for the client.
        detail = "" if past.status is None else str(past.status)
    else:
        detail = " ".join(past.detail.split())[:_DETAIL_LIMIT]
    return f"{name}: {past.kind}: {detail}" if detail else f"{name}: {past.kind}"
