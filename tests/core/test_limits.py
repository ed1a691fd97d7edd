"""Limits on traffic: the minute slides, and what a refusal promises is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import limits
from gateway.core.call import Endpoint, Principal, parse
from gateway.core.limits import CLOCK, Limit, LimitIndex, Meter, Quota, Refusal, row_of, size_of
from gateway.core.rules import Match
from gateway.core.tasks import Task
from gateway.wire import CODEC

NOW = 5_000_000.25  # seconds


def meter() -> Meter:
    return [0] * size_of(2)


def quota(**most: int) -> Quota:
    return Quota(Limit("limits[0]", **most), "all")  # type: ignore[arg-type]  # each test names real fields


def let_in(on: Meter, about: Quota, tokens: int, now: float, process: int = 0) -> bool:
    rows = [row_of(about, on)]
    why = limits.refusals((about,), rows, tokens, now)
    before, standings = list(on), limits.admit(rows, process, tokens, now)
    if standings is None:
        assert why
        assert list(on) == before
        return False
    assert not why
    assert standings == limits.standings(rows, now)
    return True


def left(on: Meter, about: Quota, tokens: tuple[int, int], times: tuple[float, float], process: int = 0) -> None:
    limits.leave([row_of(about, on)], process, tokens, times)


def refused(on: Meter, about: Quota, tokens: int, now: float) -> Refusal | None:
    found = limits.refusals((about,), [row_of(about, on)], tokens, now)
    return found[0] if found else None


STEPS = st.lists(st.tuples(st.floats(0, 25), st.integers(0, 40)), max_size=80)


@given(st.integers(1, 5), STEPS)
def test_no_sixty_seconds_hold_more_than_the_limit(most: int, steps: Sequence[tuple[float, int]]) -> None:
    on, about, now = meter(), quota(requests_per_minute=most), NOW
    times: list[float] = []
    for seconds, _ in steps:
        now += seconds
        if let_in(on, about, 0, now):
            times.append(now)
    for first in times:
        assert sum(first <= each < first + 60 for each in times) <= most


@given(st.integers(40, 100), STEPS)
def test_nor_more_tokens(most: int, steps: Sequence[tuple[float, int]]) -> None:
    on, about, now = meter(), quota(tokens_per_minute=most), NOW
    times: list[tuple[float, int]] = []
    for seconds, tokens in steps:
        now += seconds
        if let_in(on, about, tokens, now):
            times.append((now, tokens))
    for first, _ in times:
        assert sum(tokens for each, tokens in times if first <= each < first + 60) <= most


@given(st.integers(1, 4), STEPS, st.integers(0, 40))
def test_a_refusal_says_how_long_to_the_second(most: int, steps: Sequence[tuple[float, int]], tokens: int) -> None:
    on, now = meter(), NOW
    about = quota(requests_per_minute=most, tokens_per_minute=50)
    for seconds, each in steps:
        now += seconds / 4
        let_in(on, about, each, now)
    refusal = refused(on, about, tokens, now)
    if refusal is None:
        return
    later = list(on)
    earlier = refused(later, about, tokens, now + refusal.seconds - 1)
    assert refusal.seconds == 1 or earlier is not None, "it could have said less"
    if refusal.why == f"{most} requests a minute":  # the other limit may have a say then
        about = quota(requests_per_minute=most)
    assert refused(list(on), about, tokens, now + refusal.seconds) is None


@given(STEPS, st.lists(st.tuples(st.integers(0, 200), st.floats(0, 100)), min_size=80, max_size=80))
def test_what_was_billed_takes_the_place_of_the_estimate(
    steps: Sequence[tuple[float, int]], ends: Sequence[tuple[int, float]]
) -> None:
    """However long a call takes: a minute after the last, nothing is left, and nothing is ever negative."""
    on, about, now = meter(), quota(), NOW
    under_way: list[tuple[float, int, int, float]] = []  # ends at, counted, billed, came
    for (seconds, tokens), (billed, takes) in zip(steps, ends, strict=False):
        now += seconds
        for each in sorted(each for each in under_way if each[0] <= now):
            left(on, about, (each[1], each[2]), (each[3], each[0]), 1)
            under_way.remove(each)
        assert let_in(on, about, tokens, now, 1)
        under_way.append((now + takes, tokens, billed, now))
        assert all(number >= 0 for number in on)
    for each in sorted(under_way):
        now = max(now, each[0])
        left(on, about, (each[1], each[2]), (each[3], now), 1)
    recent = sum(each[2] for each in under_way if each[0] > now - 1)
    assert limits.usage(on, now).tokens >= recent
    assert limits.idle(on, now + 61)


def test_output_beyond_the_limit_is_worked_off() -> None:
    on, about = meter(), quota(tokens_per_minute=100)
    assert let_in(on, about, 10, NOW)
    left(on, about, (10, 250), (NOW, NOW + 2))
    refusal = refused(on, about, 1, NOW + 10)
    assert refusal is not None
    assert refusal.seconds == 53
    assert refused(on, about, 1, NOW + 63) is None


def test_what_never_fits_says_so() -> None:
    refusal = refused(meter(), quota(tokens_per_minute=100), 101, NOW)
    assert refusal is not None
    assert (refusal.why, refusal.seconds) == ("100 tokens a minute, and this request alone has about 101", 0)


def test_in_flight() -> None:
    on, about = meter(), quota(max_in_flight=2)
    assert let_in(on, about, 0, NOW)
    assert let_in(on, about, 0, NOW, 1)
    refusal = refused(on, about, 0, NOW + 100)
    assert refusal is not None
    assert (refusal.why, refusal.seconds) == ("2 requests in flight", 1)
    limits.gone(on, 1)
    assert refused(on, about, 0, NOW + 100) is None
    left(on, about, (0, 0), (NOW, NOW + 100))
    assert limits.idle(on, NOW + 100)


def test_how_it_stands() -> None:
    on, about = meter(), quota(requests_per_minute=3, tokens_per_minute=1000)
    rows = [row_of(about, on)]
    assert limits.standings(rows, NOW) == ((3, 3, 0), (1000, 1000, 0))
    assert let_in(on, about, 400, NOW)
    assert let_in(on, about, 100, NOW + 20)
    stands = limits.standings(rows, NOW + 30)
    assert stands == ((3, 1, 51), (1000, 500, 51))
    tighter, one = meter(), quota(requests_per_minute=1)
    assert let_in(tighter, one, 0, NOW + 30)
    both = limits.standings([*rows, row_of(one, tighter)], NOW + 30)
    assert both == ((1, 0, 61), stands[1])


def test_of_several_quotas_the_least_is_told_to_who_is_let_in() -> None:
    wide, tight = quota(requests_per_minute=9, tokens_per_minute=50), quota(requests_per_minute=3)
    rows = [row_of(wide, meter()), row_of(tight, meter()), row_of(quota(tokens_per_minute=99), meter())]
    assert limits.admit(rows, 0, 20, NOW) == ((3, 2, 61), (50, 30, 61))
    told = limits.admit(rows, 0, 0, NOW + 10)
    assert told == ((3, 1, 61), (50, 30, 51))
    assert limits.admit(rows, 0, 0, NOW + 70) == ((3, 1, 61), (50, 50, 0))


@given(st.permutations([(1, None), (None, 30), (4, 90), (None, None)]), STEPS)
def test_a_request_counts_in_all_meters_or_in_none(
    mosts: Sequence[tuple[int | None, int | None]], steps: Sequence[tuple[float, int]]
) -> None:
    quotas = tuple(Quota(Limit("l", requests_per_minute=each[0], tokens_per_minute=each[1]), "all") for each in mosts)
    rows = [row_of(each, meter()) for each in quotas]
    now = NOW
    for seconds, tokens in steps:
        now += seconds
        why = limits.refusals(quotas, rows, tokens, now)  # which brings all up to now
        before = [list(each) for each, *_ in rows]
        assert (limits.admit(rows, 1, tokens, now) is None) == bool(why)
        after = [list(each) for each, *_ in rows]
        assert (after == before) if why else all(one != other for one, other in zip(before, after, strict=True))


def test_quotas_that_share_a_meter_are_refused_with_a_reason() -> None:
    """A table without room has them share one, where the request counts once for each."""
    on, about = meter(), quota(requests_per_minute=1)
    rows = [row_of(about, on), row_of(about, on)]
    assert limits.admit(rows, 1, 7, NOW) is None
    assert [each.why for each in limits.refusals((about, about), rows, 7, NOW)] == ["1 requests a minute"]
    assert limits.idle(on, NOW), "it was counted in none"


class Killed(BaseException):
    pass


class Deadly(list[int]):
    """A meter at which a process dies, after so many writes."""

    writes = 1_000

    def __setitem__(self, *given: Any) -> None:
        if not self.writes:
            raise Killed
        self.writes -= 1
        super().__setitem__(*given)


@pytest.mark.parametrize("writes", range(12))
def test_what_a_process_was_counting_when_it_was_killed_is_set_right(writes: int) -> None:
    """Otherwise a limit would be tighter by one for good, and one of one request a minute would let in nobody."""
    for most in (1_000, 5):  # tokens of another limit: it is let in, or taken back
        on = Deadly(meter())
        assert limits.admit([row_of(quota(), on)], 0, 20, NOW) is not None
        on.writes = writes
        with contextlib.suppress(Killed):
            limits.admit([row_of(quota(), on), row_of(quota(tokens_per_minute=most), meter())], 1, 10, NOW + 1)
            limits.leave([row_of(quota(), on)], 1, (10, 30), (NOW + 1, NOW + 2))
        on.writes = 1_000
        limits.gone(on, 1)
        assert limits.usage(on, NOW + 2).in_flight == 1
        limits.leave([row_of(quota(), on)], 0, (20, 20), (NOW, NOW + 2))
        assert limits.idle(on, NOW + 64), "a minute later nothing is left of it"


@given(STEPS, st.integers(0, 70))
def test_a_reset_is_true_to_the_second(steps: Sequence[tuple[float, int]], later: int) -> None:
    """At that moment nothing is used any more, and a second before something is."""
    on, about, now = meter(), quota(requests_per_minute=1000, tokens_per_minute=100_000), NOW
    for seconds, tokens in steps:
        now += seconds
        assert let_in(on, about, tokens, now)
    now += later
    for at, standing in enumerate(limits.standings([row_of(about, list(on))], now)):
        assert standing is not None
        limit, left, reset = standing
        assert (reset == 0) == (left == limit)
        if reset:
            after = limits.standings([row_of(about, list(on))], now + reset)[at]
            before = limits.standings([row_of(about, list(on))], now + reset - 1)[at]
            assert after == (limit, limit, 0)
            assert before is not None
            assert before[1] < limit


@pytest.mark.parametrize(("seconds", "told"), [(0, b"0s"), (1, b"1s"), (59, b"59s"), (60, b"1m0s"), (61, b"1m1s")])
def test_clock(seconds: int, told: bytes) -> None:
    assert CLOCK[seconds] == told


def test_which_ones_a_request_touches() -> None:
    index = LimitIndex(
        [
            Limit("limits[0]", per="key", requests_per_minute=1),
            Limit("limits[1]", Match(team=("a",)), "user", requests_per_minute=1),
            Limit("limits[2]", Match(team=("b",)), requests_per_minute=1),
            Limit("limits[3]", Match(model=("gpt-*",)), "task", requests_per_minute=1),
        ]
    )
    call = parse(Endpoint.CHAT, [], b'{"model": "gpt-5", "user": "ada", "messages": [{"role": "user"}]}', CODEC)
    own = Limit("key ci", requests_per_minute=1)
    found = index.touched(call, Task("chat", 1.0, ""), Principal("ci", "a", limits=(own,)))
    assert [each.told for each in found] == [
        "limits[0] (key ci)",
        "limits[3] (task chat)",
        "limits[1] (user ada)",
        "key ci",
    ]
    found = index.touched(call, Task("chat", 1.0, ""), Principal())
    assert [each.told for each in found] == ["limits[0] (key none)", "limits[3] (task chat)"]


def test_requests_that_touch_the_same_bring_the_very_same_quotas() -> None:
    """By which their meters are remembered; also where their content decides, and a key's own limits may change."""
    index = LimitIndex([Limit("limits[0]", Match(model=("gpt-*",)), "user", requests_per_minute=1)])
    body = b'{"model": "gpt-5", "user": "%s", "messages": [{"role": "user"}]}'
    calls = [parse(Endpoint.CHAT, [], body % user, CODEC) for user in (b"ada", b"ada", b"bob")]
    one, other = (Principal("ci", limits=(Limit("key:ci", requests_per_minute=most),)) for most in (1, 2))
    task = Task("chat", 1.0, "")
    found = [index.touched(each, task, one) for each in calls]
    assert found[0] is found[1]
    assert found[0] != found[2]
    changed = index.touched(calls[0], task, other)
    assert [each.limit for each in changed] == [found[0][0].limit, *other.limits]
    assert index.touched(calls[1], task, other) is changed
