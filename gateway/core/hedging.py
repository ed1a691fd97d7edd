"""Whether a slow first attempt gets company, and when: `hedge:` of a route."""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.call import Call
from gateway.core.routing import Plan
from gateway.core.strategies import expected_cost

HEDGE = "hedge"
"""The reason of an attempt that was made because the first was slow, and the purpose of one that lost such a race."""


class Hedging(NamedTuple):
    """Start `target` (an index into plan.targets) if the first attempt has shown nothing after `after` seconds."""

    target: int
    after: float


def hedging(plan: Plan, call: Call, *, p95: float | None) -> Hedging | None:
    """The second attempt that this call may make; None where there is none to make.

    `p95`: the route's observed 95th percentile until the first content, seconds; None while too few were observed.
    The caller sees to the share of hedged requests and to a target that queues, which are not known here.
    """
    hedge = plan.hedge
    if hedge is None or call.hints.no_fallback or len(plan.targets) < 2 or plan.max_attempts < 2:
        return None
    after = hedge.after if hedge.after is not None else p95
    if after is None or after >= plan.total:
        return None
    if hedge.max_extra_cost_nano is not None:
        extra = expected_cost(plan.targets[1], call)
        if extra is None or extra > hedge.max_extra_cost_nano:
            return None
    return Hedging(1, after)
