"""Limits on traffic: the minute slides, and what a refusal promises is kept."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import limits
from gateway.core.call import Endpoint, Principal, parse
from gateway.core.limits import CLOCK, Limit, Meter, Quota, Standing, size_of, touched
from gateway.core.rules import Match
from gateway.core.scopes import GuardIndex
from gateway.core.tasks import Task
from gateway.wire import CODEC

NOW = 5_000_000.25  # seconds


def meter() -> Meter:
    return [0] * size_of(2)


def quota(**most: int) -> Quota:
    return Quota(Limit("limits[0]", **most), "all")  # type: ignore[arg-type]  # each test names real fields


def let_in(on: Meter, about: Quota, tokens: int, now: float) -> bool:
    if limits.refused(on, about, tokens, now) is not None:
        return False
    limits.enter([on], 0, tokens, now)
    return True


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
    refusal = limits.refused(on, about, tokens, now)
    if refusal is None:
        return
    later = list(on)
    earlier = limits.refused(later, about, tokens, now + refusal.seconds - 1)
    assert refusal.seconds == 1 or earlier is not None, "it could have said less"
    if refusal.why == f"{most} requests a minute":  # the other limit may have a say then
        about = quota(requests_per_minute=most)
    assert limits.refused(list(on), about, tokens, now + refusal.seconds) is None


@given(STEPS, st.lists(st.tuples(st.integers(0, 200), st.floats(0, 100)), min_size=80, max_size=80))
def test_what_was_billed_takes_the_place_of_the_estimate(
    steps: Sequence[tuple[float, int]], ends: Sequence[tuple[int, float]]
) -> None:
    """However long a call takes: a minute after the last, nothing is left, and nothing is ever negative."""
    on, now = meter(), NOW
    under_way: list[tuple[float, int, int, float]] = []  # ends at, counted, billed, came
    for (seconds, tokens), (billed, takes) in zip(steps, ends, strict=False):
        now += seconds
        for each in sorted(each for each in under_way if each[0] <= now):
            limits.leave([on], 1, each[1], each[2], (each[3], each[0]))
            under_way.remove(each)
        limits.enter([on], 1, tokens, now)
        under_way.append((now + takes, tokens, billed, now))
        assert all(number >= 0 for number in on)
    for each in sorted(under_way):
        now = max(now, each[0])
        limits.leave([on], 1, each[1], each[2], (each[3], now))
    recent = sum(each[2] for each in under_way if each[0] > now - 1)
    assert limits.usage(on, now).tokens >= recent
    assert limits.idle(on, now + 61)


def test_output_beyond_the_limit_is_worked_off() -> None:
    on, about = meter(), quota(tokens_per_minute=100)
    assert let_in(on, about, 10, NOW)
    limits.leave([on], 0, 10, 250, (NOW, NOW + 2))
    refusal = limits.refused(on, about, 1, NOW + 10)
    assert refusal is not None
    assert refusal.seconds == 53
    assert limits.refused(on, about, 1, NOW + 63) is None


def test_what_never_fits_says_so() -> None:
    refusal = limits.refused(meter(), quota(tokens_per_minute=100), 101, NOW)
    assert refusal is not None
    assert (refusal.why, refusal.seconds) == ("100 tokens a minute, and this request alone has about 101", 0)


def test_in_flight() -> None:
    on, about = meter(), quota(max_in_flight=2)
    limits.enter([on], 0, 0, NOW)
    limits.enter([on], 1, 0, NOW)
    refusal = limits.refused(on, about, 0, NOW + 100)
    assert refusal is not None
    assert (refusal.why, refusal.seconds) == ("2 requests in flight", 1)
    limits.gone(on, 1)
    assert limits.refused(on, about, 0, NOW + 100) is None
    limits.leave([on], 0, 0, 0, (NOW, NOW + 100))
    assert limits.idle(on, NOW + 100)


def test_how_it_stands() -> None:
    on, about = meter(), quota(requests_per_minute=3, tokens_per_minute=1000)
    unused = [Standing("requests", 3, 3, 0), Standing("tokens", 1000, 1000, 0)]
    assert limits.standings([about], [on], NOW) == unused
    limits.enter([on], 0, 400, NOW)
    limits.enter([on], 0, 100, NOW + 20)
    stands = limits.standings([about], [on], NOW + 30)
    assert stands == [Standing("requests", 3, 1, 51), Standing("tokens", 1000, 500, 51)]
    tighter = meter()
    limits.enter([tighter], 0, 0, NOW + 30)
    both = limits.standings([about, quota(requests_per_minute=1)], [on, tighter], NOW + 30)
    assert both == [Standing("requests", 1, 0, 61), stands[1]]


@given(STEPS, st.integers(0, 70))
def test_a_reset_is_true_to_the_second(steps: Sequence[tuple[float, int]], later: int) -> None:
    """At that moment nothing is used any more, and a second before something is."""
    on, about, now = meter(), quota(requests_per_minute=1000, tokens_per_minute=100_000), NOW
    for seconds, tokens in steps:
        now += seconds
        limits.enter([on], 0, tokens, now)
    now += later
    for at, standing in enumerate(limits.standings([about], [list(on)], now)):
        assert (standing.reset == 0) == (standing.remaining == standing.limit)
        if standing.reset:
            after = limits.standings([about], [list(on)], now + standing.reset)[at]
            before = limits.standings([about], [list(on)], now + standing.reset - 1)[at]
            assert (after.reset, after.remaining) == (0, after.limit)
            assert before.remaining < before.limit


@pytest.mark.parametrize(("seconds", "told"), [(0, b"0s"), (1, b"1s"), (59, b"59s"), (60, b"1m0s"), (61, b"1m1s")])
def test_clock(seconds: int, told: bytes) -> None:
    assert CLOCK[seconds] == told


def test_which_ones_a_request_touches() -> None:
    index = GuardIndex(
        [
            Limit("limits[0]", per="key", requests_per_minute=1),
            Limit("limits[1]", Match(team=("a",)), "user", requests_per_minute=1),
            Limit("limits[2]", Match(team=("b",)), requests_per_minute=1),
            Limit("limits[3]", Match(model=("gpt-*",)), "task", requests_per_minute=1),
        ]
    )
    call = parse(Endpoint.CHAT, [], b'{"model": "gpt-5", "user": "ada", "messages": [{"role": "user"}]}', CODEC)
    own = Limit("key ci", requests_per_minute=1)
    found = touched(index, call, Task("chat", 1.0, ""), Principal("ci", "a", limits=(own,)))
    assert [each.told for each in found] == [
        "limits[0] (key ci)",
        "limits[3] (task chat)",
        "limits[1] (user ada)",
        "key ci",
    ]
    found = touched(index, call, Task("chat", 1.0, ""), Principal())
    assert [each.told for each in found] == ["limits[0] (key none)", "limits[3] (task chat)"]
