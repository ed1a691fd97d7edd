"""When to leave a replica alone, and how to come back to it. One `Breaker` for each (model, replica).

Vocabulary: a **closed** breaker lets requests through. It **opens** after failures in a row or at a high error rate.
After a pause it is **half-open**: one request, the **trial**, decides whether it closes or opens again. After it has
closed, traffic comes back little by little: the **slow start**. A **probe** is a cheap request of our own that costs no
tokens. A **rest** is what a 429 asks for; it leaves the breaker as it is.

All times are seconds on the caller's monotonic clock. Every function gives the next state and changes nothing.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

from gateway.core.failures import Kind
from gateway.core.rules import Standing

FAILURES = frozenset({Kind.CONNECT, Kind.TIMEOUT, Kind.SERVER_ERROR, Kind.MALFORMED, Kind.STREAM_CUT, Kind.ACCOUNT})
SUCCESSES = frozenset({"ok", "relayed", Kind.CONTEXT_LENGTH, Kind.CONTENT_FILTER})  # the server did its part
"""All other results say nothing about the replica: a client that hangs up, above all, and an empty answer, which a
prompt can ask for (docs/decisions/0025-empty-answers.md).
"""

IN_A_ROW = 5  # failures that open it (contract section 2)
WINDOW = 30  # seconds
ENOUGH = 20  # results in the window before its error rate counts
ERROR_RATE = 0.5
PAUSE, LONGEST_PAUSE = 5.0, 60.0  # seconds open, doubling with each opening
STEADY = 60.0  # seconds closed after which an opening is a first one again
TRIAL = 60.0  # seconds a trial keeps others out; beyond that it is a long answer rather than a failure
RAMP, LOWEST_SHARE = 10.0, 0.1  # the slow start: its seconds and where it begins
LONGEST_REST = 60.0  # seconds
PROBE_LIMIT = 2.0  # seconds for the answer to a probe
MISSES = 2  # probes in a row without an answer that open a replica that nobody uses
SLOWLY = "starting slowly after a failure"


class Phase(StrEnum):
    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class Bucket(NamedTuple):
    """The results of one second."""

    second: int
    good: int
    bad: int


class Ended(NamedTuple):
    """How an attempt ended: `ok`, `relayed`, `cancelled` or a failure kind."""

    result: str
    retry_after: float | None = None  # seconds, as the upstream asked
    began: float = math.inf  # when it asked to be let in


class Breaker(NamedTuple):
    phase: Phase = Phase.CLOSED
    since: float = -math.inf  # when this phase began
    failures: int = 0  # in a row
    window: tuple[Bucket, ...] = ()  # at most WINDOW, oldest first; seconds without results have none
    openings: int = 0  # with no steady time between them
    until: float = -math.inf  # open: when it is half-open by itself; half-open: when its trial lets others in
    why: str = ""  # it opened
    answers: bool = False  # a probe was answered once: only then does silence mean anything
    misses: int = 0  # probes in a row that failed while it was closed
    rest: float = 0.0  # seconds, as the last 429 asked
    rests_until: float = -math.inf


FINE = Breaker()


def tick(state: Breaker, now: float) -> Breaker:
    """An open breaker whose pause is over is half-open."""
    if state.phase is Phase.OPEN and now >= state.until:
        return _half_open(state, now)
    return state


def admit(state: Breaker, now: float) -> tuple[Breaker, str]:
    """Whether one request may go now: an empty reason, and in the half-open state it has become the trial."""
    state = tick(state, now)
    if state.phase is Phase.CLOSED:
        return state, ""
    if state.phase is Phase.HALF_OPEN and now >= state.until:
        return state._replace(until=now + TRIAL), ""
    return state, _reason(state)


def record(state: Breaker, ended: Ended, now: float, *, count: int = 1) -> Breaker:
    """How an attempt ended; `count`: so many successes at once.

    What began before the breaker opened may end after it. While it is open that is no news. While it is half-open, only
    a success is, unless it is the trial that ended.
    """
    state = tick(state, now)
    result = ended.result
    if result in SUCCESSES:
        return _succeeded(state, now, count)
    if state.phase is Phase.HALF_OPEN and ended.began < state.since:
        return state
    if result in FAILURES:
        return _failed(state, result, now)
    if state.phase is Phase.HALF_OPEN:
        state = state._replace(until=-math.inf)  # the trial ended without a verdict: the next one may try
    if result == Kind.RATE_LIMITED:
        rest = min(ended.retry_after or 0.0, LONGEST_REST)
        if now + rest > state.rests_until:
            state = state._replace(rest=rest, rests_until=now + rest)
    return state


def probed(state: Breaker, now: float, *, alive: bool) -> Breaker:
    """What a probe says. It never closes a breaker: only a live request shows that a model answers.

    Silence counts only against a replica that has answered a probe before: some servers know nothing but POST.
    """
    if alive and not state.answers:
        state = state._replace(answers=True)
    if not (alive or state.answers) or state.until == math.inf:
        return state
    if state.phase is Phase.CLOSED:
        if alive:
            return state._replace(misses=0) if state.misses else state
        missed = state._replace(misses=state.misses + 1)
        return missed if missed.misses < MISSES else _open(missed, now, f"{MISSES} probes without an answer")
    if state.phase is Phase.OPEN:
        if alive:
            return _half_open(state, now)
        # Stays open while probes fail. Should they cease to come, it is half-open in the end.
        return state._replace(until=max(state.until, now + 2 * (probe_gap(state) + PROBE_LIMIT)))
    if alive or state.until > -math.inf:
        return state
    return state._replace(phase=Phase.OPEN, since=now, until=now + _pause(state))


def opened_by_hand(state: Breaker, now: float) -> Breaker:
    """Lets nothing through until it is closed by hand: neither time nor a probe changes that."""
    return _open(state, now, "opened by hand")._replace(until=math.inf)


def closed_by_hand(state: Breaker, now: float) -> Breaker:
    """Lets everything through at once."""
    return FINE._replace(since=now, answers=state.answers)


def probe_gap(state: Breaker) -> float:
    """Seconds between probes of a replica that is not closed: longer where trials failed although probes went well."""
    return _pause(state) / 5


def share(state: Breaker, now: float) -> float:
    """Of its usual traffic that it should get: from LOWEST_SHARE to 1 over the RAMP after it closed."""
    if state.phase is not Phase.CLOSED or not state.openings:
        return 1.0
    return min(1.0, LOWEST_SHARE + (1.0 - LOWEST_SHARE) * (now - state.since) / RAMP)


def standing(state: Breaker, now: float) -> Standing | None:
    """What plans should know; None where it is simply fine."""
    state = tick(state, now)
    if state.phase is Phase.OPEN:
        return Standing(blocked=_reason(state), retry_after=min(state.until - now, LONGEST_PAUSE))
    if now < state.rests_until:
        blocked = f"rests for {state.rest:g} s: rate limited (429)"
        return Standing(blocked=blocked, retry_after=state.rests_until - now)
    if state.phase is Phase.HALF_OPEN:
        return Standing(blocked=_reason(state), retry_after=1.0) if now < state.until else Standing()
    part = share(state, now)
    return Standing(share=part) if part < 1.0 else None


def _succeeded(state: Breaker, now: float, count: int) -> Breaker:
    if state.phase is Phase.OPEN:
        return state
    if state.phase is Phase.HALF_OPEN:
        state = state._replace(phase=Phase.CLOSED, since=now, until=-math.inf, window=(), why="")
    return state._replace(failures=0, misses=0, window=_counted(state.window, now, good=count))


def _failed(state: Breaker, result: str, now: float) -> Breaker:
    if state.phase is Phase.OPEN:
        return state
    if state.phase is Phase.HALF_OPEN:
        return state if state.until == -math.inf else _open(state, now, f"its trial failed: {result}")
    window = _counted(state.window, now, bad=1)
    failures = state.failures + 1
    state = state._replace(failures=failures, window=window)
    if failures >= IN_A_ROW:
        return _open(state, now, f"{failures} failures in a row, last {result}")
    bad = sum(bucket.bad for bucket in window)
    total = bad + sum(bucket.good for bucket in window)
    if total >= ENOUGH and bad >= total * ERROR_RATE:
        return _open(state, now, f"{bad} failures in {total} results, last {result}")
    return state


def _open(state: Breaker, now: float, why: str) -> Breaker:
    steady = state.phase is Phase.CLOSED and now - state.since >= STEADY
    openings = 1 if steady else state.openings + 1
    state = state._replace(phase=Phase.OPEN, since=now, openings=openings, why=why, failures=0, misses=0, window=())
    return state._replace(until=now + _pause(state))


def _half_open(state: Breaker, now: float) -> Breaker:
    return state._replace(phase=Phase.HALF_OPEN, since=now, until=-math.inf)


def _pause(state: Breaker) -> float:
    return min(PAUSE * 2.0 ** min(max(state.openings, 1) - 1, 16), LONGEST_PAUSE)


def _reason(state: Breaker) -> str:
    return f"breaker open: {state.why}" if state.phase is Phase.OPEN else "breaker half-open: its trial is under way"


def _counted(window: tuple[Bucket, ...], now: float, *, good: int = 0, bad: int = 0) -> tuple[Bucket, ...]:
    second = int(now)
    kept = tuple(bucket for bucket in window if bucket.second > second - WINDOW)
    if kept and kept[-1].second >= second:
        last = kept[-1]
        return (*kept[:-1], Bucket(last.second, last.good + good, last.bad + bad))
    return (*kept, Bucket(second, good, bad))
