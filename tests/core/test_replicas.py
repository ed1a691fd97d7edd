"""Which replica serves: shares, stability, bounded load, least busy."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.replicas import BALANCE, expand, favourite, load_key
from gateway.core.rules import Model, Replica, Signals, Standing, Target, Timeouts

SESSIONS = [f"session {number}" for number in range(2000)]
AT = "abcdefghij"


def replicas(*weights: float) -> tuple[Replica, ...]:
    return tuple(Replica(name, weight, f"m@{name}") for name, weight in zip(AT, weights, strict=False))


def target(*weights: float) -> Target:
    model = Model("m", "p", "M", replicas=replicas(*weights))
    return Target(model, "M", None, Timeouts(), fallback=False, why="listed 1st", replica=model.replicas[0])


def order(it: Target, signals: Signals, session: str = "", kept: tuple[str, str] | None = None) -> str:
    return "".join(each.replica.name for each in expand([it], signals, session, kept))


def busy(**loads: int) -> dict[str, int]:
    return {load_key("m", name): load for name, load in loads.items()}


def session_of(name: str, *weights: float) -> str:
    return next(session for session in SESSIONS if favourite(replicas(*weights), session).name == name)


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (5, 3, 2), (1, 0, 1)])
def test_conversations_are_shared_out_by_weight(weights: tuple[float, ...]) -> None:
    counts = Counter(favourite(replicas(*weights), session).name for session in SESSIONS)
    for name, weight in zip(AT, weights, strict=False):
        expected = len(SESSIONS) * weight / sum(weights)
        assert abs(counts[name] - expected) <= 5 * expected**0.5


def test_favourites_are_the_same_in_every_process() -> None:
    """Against a change that would move every conversation on an update."""
    assert "".join(favourite(replicas(1, 1, 1), session).name for session in SESSIONS[:16]) == "caabbcabacbcccca"


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=8), st.data())
def test_a_replica_that_goes_moves_only_its_own(weights: list[float], data: st.DataObject) -> None:
    before = replicas(*weights)
    gone = data.draw(st.sampled_from(before))
    left = [each for each in before if each is not gone]
    for session in data.draw(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=20)):
        home = favourite(before, session)
        if home is not gone:
            assert favourite(left, session) is home


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=120),
)
def test_no_replica_has_much_more_than_its_share(weights: list[int], events: list[tuple[int, bool]]) -> None:
    """Few conversations, each with many requests at a time; some end. The bound holds after every arrival."""
    it = target(*weights)
    in_flight: dict[str, int] = {}
    for number, ends in events:
        key = load_key("m", expand([it], Signals(in_flight), f"s{number}", None)[0].replica.name)
        total = sum(in_flight.values())
        in_flight[key] = in_flight.get(key, 0) + 1
        share = next(r.weight for r in it.model.replicas if load_key("m", r.name) == key) / sum(weights)
        assert in_flight[key] <= BALANCE * total * share + 1 + 1  # this very request is not in the bound
        if ends:
            in_flight[key] -= 1


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.lists(st.integers(0, 9), min_size=3, max_size=3))
def test_every_replica_is_a_target_once(session: str, loads: list[int]) -> None:
    signals = Signals(busy(**dict(zip(AT, loads, strict=False))))
    assert sorted(order(target(1, 2, 3), signals, session)) == ["a", "b", "c"]
    assert order(target(1, 2, 3), signals, session) == order(target(1, 2, 3), signals, session)


@pytest.mark.parametrize(
    ("loads", "first", "why"),
    [
        ({}, "b", "favourite of this conversation"),
        ({"b": 1}, "b", "favourite of this conversation"),
        ({"b": 2}, "c", "least busy (0 in flight), since b has 2"),  # the mean is 2/3, the bound 1.83
        ({"a": 1, "b": 2}, "b", "favourite of this conversation"),
        ({"a": 4, "b": 6, "c": 4}, "b", "favourite of this conversation"),
        ({"a": 4, "b": 8, "c": 3}, "c", "least busy (3 in flight), since b has 8"),
    ],
)
def test_a_favourite_that_is_busy_is_passed_over(loads: dict[str, int], first: str, why: str) -> None:
    session = session_of("b", 1, 1, 1)
    assert favourite(replicas(1, 1, 1)[::2], session).name == "c"  # the next in line
    found = expand([target(1, 1, 1)], Signals(busy(**loads)), session, None)
    assert (found[0].replica.name, found[0].why) == (first, f"listed 1st, replica {first}: {why}")


@pytest.mark.parametrize(
    ("weights", "loads", "expected"),
    [
        ((1, 1), {"a": 1}, "ba"),
        ((1, 1), {"b": 1}, "ab"),
        ((3, 1), {"a": 2, "b": 1}, "ab"),
        ((3, 1), {"a": 4, "b": 1}, "ba"),
        ((1, 0), {"a": 9}, "ab"),  # weight 0: only when the others fail
        ((1, 1, 1), {"a": 3, "b": 1, "c": 2}, "bca"),
    ],
)
def test_without_a_session_the_least_busy_for_its_weight(
    weights: tuple[float, ...], loads: dict[str, int], expected: str
) -> None:
    assert order(target(*weights), Signals(busy(**loads), roll=0.9)) == expected


def test_ties_are_drawn_by_weight() -> None:
    dice = random.Random(4)  # noqa: S311 - nothing secret
    rolls = [dice.random() for _ in range(4000)]
    counts = Counter(order(target(3, 1), Signals(roll=roll))[0] for roll in rolls)
    assert counts["a"] == pytest.approx(3000, abs=130)
    upper = Counter(order(target(1, 1), Signals(roll=roll))[0] for roll in rolls if roll < 0.5)
    assert upper["a"] == pytest.approx(upper.total() / 2, abs=100)  # a roll that `weighted` has used is no bias


def test_what_was_kept_goes_before_the_favourite() -> None:
    session = session_of("a", 1, 1)
    assert order(target(1, 1), Signals(), session, ("m", "b")) == "ba"
    assert expand([target(1, 1)], Signals(), session, ("m", "b"))[0].why.endswith("b: kept for this conversation")
    assert order(target(1, 1), Signals(), session, ("other", "b")) == "ab"
    assert order(target(1, 1), Signals(), session, ("m", "gone")) == "ab"
    assert order(target(1, 1), Signals(busy(b=9)), session, ("m", "b")) == "ab"


@pytest.mark.parametrize("session", ["", session_of("a", 1, 1, 1)])
def test_what_is_blocked_comes_last(session: str) -> None:
    standing = {("m", "a"): Standing("breaker open")}
    assert order(target(1, 1, 1), Signals(standing=standing), session)[-1] == "a"
    kept = order(target(1, 1, 1), Signals(standing=standing), session, ("m", "a"))
    assert kept[-1] == "a"
    everything = {("m", name): Standing("breaker open") for name in "abc"}
    assert sorted(order(target(1, 1, 1), Signals(standing=everything), session)) == ["a", "b", "c"]


def test_conversations_come_back_little_by_little_after_a_failure() -> None:
    def home(share: float) -> set[str]:
        signals = Signals(standing={("m", "a"): Standing(share=share)})
        return {session for session in SESSIONS if order(target(1, 1), signals, session)[0] == "a"}

    shares = [home(share) for share in (0.1, 0.5, 1.0)]
    assert shares[0] < shares[1] < shares[2]
    assert len(shares[0]) == pytest.approx(len(SESSIONS) * 0.1 / 1.1, abs=70)


def test_targets_without_replicas_stay_as_they_are() -> None:
    plain = target(1)
    assert expand([plain, target(1, 1), plain], Signals(), "s", None)[0] is plain
