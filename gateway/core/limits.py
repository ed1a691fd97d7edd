"""Limits on traffic: requests and tokens a minute, requests in flight (`limits:` of routes.yaml and of keys).

A **quota** is one scope of a limit. Its **meter** counts what was let in by the second, so that the minute slides: no
60 seconds, wherever they begin, hold more than the limit. A meter is a row of whole numbers, in a list or in memory
that several processes share (`gateway/rates.py`); the functions here are all that know its layout.

Tokens are counted as estimated when a request comes, and as billed from its end on. A request is let in while there is
room for its input; its output is not known yet, and what it puts out beyond the limit is worked off before the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from gateway.core.call import Call, Principal
from gateway.core.rules import Match
from gateway.core.scopes import ALL, MOST_CALLERS, ByCaller, GuardIndex, Scope, scope_of
from gateway.core.tasks import Task

SECONDS = 60
_BUCKETS = SECONDS + 1  # the second under way and the 60 before it: less would let a little too much in
_NOW, _REQUESTS, _TOKENS = 0, 1, 2  # the second it was last brought up to, and the sums of what follows
_BY_SECOND = 3
_TOKENS_BY_SECOND = _BY_SECOND + _BUCKETS
_IN_FLIGHT = _TOKENS_BY_SECOND + _BUCKETS  # one number for each process

Quotas: TypeAlias = "tuple[Quota, ...]"
Meter: TypeAlias = "list[int] | memoryview[int]"
Row: TypeAlias = "tuple[Meter, int, int, int]"
"""A quota's meter, and the most requests and tokens a minute and requests in flight: what every request looks at."""
Rows: TypeAlias = "Sequence[Row]"
_UNLIMITED = 1 << 62
_MOST = 1 << 61  # more than is left of any limit
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


Standing: TypeAlias = "tuple[int, int, int]"
"""How one kind of limit stands: the limit, what is left of it, and seconds until nothing of it is used any more."""
Standings: TypeAlias = "tuple[Standing | None, Standing | None]"
"""Of requests and of tokens, for `x-ratelimit-*`; None where they are not limited."""


def size_of(processes: int) -> int:
    """Numbers in a meter."""
    return _IN_FLIGHT + processes


class LimitIndex:
    """Which quotas a request touches."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._index = GuardIndex(limits)
        self._callers = ByCaller[Quotas](limits)
        self._alike: dict[tuple[tuple[str, str], ...], Quotas] = {}  # by limits and scopes, where more decides

    def touched(self, call: Call, task: Task, principal: Principal) -> Quotas:
        """Mostly the very same for requests that touch the same, so that their meters can be remembered by it.

        `principal.limits` are the key's own, which match whatever it asks.
        """
        known = self._callers.get(call, task, principal)
        if known is not None:
            return known
        found = self._index.matching(call, task, principal)
        found += principal.limits
        quotas = tuple([Quota(each, scope_of(each.per, call, task, principal) if each.per else ALL) for each in found])
        if self._callers.remembers:
            self._callers.put(call, task, principal, quotas)
            return quotas
        name = tuple([(limit.name, scope) for limit, scope in quotas])
        alike = self._alike.get(name)
        if alike == quotas:
            return alike
        if len(self._alike) >= MOST_CALLERS:
            self._alike.clear()
        self._alike[name] = quotas
        return quotas


def usage(meter: Meter, now: float) -> Usage:
    """`now`: seconds on a clock that all who share the meter read."""
    _roll(meter, int(now))
    return Usage(meter[_REQUESTS], meter[_TOKENS], _in_flight(meter))


def row_of(quota: Quota, meter: Meter) -> Row:
    limit = quota.limit
    most = (limit.requests_per_minute, limit.tokens_per_minute, limit.max_in_flight)
    requests, tokens, in_flight = [_UNLIMITED if each is None else each for each in most]
    return meter, requests, tokens, in_flight


def admit(rows: Rows, process: int, tokens: int, now: float) -> Standings | None:
    """Counts one more request of `tokens` of input in all meters, and says how they stand then.

    None where one has no room for it: then it is counted in none.
    """
    second = int(now)
    requests_at = _BY_SECOND + second % _BUCKETS
    tokens_at, in_flight_at = requests_at + _BUCKETS, _IN_FLIGHT + process
    left = text_left = _UNLIMITED
    for row in rows:
        meter, requests, most, in_flight = row
        if meter[_NOW] != second:
            _roll(meter, second)
        used, read = meter[_REQUESTS] + 1, meter[_TOKENS] + tokens
        if used > requests or read > most or (in_flight != _UNLIMITED and sum(meter[_IN_FLIGHT:]) >= in_flight):
            _take_back(rows, row, tokens, (requests_at, tokens_at, in_flight_at))
            return None
        meter[_REQUESTS], meter[_TOKENS] = used, read
        meter[requests_at] += 1
        meter[tokens_at] += tokens
        meter[in_flight_at] += 1
        if (rest := requests - used) < left:
            limit, left = requests, rest
        if (rest := most - read) < text_left:
            text_limit, text_left, text = most, rest, meter
    of_tokens: Standing | None = None
    if text_left < _MOST:
        stands = text_limit, text_left, _BUCKETS  # what is counted now stays for 60 seconds more
        of_tokens = stands if tokens else _standing((text_limit, text_left, text), _TOKENS_BY_SECOND, now)
    return (limit, left, _BUCKETS) if left < _MOST else None, of_tokens


def _take_back(rows: Rows, until: Row | None, tokens: int, at: tuple[int, int, int]) -> None:
    """Of a request that was counted in the rows before `until`, which has no room; None: in all."""
    requests_at, tokens_at, in_flight_at = at
    for row in rows:
        if row is until:
            return
        meter = row[0]
        meter[_REQUESTS] -= 1
        meter[_TOKENS] -= tokens
        meter[requests_at] -= 1
        meter[tokens_at] -= tokens
        meter[in_flight_at] -= 1


def refusals(quotas: Quotas, rows: Rows, tokens: int, now: float) -> list[Refusal]:
    """Why one more request of `tokens` of input is not let in; empty where it would be.

    As `admit` does, it looks at each row with the request counted in those before: quotas may share a meter.
    """
    found: list[Refusal] = []
    counted: list[Row] = []
    for quota, row in zip(quotas, rows, strict=True):
        why = _refused(row[0], quota, tokens, now)
        if why is None:
            admit((row,), 0, tokens, now)
            counted.append(row)
        else:
            found.append(why)
    requests_at = _BY_SECOND + int(now) % _BUCKETS
    _take_back(counted, None, tokens, (requests_at, requests_at + _BUCKETS, _IN_FLIGHT))
    return found


def _refused(meter: Meter, quota: Quota, tokens: int, now: float) -> Refusal | None:
    limit = quota.limit
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


def leave(rows: Rows, process: int, tokens: tuple[int, int], times: tuple[float, float]) -> None:
    """The request ended. `tokens`: what was counted of its tokens when it came, which gives way to what was billed by
    now; `times`: then and now.
    """
    counted, billed = tokens
    came, second = int(times[0]), int(times[1])
    if second - came >= _BUCKETS:  # it has left the window
        counted = 0
    came_at, now_at = _TOKENS_BY_SECOND + came % _BUCKETS, _TOKENS_BY_SECOND + second % _BUCKETS
    in_flight_at = _IN_FLIGHT + process
    for meter, _, _, _ in rows:
        if meter[_NOW] != second:
            _roll(meter, second)
        meter[came_at] -= counted
        meter[now_at] += billed
        meter[_TOKENS] += billed - counted
        meter[in_flight_at] -= 1


def gone(meter: Meter, process: int) -> None:
    """A process has ended: nothing of it is in flight any more, and what it was counting just then is set right."""
    meter[_IN_FLIGHT + process] = 0
    meter[_REQUESTS] = sum(meter[_BY_SECOND:_TOKENS_BY_SECOND])
    meter[_TOKENS] = sum(meter[_TOKENS_BY_SECOND:_IN_FLIGHT])


def idle(meter: Meter, now: float) -> bool:
    """Nothing would be lost with it."""
    used = usage(meter, now)
    return not any(used)


def standings(rows: Rows, now: float) -> Standings:
    """Of several quotas, the one with the least left."""
    requests: list[_Tightest] = []
    tokens: list[_Tightest] = []
    for meter, most_requests, most_tokens, _ in rows:
        used = usage(meter, now)
        if most_requests != _UNLIMITED:
            requests.append((most_requests, most_requests - used.requests, meter))
        if most_tokens != _UNLIMITED:
            tokens.append((most_tokens, most_tokens - used.tokens, meter))
    return (
        _standing(min(requests, key=_left), _BY_SECOND, now) if requests else None,
        _standing(min(tokens, key=_left), _TOKENS_BY_SECOND, now) if tokens else None,
    )


def _left(of: _Tightest) -> int:
    return of[1]


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


def _standing(tightest: _Tightest, start: int, now: float) -> Standing:
    most, left, meter = tightest
    return (most, left, 0) if left >= most else (most, max(0, left), _reset(meter, start, now))


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
