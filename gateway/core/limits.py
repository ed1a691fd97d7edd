"""Limits on traffic: requests and tokens a minute, requests in flight (`limits:` of routes.yaml and of keys).

A **quota** is one scope of a limit. Its **meter** counts what was let in by the second, so that the minute slides: no
60 seconds, wherever they begin, hold more than the limit. A meter is a row of whole numbers, in a list or in memory
that several processes share (`gateway/rates.py`); the functions here are all that know its layout.

Tokens are counted as estimated when a request comes, and as billed from its end on. A request is let in while there is
room for its input; its output is not known yet, and what it puts out beyond the limit is worked off before the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from gateway.core.call import Call, Principal
from gateway.core.rules import Match
from gateway.core.scopes import ALL, GuardIndex, Scope, scope_of
from gateway.core.tasks import Task

SECONDS = 60
_BUCKETS = SECONDS + 1  # the second under way and the 60 before it: less would let a little too much in
_NOW, _REQUESTS, _TOKENS = 0, 1, 2  # the second it was last brought up to, and the sums of what follows
_BY_SECOND = 3
_TOKENS_BY_SECOND = _BY_SECOND + _BUCKETS
_IN_FLIGHT = _TOKENS_BY_SECOND + _BUCKETS  # one number for each process

Meter: TypeAlias = "list[int] | memoryview[int]"
_Tightest: TypeAlias = "tuple[int, int, Meter]"  # a limit, what is left of it, and its meter


class Limit(NamedTuple):
    """One entry. None: not limited. At least one of the three is given."""

    name: str  # tells it apart from others: "limits[0]", or "key:ci"
    match: Match = Match()
    per: Scope = ""  # without it, all that match share one count
    requests_per_minute: int | None = None  # in any 60 seconds
    tokens_per_minute: int | None = None  # input and output, as billed
    max_in_flight: int | None = None


class Quota(NamedTuple):
    limit: Limit
    scope: str  # what `per` is worth, or "all"

    @property
    def told(self) -> str:
        """For people."""
        return f"{self.limit.name} ({self.limit.per} {self.scope})" if self.limit.per else self.limit.name


class Usage(NamedTuple):
    """What a meter shows."""

    requests: int
    tokens: int
    in_flight: int


class Refusal(NamedTuple):
    quota: Quota
    why: str  # "600 requests a minute"
    seconds: int  # until the same request would be let in, if nobody else came; 0: it never would


class Standing(NamedTuple):
    """How one kind of limit stands, for `x-ratelimit-*`."""

    kind: str  # requests | tokens
    limit: int
    remaining: int
    reset: int  # seconds until nothing of it is used any more


def size_of(processes: int) -> int:
    """Numbers in a meter."""
    return _IN_FLIGHT + processes


def touched(index: GuardIndex[Limit], call: Call, task: Task, principal: Principal) -> list[Quota]:
    """`principal.limits` are the key's own, which match whatever it asks."""
    found = index.matching(call, task, principal)
    found += principal.limits
    return [Quota(each, scope_of(each.per, call, task, principal) if each.per else ALL) for each in found]


def usage(meter: Meter, now: float) -> Usage:
    """`now`: seconds on a clock that all who share the meter read."""
    _roll(meter, int(now))
    return Usage(meter[_REQUESTS], meter[_TOKENS], _in_flight(meter))


def refused(meter: Meter, quota: Quota, tokens: int, now: float) -> Refusal | None:
    """Whether one more request of `tokens` of input has room."""
    limit = quota.limit
    if meter[_NOW] != int(now):
        _roll(meter, int(now))
    most = limit.requests_per_minute
    if most is not None and (used := meter[_REQUESTS]) + 1 > most:
        seconds = _until(meter, _BY_SECOND, used + 1 - most, now)
        return Refusal(quota, f"{most} requests a minute", seconds)
    most = limit.tokens_per_minute
    if most is not None and (used := meter[_TOKENS]) + tokens > most:
        why = f"{most} tokens a minute"
        if tokens > most:
            return Refusal(quota, f"{why}, and this request alone has about {tokens}", 0)
        return Refusal(quota, why, _until(meter, _TOKENS_BY_SECOND, used + tokens - most, now))
    most = limit.max_in_flight
    if most is not None and _in_flight(meter) >= most:
        return Refusal(quota, f"{most} requests in flight", 1)
    return None


def enter(meters: Iterable[Meter], process: int, tokens: int, now: float) -> None:
    """Counts a request that was let in."""
    second = int(now)
    at = second % _BUCKETS
    requests_at, tokens_at, in_flight_at = _BY_SECOND + at, _TOKENS_BY_SECOND + at, _IN_FLIGHT + process
    for meter in meters:
        if meter[_NOW] != second:
            _roll(meter, second)
        meter[requests_at] += 1
        meter[_REQUESTS] += 1
        meter[tokens_at] += tokens
        meter[_TOKENS] += tokens
        meter[in_flight_at] += 1


def leave(meters: Iterable[Meter], process: int, counted: int, billed: int, times: tuple[float, float]) -> None:
    """The request ended: what was `counted` of its tokens when it came gives way to what was `billed` by now.

    `times`: when it came, and now.
    """
    came, second = int(times[0]), int(times[1])
    if second - came >= _BUCKETS:  # it has left the window
        counted = 0
    came_at, now_at = _TOKENS_BY_SECOND + came % _BUCKETS, _TOKENS_BY_SECOND + second % _BUCKETS
    more, in_flight_at = billed - counted, _IN_FLIGHT + process
    for meter in meters:
        if meter[_NOW] != second:
            _roll(meter, second)
        if came_at == now_at:
            meter[now_at] += more
        else:
            meter[came_at] -= counted
            meter[now_at] += billed
        meter[_TOKENS] += more
        if meter[in_flight_at] > 0:
            meter[in_flight_at] -= 1


def gone(meter: Meter, process: int) -> None:
    """A process has ended: nothing of it is in flight any more."""
    meter[_IN_FLIGHT + process] = 0


def idle(meter: Meter, now: float) -> bool:
    """Nothing would be lost with it."""
    used = usage(meter, now)
    return not any(used)


def standings(quotas: Iterable[Quota], meters: Iterable[Meter], now: float) -> list[Standing]:
    """For `requests` and `tokens`, where they are limited; of several quotas, the one with the least left."""
    second = int(now)
    requests: _Tightest | None = None
    tokens: _Tightest | None = None
    for (limit, _), meter in zip(quotas, meters, strict=True):
        if meter[_NOW] != second:
            _roll(meter, second)
        most = limit.requests_per_minute
        if most is not None and (requests is None or most - meter[_REQUESTS] < requests[1]):
            requests = most, most - meter[_REQUESTS], meter
        most = limit.tokens_per_minute
        if most is not None and (tokens is None or most - meter[_TOKENS] < tokens[1]):
            tokens = most, most - meter[_TOKENS], meter
    found = []
    if requests is not None:
        found.append(_standing("requests", requests, _BY_SECOND, now))
    if tokens is not None:
        found.append(_standing("tokens", tokens, _TOKENS_BY_SECOND, now))
    return found


CLOCK = tuple([b"%ds" % seconds for seconds in range(SECONDS)] + [b"1m0s", b"1m1s"])
"""The times until a reset, by their seconds, as OpenAI writes them: `6m0s`, `1s`."""


def _roll(meter: Meter, second: int) -> None:
    """Forgets the seconds that have left the window."""
    passed = second - meter[_NOW]
    if passed <= 0:
        return
    for each in range(second - min(passed, _BUCKETS) + 1, second + 1):
        at = each % _BUCKETS
        meter[_REQUESTS] -= meter[_BY_SECOND + at]
        meter[_TOKENS] -= meter[_TOKENS_BY_SECOND + at]
        meter[_BY_SECOND + at] = meter[_TOKENS_BY_SECOND + at] = 0
    meter[_NOW] = second


def _until(meter: Meter, start: int, excess: int, now: float) -> int:
    """Whole seconds until `excess` of what is counted from `start` on has left the window, at least 1."""
    second = int(now)
    for age in range(SECONDS, -1, -1):
        excess -= meter[start + (second - age) % _BUCKETS]
        if excess <= 0:
            return _left_in(second - age, now)
    return SECONDS


def _standing(kind: str, tightest: _Tightest, start: int, now: float) -> Standing:
    most, left, meter = tightest
    if left >= most:
        return Standing(kind, most, left, 0)
    # What was counted in this very second stays for 60 more; nearly always something was.
    reset = _BUCKETS if meter[start + int(now) % _BUCKETS] else _reset(meter, start, now)
    return Standing(kind, most, max(0, left), reset)


def _reset(meter: Meter, start: int, now: float) -> int:
    """Whole seconds until nothing of what is counted from `start` on is left in the window; something is."""
    second = int(now)
    for age in range(_BUCKETS):  # from the latest
        if meter[start + (second - age) % _BUCKETS]:
            return _left_in(second - age, now)
    return SECONDS


def _left_in(second: int, now: float) -> int:
    """Whole seconds until what was counted in `second` has left the window, at least 1."""
    return max(1, math.ceil(second + _BUCKETS - now))


def _in_flight(meter: Meter) -> int:
    return sum(meter[_IN_FLIGHT:])
