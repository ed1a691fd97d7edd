"""What a period has cost and saved, of figures that were added up elsewhere. Money in nano-USD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.core.capacity import capacity_cost, idle, per_hour, utilisation
from gateway.core.pricing import price_at
from gateway.core.rules import Model
from gateway.core.usage import Usage

OUTCOMES = ("ok", "client_error", "rejected", "upstream_error", "cancelled")


class Group:
    """Figures of a set of requests: the first ones by request, the others by attempt."""

    __slots__ = (
        *("attempts", "baseline", "cost", "estimated", "extra", "outcomes", "purposes", "requests", "savings"),
        *("self_hosted", "tokens", "unpriced"),
    )

    def __init__(self) -> None:
        self.requests = 0
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.baseline = 0
        self.savings = 0  # max(0, baseline - cost), request by request
        self.extra = 0  # max(0, cost - baseline)
        self.unpriced = 0  # requests
        self.attempts = 0
        self.cost = 0
        self.purposes: dict[str, int] = {}  # cost by purpose
        self.self_hosted = 0  # the part of the cost that was charged for our own hardware
        self.tokens = [0] * 5  # in the order of Usage
        self.estimated = 0  # attempts whose usage was counted by us

    @property
    def usage(self) -> Usage:
        fresh, cached, written, output, reasoning = self.tokens
        return Usage(fresh, cached, written, output, reasoning)

    @property
    def api_cost(self) -> int:
        return self.cost - self.self_hosted


class Hardware(NamedTuple):
    """A model that is self-hosted or paid by the hour, over the span of a report."""

    model: str
    capacity: int | None  # what its machines cost, busy or not; None: its price is not by the hour
    charged: int  # to requests

    @property
    def idle(self) -> int | None:
        """Negative where the rated speeds are set too low."""
        return None if self.capacity is None else idle(self.capacity, self.charged)

    @property
    def utilisation(self) -> float | None:
        """1 is rated speed all the time. None where it has no capacity."""
        return None if self.capacity is None else utilisation(self.capacity, self.charged)


class Headline(NamedTuple):
    """baseline - API cost - capacity, idle hardware included (contract section 5); may be negative."""

    baseline: int
    api_cost: int
    capacity: int  # of models priced by the hour; what others were charged

    @property
    def saving(self) -> int:
        return self.baseline - self.api_cost - self.capacity


def hardware(
    models: Mapping[str, Model], charged: Mapping[tuple[str, str], int], seconds: float, at: float
) -> list[Hardware]:
    """Of all that stand in the configuration or in the ledger. A model that sleeps costs what it was charged.

    A machine costs its hours whoever owns it, as in the metrics. `charged`: by model and hosting. `at`: unix seconds;
    the prices in force then hold for the whole period.
    """
    found: dict[str, Hardware] = {}
    for name, model in models.items():
        price = price_at(model.price, at)
        machine = price.machine if price is not None else None
        if machine is not None and not model.disabled:
            capacity = capacity_cost(per_hour(machine, len(model.replicas)), seconds)
            found[name] = Hardware(name, capacity, charged.get((name, model.hosting), 0))
    for (name, hosting), nano in charged.items():
        if hosting == "self":
            found.setdefault(name, Hardware(name, None, nano))
    return sorted(found.values(), key=lambda each: each.model)


def headline(total: Group, machines: list[Hardware]) -> Headline:
    """What was not charged for these machines, an API was paid."""
    capacity = sum(each.charged if each.capacity is None else each.capacity for each in machines)
    return Headline(total.baseline, total.cost - sum(each.charged for each in machines), capacity)
