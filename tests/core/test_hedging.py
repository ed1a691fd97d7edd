"""When a slow first attempt gets company."""

from __future__ import annotations

import pytest

from gateway.core.call import Call, Endpoint, parse
from gateway.core.hedging import Hedging, hedging
from gateway.core.pricing import Price, Rates
from gateway.core.routing import Model, Plan, Target, Timeouts
from gateway.core.rules import Hedge
from gateway.core.tasks import Task
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
