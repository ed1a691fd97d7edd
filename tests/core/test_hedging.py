"""When a slow first attempt gets company."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Call, Endpoint, parse
from gateway.core.hedging import Hedging, hedging
from gateway.core.pricing import Price, Rates
from gateway.core.routing import Model, Plan, Target, Timeouts
from gateway.core.rules import Hedge
from gateway.core.strategies import expected_cost
from gateway.core.tasks import Task
from gateway.pace import ENOUGH, SHARE, Pace
from gateway.wire import CODEC

CHEAP = Price("test", rates=Rates(1_000_000, 0, 0, 1_000_000, 1_000_000))  # USD 0.001 a million tokens
BODY = b'{"model": "auto", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1000}'  # about 1,001 nano-USD


def call(*headers: tuple[bytes, bytes]) -> Call:
    return parse(Endpoint.CHAT, headers, BODY, CODEC)


def plan(hedge: Hedge | None, targets: int = 2, price: Price | None = CHEAP, max_attempts: int = 4) -> Plan:
    each = Target(Model("m", "p", "m"), "m", price, Timeouts(), fallback=False, why="")
    base = Plan("r", Task("default", 1.0, ""), (each,) * targets, (), (), total=60.0, hedge=hedge)
    return base._replace(max_attempts=max_attempts)


@pytest.mark.parametrize(
    ("what", "given", "p95", "expected"),
    [
        ("no hedge in the route", plan(None), 0.5, None),
        ("after the observed p95", plan(Hedge()), 0.5, Hedging(1, 0.5)),
        ("not before enough was observed", plan(Hedge()), None, None),
        ("a fixed time needs no observation", plan(Hedge(after=2.0)), None, Hedging(1, 2.0)),
        ("nowhere to go", plan(Hedge(), targets=1), 0.5, None),
        ("only one attempt allowed", plan(Hedge(), max_attempts=1), 0.5, None),
        ("after the deadline", plan(Hedge(after=60.0)), None, None),
        ("cheap enough", plan(Hedge(max_extra_cost_nano=1002)), 0.5, Hedging(1, 0.5)),
        ("too dear", plan(Hedge(max_extra_cost_nano=1000)), 0.5, None),
        ("of unknown price", plan(Hedge(max_extra_cost_nano=10**9), price=None), 0.5, None),
        ("of unknown price without a limit", plan(Hedge(), price=None), 0.5, Hedging(1, 0.5)),
    ],
)
def test_hedging(what: str, given: Plan, p95: float | None, expected: Hedging | None) -> None:
    assert hedging(given, call(), p95=p95) == expected, what


def test_never_where_the_client_wants_no_fallback() -> None:
    assert hedging(plan(Hedge()), call((b"x-gateway-no-fallback", b"true")), p95=0.5) is None


@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 10)), max_size=400))
def test_of_any_traffic_at_most_the_share_is_hedged(requests: list[tuple[bool, float]]) -> None:
    """Each request may ask for company; beyond what a quiet time has saved up, one in twenty gets it."""
    pace = Pace().of("r", stream=True)
    taken = 0
    for number, (slow, seconds) in enumerate(requests, 1):
        pace.came()
        taken += slow and pace.take_hedge()
        assert taken <= number * SHARE
        pace.began(seconds)
        assert (pace.p95 is None) == (number < ENOUGH)


@given(st.integers(0, 5_000), st.integers(0, 5_000), st.booleans())
def test_company_never_costs_more_than_allowed(most: int, rate: int, priced: bool) -> None:
    price = Price("test", rates=Rates(rate * 1000, 0, 0, rate * 1000, rate * 1000)) if priced else None
    found = hedging(plan(Hedge(after=0.1, max_extra_cost_nano=most), price=price), call(), p95=None)
    if found is not None:
        assert price is not None
        extra = expected_cost(plan(None, price=price).targets[1], call())
        assert extra is not None
        assert extra <= most
