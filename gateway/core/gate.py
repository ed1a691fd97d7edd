"""`--fail-if 'cost > +10%'`: METRIC OP [+-]NUMBER[%], against two sets of figures.

With a sign it is about the change, without one about the figure itself; with % relative to what it was before:
`cost > +10%` rose by more than a tenth, `cost > 110%` is more than 110% of what it was, `cost > +5` rose by more than
5 USD, `cost > 100` is more than 100 USD. Compared exactly, as fractions.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

_GRAMMAR = re.compile(r"\s*([a-z_]+)\s*(<=|>=|<|>)\s*([+-]?)\s*([0-9]{1,15}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})\s*(%?)\s*")
_OPERATORS: Mapping[str, Callable[[Fraction, Fraction], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Condition(NamedTuple):
    text: str
    metric: str
    operator: str
    number: Fraction
    change: bool  # it is about the difference
    percent: bool  # of the figure before

    def holds(self, before: Fraction, after: Fraction) -> bool:
        """Figures in the unit of the metric: USD or a count."""
        compared = after - before if self.change else after
        if self.percent:
            compared *= 100
            if not before:  # of nothing, nothing is 0% (and 100%), and anything more is beyond every percentage
                if compared:
                    return self.operator.startswith(">") if compared > 0 else self.operator.startswith("<")
                compared, before = Fraction(0 if self.change else 100), Fraction(1)
            # A figure that was negative (a loss) grows towards zero: the change keeps its sign.
            compared /= abs(before)
        return _OPERATORS[self.operator](compared, self.number)


def read_condition(text: str, metrics: Mapping[str, str]) -> Condition:
    """`metrics`: the names there are, and their units. Raises ValueError with a sentence for people."""
    found = _GRAMMAR.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not METRIC OP [+-]NUMBER[%], such as 'cost > +10%'")
    metric, sign, number = found[1], found[3], Fraction(found[4])
    if metric not in metrics:
        raise ValueError(f"{text!r}: there is no {metric!r}; there are: {', '.join(metrics)}")
    return Condition(text.strip(), metric, found[2], -number if sign == "-" else number, bool(sign), bool(found[5]))
