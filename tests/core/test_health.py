"""What a plan makes of the health of its targets, and what an explanation says of it."""

from __future__ import annotations

import pytest

from gateway.core.call import Call, Endpoint, Principal, parse
from gateway.core.explain import explain
from gateway.core.routing import Candidate, Match, Model, Plan, Route, Rules, Signals, plan
from gateway.core.rules import Replica, Standing
from gateway.core.tasks import Task
from gateway.errors import RouteExhausted
from gateway.wire import CODEC

DOWN = Standing(blocked="breaker open: because", retry_after=4.2)
RESTS = Standing(blocked="rests for 30 s", retry_after=30.0)
SLOW = Standing(share=0.3)
TRIAL = Standing()
NAMES = ("a", "b", "c", "d")
MODELS = {name: Model(name, "up", name) for name in NAMES}
MODELS["r"] = Model("r", "up", "r", replicas=(Replica("r1"), Replica("r2")))


def call(model: str, *, no_fallback: bool = False) -> Call:
    body = CODEC.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})
    return parse(Endpoint.CHAT, [(b"x-gateway-no-fallback", b"true")] if no_fallback else [], body, CODEC)


def planned(
    standings: dict[str, Standing],
    *,
    use: str = "ab",
    fallback: str = "cd",
    roll: float = 0.5,
    no_fallback: bool = False,
) -> Plan:
    """`standings` by model, or "model@replica"."""
    routes = (Route("all", tuple(map(Candidate, use)), Match(model=("auto",)), fallback=tuple(fallback)),)
    rules = Rules(MODELS, (), routes, Route("direct", ()))
    by_replica = {(name.partition("@")[0], name.partition("@")[2] or "default"): s for name, s in standings.items()}
    signals = Signals(roll=roll, standing=by_replica)
    return plan(rules, call("auto", no_fallback=no_fallback), Task("default", 1.0, ""), Principal(), signals)


def order(decision: Plan) -> str:
    return "".join(target.model.name for target in decision.targets)


CASES = [
    ("all fine", {}, 0.5, "abcd"),
    ("blocked", {"a": DOWN}, 0.5, "bcd"),
    ("blocked fallback", {"c": RESTS}, 0.5, "abd"),
    ("all candidates blocked", {"a": DOWN, "b": DOWN}, 0.5, "cd"),
    ("half-open", {"a": TRIAL}, 0.99, "abcd"),
    ("slow, and the dice against it", {"a": SLOW}, 0.3, "bacd"),
    ("slow, and the dice for it", {"a": SLOW}, 0.29, "abcd"),
    ("slow, with no candidate beside it", {"a": SLOW, "b": DOWN}, 0.5, "cda"),
    ("all candidates slow", {"a": SLOW, "b": SLOW}, 0.5, "cdab"),
    ("slow fallback", {"c": SLOW}, 0.5, "abdc"),
    ("nothing but slow", {"a": SLOW, "b": DOWN, "c": DOWN, "d": SLOW}, 0.5, "ad"),
]


@pytest.mark.parametrize(("standings", "roll", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_order(standings: dict[str, Standing], roll: float, expected: str) -> None:
    decision = planned(standings, roll=roll)
    assert order(decision) == expected
    assert {each.what: each.why for each in decision.skipped} == {
        name: standing.blocked for name, standing in standings.items() if standing.blocked
    }


def test_why() -> None:
    decision = planned({"a": SLOW})
    assert [target.why for target in decision.targets][:2] == ["listed 2nd", "starting slowly after a failure"]


NO_FALLBACK = [
    ("a slow one keeps its place", {"a": SLOW}, "abcd"),
    ("another candidate is no fallback", {"a": DOWN}, "bcd"),
]


@pytest.mark.parametrize(("standings", "expected"), [c[1:] for c in NO_FALLBACK], ids=[c[0] for c in NO_FALLBACK])
def test_without_fallback(standings: dict[str, Standing], expected: str) -> None:
    assert order(planned(standings, no_fallback=True)) == expected


def test_without_fallback_none_takes_over_for_what_is_out_of_order() -> None:
    with pytest.raises(RouteExhausted, match="a: breaker open: because; b: rests for 30 s"):
        planned({"a": DOWN, "b": RESTS}, no_fallback=True)


def test_nothing_left() -> None:
    with pytest.raises(RouteExhausted) as raised:
        planned({"a": RESTS, "c": DOWN}, use="a", fallback="c")
    error = raised.value
    assert (error.status, error.code) == (503, "no_healthy_upstream")
    assert error.message == "no model of route all is healthy now: a: rests for 30 s; c: breaker open: because"
    assert error.headers["retry-after"] == "5"


def test_replicas_are_blocked_one_by_one() -> None:
    decision = planned({"r@r1": DOWN}, use="r", fallback="c")
    assert [(target.model.name, target.replica.name) for target in decision.targets] == [("r", "r2"), ("c", "default")]
    assert decision.skipped[0].what == "r@r1"
    assert order(planned({"r@r1": SLOW}, use="r", fallback="c", roll=0.9)) == "rrc", "shared out among them already"
    assert order(planned({"r@r1": SLOW, "r@r2": DOWN}, use="r", fallback="c", roll=0.9)) == "cr"


HEALTH = [
    ({}, "fine"),
    ({("b", "default"): SLOW}, "starting slowly after a failure: 30% of its traffic"),
    ({("b", "default"): TRIAL}, "half-open: one request may try"),
    ({("b", "default"): DOWN}, "breaker open: because"),
]


@pytest.mark.parametrize(("standings", "expected"), HEALTH)
def test_explained(standings: dict[tuple[str, str], Standing], expected: str) -> None:
    it = explain(call("auto"), planned({}, use="b", fallback=""), Principal(), standings)
    assert it["targets"][0]["health"] == expected
