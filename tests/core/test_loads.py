"""Requests of a server's other clients, and orders that count them."""

from __future__ import annotations

from gateway.core.loads import Load, elsewhere, grown
from gateway.core.replicas import expand
from gateway.core.rules import Candidate, Model, Replica, Signals, Target, Timeouts
from gateway.core.strategies import least_busy
from tests.core.test_call import call

TWO = (Replica("x", 1.0, "m@x"), Replica("y", 1.0, "m@y"))


def target(name: str, replicas: tuple[Replica, ...] = (Replica(),)) -> Target:
    model = Model(name, "p", name.upper(), "self", replicas=replicas)
    return Target(model, model.upstream_name, None, Timeouts(), False, "listed 1st")


def test_ours_are_taken_away_and_what_has_not_arrived_is_no_credit() -> None:
    assert elsewhere(Load("m", "x", False, 5, 2), ours=3) == 4
    assert elsewhere(Load("m", "x", False, 1, 0), ours=3) == 0
    assert elsewhere(Load("m", "x", False, None, None), ours=0) == 0


def test_a_counter_that_fell_began_anew() -> None:
    assert [grown(10, 25), grown(10, 10), grown(10, 4)] == [15, 0, 4]


def test_least_busy_counts_what_comes_from_elsewhere() -> None:
    candidates = [(target(name), Candidate(name)) for name in ("a", "b", "c")]
    signals = Signals({"a": 1, "b": 3}, elsewhere={"a": 4, "c": 4})
    found = least_busy(candidates, call(), signals)
    assert [(each.model.name, each.why) for each in found] == [
        ("b", "3 in flight"),
        ("c", "4 in flight, 4 of them from elsewhere"),
        ("a", "5 in flight, 4 of them from elsewhere"),
    ]


def test_the_replica_that_others_use_less_goes_first() -> None:
    def first(**loads: int) -> str:
        signals = Signals({"m@x": 1, "m@y": 2}, elsewhere={f"m@{name}": count for name, count in loads.items()})
        return expand([target("m", TWO)], signals, "", None)[0].replica.name

    assert first() == "x"
    assert first(x=2) == "y"
    assert first(x=2, y=2) == "x"


def test_a_favourite_that_others_keep_busy_is_passed_over() -> None:
    it = target("m", TWO)
    home = expand([it], Signals(), "session", None)[0].replica.name
    crowded = Signals(elsewhere={f"m@{home}": 20})
    (away, *_) = expand([it], crowded, "session", None)
    assert away.replica.name != home
    assert away.why.endswith(f"since {home} has 20")
