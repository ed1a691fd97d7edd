"""`--fail-if`: its grammar and what it compares."""

from __future__ import annotations

from fractions import Fraction

import pytest

from gateway.core.gate import read_condition

METRICS = {"cost": "USD", "rejected": ""}


@pytest.mark.parametrize(
    ("text", "before", "after", "holds"),
    [
        ("cost > +10%", 100, 110, False),
        ("cost > +10%", 100, Fraction("110.000000001"), True),
        ("cost >= +10%", 100, 110, True),
        ("cost < -10%", 100, 90, False),
        ("cost <= -10%", 100, 90, True),
        ("cost > 110%", 100, 111, True),
        ("cost > 110%", 100, 110, False),
        ("cost > +5", 100, 105, False),
        ("cost > +5", 100, 106, True),
        ("cost > 105", 1, 106, True),
        ("cost<.5", 1, Fraction(2, 5), True),
        ("rejected > +0", 3, 4, True),
        ("rejected > +0", 3, 3, False),
        ("cost > +10%", 0, 0, False),  # nothing of nothing is no change
        ("cost > +10%", 0, 1, True),  # any more than nothing is beyond every percentage
        ("cost <= 100%", 0, 0, True),
        ("cost > +10%", -100, -80, True),  # a loss that shrinks rises
        ("cost < -10%", -100, -120, True),
    ],
)
def test_conditions(text: str, before: Fraction, after: Fraction, *, holds: bool) -> None:
    assert read_condition(text, METRICS).holds(Fraction(before), Fraction(after)) is holds


@pytest.mark.parametrize(
    "text", ["", "cost", "cost = 3", "cost > ten", "cost > 1e9", "cost > 1 and cost < 2", "costs > 1"]
)
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(ValueError, match=r"METRIC OP|there is no 'costs'; there are: cost, rejected"):
        read_condition(text, METRICS)
