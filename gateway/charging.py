"""What an attempt may cost, held in every budget it touches before it is made, and settled to what was billed."""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.call import Call
from gateway.core.ceiling import Unbounded, ceiling
from gateway.core.purse import left, take
from gateway.core.routing import Plan, Target
from gateway.core.translate import outgoing
from gateway.core.verdicts import named
from gateway.outputs import Outputs
from gateway.spending import Hold, Short, Spending

PATIENCE = 1.0  # seconds that a call waits for others to give back what they hold, where no other target is left


class Charge(NamedTuple):
    """What one attempt holds."""

    hold: Hold
    cap: int | None = None  # tokens of output that the upstream is told not to exceed; None: the client's own, or none

    @property
    def reserved(self) -> int | None:
        return self.hold.nano if self.hold.touches else None

    @property
    def budgets(self) -> tuple[str, ...]:
        return tuple(touch.budget.name for touch in self.hold.touches)


class Refused(NamedTuple):
    """No room: for people, and the code of the error it comes to where no other target is left."""

    why: str
    code: str
    budget: str


FREE = Charge(Hold((), 0))
"""Of an attempt that touches no budget."""


class Charging:
    def __init__(self, spending: Spending, outputs: Outputs) -> None:
        self._spending = spending
        self._outputs = outputs

    async def reserve(self, plan: Plan, target: Target, call: Call, patience: float) -> Charge | Refused:
        """Holds the attempt's ceiling in all budgets it touches, or in none.

        `patience`: seconds to wait, at most `PATIENCE`, for holds of others to end.
        """
        touches = plan.touched.by(plan.route, target.model)
        if not touches:
            return FREE
        call = outgoing(call, target.model)
        purses = self._spending.purses(touches)
        bound = ceiling(call, target, left(purses), self._outputs.p99(plan.route), clamp=plan.clamp)
        if isinstance(bound, Unbounded):
            budget = touches[0].budget.name
            return Refused(bound.why, bound.code or "insufficient_quota", budget)
        if take(purses, bound.nano):  # nearly always: it is leased, or costs nothing
            return Charge(Hold(touches, bound.nano, purses), bound.cap)
        held = await self._spending.reserve(touches, bound.nano, seconds=max(0.0, min(patience, PATIENCE)))
        if isinstance(held, Short):
            return _refused(held)
        return Charge(held, bound.cap)

    def settle(self, charge: Charge, cost_nano: int | None) -> None:
        """`cost_nano`: what was billed; None where nobody came to say: then all that was held."""
        if charge is not FREE:
            self._spending.settle(charge.hold, charge.hold.nano if cost_nano is None else cost_nano)


def _refused(short: Short) -> Refused:
    budget = short.touch.budget.name
    if short.spent:
        return Refused(f"{named(short.touch)} has too little left for it", "insufficient_quota", budget)
    why = f"what is left of {named(short.touch)} is held for calls under way"
    return Refused(why, "rate_limit_exceeded", budget)
