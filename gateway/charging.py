"""What an attempt may cost, held in every budget it touches before it is made, and settled to what was billed."""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.call import Call
from gateway.core.ceiling import Unbounded, ceiling
from gateway.core.purse import FREE, Hold, Short, left, take
from gateway.core.routing import Plan, Target
from gateway.core.translate import outgoing
from gateway.core.verdicts import named
from gateway.outputs import Outputs
from gateway.spending import Spending

PATIENCE = 1.0  # seconds that a call waits for others to give back what they hold, where no other target is left


class Refused(NamedTuple):
    """No room: for people, and the code of the error it comes to where no other target is left."""

    why: str
    code: str
    budget: str


class Charging:
    def __init__(self, spending: Spending, outputs: Outputs) -> None:
        self._spending = spending
        self._outputs = outputs

    async def reserve(self, plan: Plan, target: Target, call: Call, patience: float) -> Hold | Refused:
        """Holds the attempt's ceiling in all budgets it touches, or in none.

        `patience`: seconds to wait, at most `PATIENCE`, for holds of others to end.
        """
        touches = plan.touched.by(plan.route, target.model)
        if not touches:
            return FREE
        if call.form.api not in target.model.apis:
            call = outgoing(call, target.model)
        purses = self._spending.purses(touches)
        bound = ceiling(call, target, left(purses), self._outputs.p99(plan.route), clamp=plan.clamp)
        if isinstance(bound, Unbounded):
            budget = touches[0].budget.name
            return Refused(bound.why, bound.code or "insufficient_quota", budget)
        if take(purses, bound.nano):  # nearly always: it is leased, or costs nothing
            return Hold(touches, bound.nano, purses, bound.cap)
        held = await self._spending.reserve(touches, bound.nano, seconds=max(0.0, min(patience, PATIENCE)))
        if isinstance(held, Short):
            return _refused(held)
        held.cap = bound.cap
        return held

    def settle(self, hold: Hold, cost_nano: int | None) -> None:
        """`cost_nano`: what was billed; None where nobody came to say: then all that was held. Once."""
        self._spending.settle(hold, hold.nano if cost_nano is None else cost_nano)


def _refused(short: Short) -> Refused:
    budget = short.touch.budget.name
    if short.spent:
        return Refused(f"{named(short.touch)} has too little left for it", "insufficient_quota", budget)
    why = f"what is left of {named(short.touch)} is held for calls under way"
    return Refused(why, "rate_limit_exceeded", budget)
