"""Figures of a set of requests, and of what about them cannot be known. Money in nano-USD."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from gateway.core.recorded import Row
from gateway.core.replay import Replayed

K = TypeVar("K")

METRICS: Mapping[str, str] = {
    "cost": "USD",
    "baseline": "USD",
    "savings": "USD",
    "extra": "USD",
    "requests": "",
    "rejected": "",
    "rejected_by_budget": "",
    "failed": "",
    "unpriced": "",
}
"""What a forecast is about, and what `--fail-if` can ask for; with units."""

UNKNOWNS: Mapping[str, str] = {
    "other_model": "answered by a model that was not asked then: the recorded usage is taken, though it may count its "
    "input otherwise, write more or less, or fail",
    "no_answer": "without an answer on record (rejected or failed then, or answered from the cache): input as "
    "estimated, output as usual for their task",
    "cached": "whose route is given a cache, or keeps answers for another time: only what came from the cache then is "
    "taken to",
    "task": "whose task depends on changed rules about their text or headers, which are not kept: the recorded task "
    "stays",
    "drawn": "spread by weight or load: an even sequence stands for the dice",
    "sticky": "on a route that keeps conversations on a model: each is taken on its own",
    "hedged": "that raced two models, or might: only a race that was run then, between the same two, is run again",
    "passed_over": "with models that were not to be had at that moment (out of order, busy): they are not to be had "
    "again",
    "under_way": "charged to budgets one after another: what is held for calls under way is not replayed",
    "refused": "refused by limits, overload or keys: these are not replayed, and stay refused",
    "other_configuration": "recorded under another configuration than the one before the change",
    "old_rows": "from before schema version 3: taken to ask for one answer, without limits of their own",
}
"""What a forecast cannot know, each with the requests it concerns."""


class Tally:
    __slots__ = ("models", "values")

    def __init__(self) -> None:
        self.values = dict.fromkeys(METRICS, 0)
        self.models: dict[str, int] = {}  # requests answered, by model

    def recorded(self, row: Row) -> None:
        priced = bool(row.baseline_model) and row.outcome == "ok" and not row.unpriced
        self._add(row.cost_nano, row.baseline_nano if priced else None)
        if row.outcome == "ok":
            self._answered(row.model or "")
        elif row.outcome == "rejected":
            self.values["rejected"] += 1
            self.values["rejected_by_budget"] += row.rejection == "budget"
        elif row.outcome == "upstream_error":
            self.values["failed"] += 1
        self.values["unpriced"] += bool(row.unpriced)

    def replayed(self, told: Replayed) -> None:
        self._add(told.cost, told.baseline)
        if told.outcome == "ok":
            self._answered(told.model)
        elif told.outcome == "rejected":
            self.values["rejected"] += 1
            self.values["rejected_by_budget"] += told.by_budget
        elif told.outcome == "upstream_error":
            self.values["failed"] += 1
        self.values["unpriced"] += told.unpriced

    def add(self, other: Tally) -> None:
        for name, value in other.values.items():
            self.values[name] += value
        for model, requests in other.models.items():
            self.models[model] = self.models.get(model, 0) + requests

    def _add(self, cost: int, baseline: int | None) -> None:
        values = self.values
        values["requests"] += 1
        values["cost"] += cost
        if baseline is not None:
            values["baseline"] += baseline
            if baseline >= cost:
                values["savings"] += baseline - cost
            else:
                values["extra"] += cost - baseline

    def _answered(self, model: str) -> None:
        if model:  # nobody was asked for a dry run
            self.models[model] = self.models.get(model, 0) + 1


def together(tallies: Iterable[Tally]) -> Tally:
    found = Tally()
    for each in tallies:
        found.add(each)
    return found


def tally_of(tallies: dict[K, Tally], key: K) -> Tally:
    found = tallies.get(key)
    if found is None:
        found = tallies[key] = Tally()
    return found


def summed(changed: Mapping[str, Tally], same: Iterable[tuple[str, Tally]]) -> dict[str, Tally]:
    """By route."""
    found: dict[str, Tally] = {}
    for route, each in (*changed.items(), *same):
        tally_of(found, route).add(each)
    return found
