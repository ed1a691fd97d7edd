"""When a breaker opens, how it comes back, and what says nothing about a replica."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import breaker
from gateway.core.breaker import (
    FAILURES,
    FINE,
    IN_A_ROW,
    LONGEST_PAUSE,
    PAUSE,
    RAMP,
    STEADY,
    SUCCESSES,
    TRIAL,
    WINDOW,
    Breaker,
    Ended,
    Phase,
)
from gateway.core.failures import Kind

CLOSED, HALF_OPEN, OPEN = Phase.CLOSED, Phase.HALF_OPEN, Phase.OPEN
NEUTRAL = ("cancelled", "rate_limited")
NOW = 1000.0


def after(*results: str, state: Breaker = FINE, gap: float = 0.0, start: float = NOW) -> Breaker:
    """The results one after another, `gap` seconds apart."""
    for number, result in enumerate(results):
        state = breaker.record(state, Ended(result), start + number * gap)
    return state


def opened(at: float = NOW) -> Breaker:
    return after(*["connect"] * IN_A_ROW, start=at)


def half_open(at: float = NOW) -> Breaker:
    state = opened(at)
    return breaker.tick(state, state.until)


def on_trial() -> tuple[Breaker, float]:
    state = half_open()
    taken, reason = breaker.admit(state, state.since)
    assert reason == ""
    return taken, state.since


def test_every_kind_of_failure_has_its_place() -> None:
    assert set(Kind) == FAILURES | (SUCCESSES & set(Kind)) | {Kind.RATE_LIMITED, Kind.EMPTY}
    assert not FAILURES & SUCCESSES


OPENS = [
    ("five in a row", ["connect"] * 5, "5 failures in a row, last connect"),
    (
        "five of any kind",
        ["connect", "timeout", "server_error", "malformed", "stream_cut"],
        "5 failures in a row, last stream_cut",
    ),
    ("our account", ["account"] * 5, "5 failures in a row, last account"),
    (
        "what says nothing lies between",
        ["timeout", "cancelled", "rate_limited", "empty"] * 4 + ["stream_cut"],
        "last stream_cut",
    ),
    ("half of twenty", ["ok", "server_error"] * 10, "10 failures in 20 results, last server_error"),
]
STAYS = [
    ("four in a row", ["connect"] * 4),
    ("a success between", [*["connect"] * 4, "ok"] * 3),
    ("a refusal of the request between", [*["connect"] * 4, "relayed"] * 3),
    ("a long prompt between", [*["connect"] * 4, "context_length"] * 3),
    ("a client that hangs up", ["cancelled"] * 100),
    ("rate limits", ["rate_limited"] * 100),
    ("empty answers", ["empty"] * 100),
    ("empty answers among failures", [*["connect"] * 4, *["empty"] * 20, "ok"] * 3),
    ("half of nineteen", ["server_error", "ok"] * 9 + ["server_error"]),
    ("a third of many", ["ok", "ok", "server_error"] * 100),
    ("a success opens nothing", ["ok", "server_error"] * 9 + ["ok", "ok"]),
]


@pytest.mark.parametrize(("results", "why"), [row[1:] for row in OPENS], ids=[row[0] for row in OPENS])
def test_opens(results: list[str], why: str) -> None:
    state = after(*results)
    assert state.phase is OPEN
    assert why in state.why
    standing = breaker.standing(state, NOW)
    assert standing is not None
    assert standing.blocked == f"breaker open: {state.why}"
    assert standing.retry_after == 5.0
    assert breaker.admit(state, NOW) == (state, standing.blocked)


@pytest.mark.parametrize("results", [row[1] for row in STAYS], ids=[row[0] for row in STAYS])
def test_stays_closed(results: list[str]) -> None:
    assert after(*results).phase is CLOSED


def test_failures_in_a_row_have_no_limit_of_time_but_the_rate_has() -> None:
    assert after(*["connect"] * 5, gap=3600).phase is OPEN
    slow = ["ok", "server_error"] * 40
    assert after(*slow, gap=1.0).phase is OPEN
    assert after(*slow, gap=WINDOW / 19 + 0.1).phase is CLOSED


def test_the_window_is_bounded() -> None:
    state = FINE
    for second in range(1000):
        state = breaker.record(state, Ended("ok"), NOW + second, count=1_000_000)
    assert len(state.window) == WINDOW


def test_the_pause_doubles_up_to_a_minute_and_starts_again_after_a_steady_time() -> None:
    state, now, pauses = opened(), NOW, []
    for _ in range(6):
        pauses.append(state.until - now)
        assert breaker.tick(state, math.nextafter(state.until, 0)).phase is OPEN
        now = state.until
        state, reason = breaker.admit(state, now)
        assert (state.phase, reason) == (HALF_OPEN, "")
        state = breaker.record(state, Ended("timeout"), now)
        assert (state.phase, state.why) == (OPEN, "its trial failed: timeout")
    assert pauses == [5, 10, 20, 40, LONGEST_PAUSE, LONGEST_PAUSE]
    now = state.until
    closed = breaker.record(breaker.admit(state, now)[0], Ended("ok"), now)
    soon = after(*["connect"] * 5, state=closed, start=now + STEADY - 1)
    late = after(*["connect"] * 5, state=closed, start=now + STEADY)
    assert soon.until - (now + STEADY - 1) == LONGEST_PAUSE
    assert late.until - (now + STEADY) == 5


def test_half_open_is_one_request_at_a_time() -> None:
    state, now = on_trial()
    again, reason = breaker.admit(state, now + 1)
    assert again == state
    assert "half-open" in reason
    assert breaker.standing(state, now + 1) == (reason, 1.0, 1.0)
    assert breaker.standing(half_open(), NOW + 5) == ("", 1.0, 0.0)


VERDICTS = [
    *((result, CLOSED) for result in sorted(SUCCESSES)),
    *((result, OPEN) for result in sorted(FAILURES)),
    *((result, HALF_OPEN) for result in NEUTRAL),
]


@pytest.mark.parametrize(("result", "phase"), VERDICTS)
def test_the_trial_decides(result: str, phase: Phase) -> None:
    state, now = on_trial()
    state = breaker.record(state, Ended(result), now + 1)
    assert state.phase is phase
    if phase is HALF_OPEN:
        assert breaker.admit(state, now + 1)[1] == ""


def test_a_trial_that_takes_long_keeps_others_out_for_a_minute_only() -> None:
    state, now = on_trial()
    assert breaker.admit(state, now + TRIAL - 1)[1] != ""
    assert breaker.admit(state, now + TRIAL)[1] == ""
    assert breaker.record(state, Ended("timeout"), now + TRIAL + 1).phase is OPEN


def test_what_began_before_it_opened_is_no_news() -> None:
    state = opened()
    assert breaker.record(state, Ended("ok"), NOW + 1) == state
    assert breaker.record(state, Ended("timeout"), NOW + 1) == state
    assert breaker.record(half_open(), Ended("timeout"), NOW + 6).phase is HALF_OPEN


def test_slow_start() -> None:
    state, now = on_trial()
    state = breaker.record(state, Ended("ok"), now)
    shares = [breaker.share(state, now + seconds) for seconds in (0, 5, RAMP, 100)]
    assert shares == pytest.approx([0.1, 0.55, 1.0, 1.0])
    assert breaker.standing(state, now) == ("", 0.1, 0.0)
    assert breaker.standing(state, now + RAMP) is None
    assert breaker.share(FINE, 0.0) == 1.0


@pytest.mark.parametrize(("asked", "rest"), [(None, 0.0), (30.0, 30.0), (3600.0, 60.0), (0.0, 0.0)])
def test_a_429_is_a_rest_and_no_mark(asked: float | None, rest: float) -> None:
    before = after("connect", "connect")
    state = breaker.record(before, Ended("rate_limited", asked), NOW)
    assert state._replace(rest=0.0, rests_until=-math.inf) == before
    standing = breaker.standing(state, NOW)
    assert (standing.retry_after if standing is not None else 0.0) == rest
    assert breaker.standing(state, NOW + rest) is None
    assert breaker.admit(state, NOW) == (state, "")  # the attempt loop knows by itself how long to wait


def test_a_shorter_rest_does_not_end_a_longer_one() -> None:
    state = breaker.record(FINE, Ended("rate_limited", 30.0), NOW)
    assert breaker.record(state, Ended("rate_limited", 1.0), NOW + 1) == state


def test_probes() -> None:
    assert breaker.probed(opened(), NOW + 1, alive=True).phase is HALF_OPEN
    dead = opened()._replace(answers=True)
    for second in range(1, 100):  # nobody pays for what is known to be dead
        dead = breaker.tick(breaker.probed(dead, NOW + second, alive=False), NOW + second + 2)
        assert dead.phase is OPEN
    assert breaker.tick(dead, NOW + 200).phase is HALF_OPEN  # no word of any probe
    trial, now = on_trial()
    assert breaker.probed(trial, now, alive=False) == trial
    ready = half_open()._replace(answers=True)
    assert breaker.probed(ready, NOW + 5, alive=False).until == NOW + 10  # no doubling: it cost nobody anything
    assert breaker.probed(ready, NOW + 5, alive=True) == ready


def test_silence_of_a_server_that_never_answered_a_probe_says_nothing() -> None:
    """It may know nothing but POST: it is judged by live requests alone, and comes back by them."""
    for state in (FINE, opened(), half_open()):
        assert breaker.probed(state, NOW + 1, alive=False) == state
    state = opened()
    for second in range(1, 6):
        state = breaker.probed(state, NOW + second, alive=False)
    assert breaker.tick(state, NOW + PAUSE + 1).phase is HALF_OPEN


@pytest.mark.parametrize("result", ["cancelled", "connect", "rate_limited"])
def test_what_began_before_a_trial_is_not_its_end(result: str) -> None:
    """Only one is on trial: an old stream whose client hangs up lets nobody in, and its failure condemns nobody."""
    trial, now = on_trial()
    old = breaker.record(trial, Ended(result, began=NOW - 60), now + 1)
    assert breaker.admit(old, now + 2)[1] == "breaker half-open: its trial is under way"
    assert breaker.record(trial, Ended("connect", began=now), now + 1).phase is OPEN
    assert breaker.record(trial, Ended("ok", began=NOW - 60), now + 1).phase is CLOSED


def test_probes_of_what_nobody_uses() -> None:
    known = breaker.probed(FINE, NOW, alive=True)
    missed = breaker.probed(known, NOW, alive=False)
    assert (missed.phase, missed.misses) == (CLOSED, 1)
    assert breaker.probed(missed, NOW, alive=True) == known
    assert breaker.record(missed, Ended("ok"), NOW).misses == 0
    state = breaker.probed(missed, NOW, alive=False)
    assert (state.phase, state.why) == (OPEN, "2 probes without an answer")


def test_probes_of_a_server_that_answers_them_and_nothing_else_grow_rare() -> None:
    state, gaps = opened(), []
    for _ in range(5):
        gaps.append(breaker.probe_gap(state))
        state = breaker.probed(state, NOW, alive=True)
        state = breaker.record(breaker.admit(state, NOW)[0], Ended("malformed"), NOW)
    assert gaps == [1, 2, 4, 8, 12]


RESULTS = st.sampled_from([*sorted(FAILURES), *sorted(SUCCESSES), *NEUTRAL])
STEPS = st.lists(st.tuples(st.sampled_from(["enter", "end", "probe", "dead"]), RESULTS, st.floats(0, 9)), max_size=60)


@given(STEPS)
def test_never_two_on_trial_and_it_always_recovers(steps: list[tuple[str, str, float]]) -> None:
    state, now, trial_since = FINE, NOW, math.nan
    states = [state]
    for what, result, seconds in steps:
        now += seconds
        if what == "enter":
            state, reason = breaker.admit(state, now)
            if state.phase is HALF_OPEN and not reason:
                assert not now - trial_since < TRIAL
                trial_since = now
            assert (state.phase is OPEN) <= bool(reason)
        elif what == "end":
            if state.phase is not HALF_OPEN or not math.isnan(trial_since):
                state, trial_since = breaker.record(state, Ended(result), now), math.nan
        else:
            state = breaker.probed(state, now, alive=what == "probe")
        states.append(state)
        if state.phase is not HALF_OPEN:
            trial_since = math.nan
        assert len(state.window) <= WINDOW
    for before, then in pairwise(states):
        assert then.openings <= before.openings + 1
    now += 2 * LONGEST_PAUSE  # what is left of any pause or trial
    state, reason = breaker.admit(state, now)
    assert reason == ""
    state = breaker.record(state, Ended("ok"), now)
    assert state.phase is CLOSED
    assert breaker.standing(state, now + LONGEST_PAUSE) is None


@given(st.lists(RESULTS, max_size=40), st.sampled_from(NEUTRAL))
def test_neutral_results_change_nothing(results: list[str], neutral: str) -> None:
    with_neutral = [each for result in results for each in (result, neutral)]
    plain, mixed = after(*results), after(*with_neutral)
    if "rate_limited" in with_neutral:
        plain, mixed = (each._replace(rest=0.0, rests_until=0.0) for each in (plain, mixed))
    assert plain == mixed
