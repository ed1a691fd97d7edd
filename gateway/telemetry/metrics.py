"""Folds events into plain integers on the hot path; Prometheus sees them when it asks (`exposition.py`).

Everything shown is a pure function of the events: sums of integers, so that the order of events, and on which worker
they happened, make no difference. To add a metric: a row in `families.py` and a line under the `case` of its event.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.registry import Collector

from gateway import __version__
from gateway.core.hedging import HEDGE
from gateway.core.record import AttemptRecord, Record
from gateway.core.scopes import ALL
from gateway.telemetry import families
from gateway.telemetry.capacity import Capacity
from gateway.telemetry.cells import Cell, StageCells, add, sum_up
from gateway.telemetry.events import (
    BreakerChanged,
    BudgetBalance,
    BudgetBalances,
    ConfigReloaded,
    Event,
    LedgerState,
    RequestEnded,
    RequestFinished,
    RequestStarted,
    ServerLost,
    ServerRead,
    TracesLost,
)
from gateway.telemetry.exemplars import STREAM, Exemplars
from gateway.telemetry.exposition import expose
from gateway.telemetry.families import FAMILIES, Family, Labels
from gateway.telemetry.labels import NONE, OTHER, TOKEN_TYPES, LabelSets, initial_series
from gateway.wire import CODEC

NO_FALLBACK = frozenset({"first", "retry", HEDGE})  # reasons that are no failure of another model

BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}


class Series:
    """The series of one family."""

    def __init__(self, family: Family) -> None:
        self.width = len(family.buckets) + 2 if family.buckets else 1
        self.cells: dict[Labels, Cell] = {}

    def cell(self, *labels: str) -> Cell:
        cell = self.cells.get(labels)
        if cell is None:
            cell = self.cells[labels] = [0] * self.width
        return cell


@dataclass(slots=True)
class AttemptPlace:
    """Where attempts of one kind are counted."""

    model: str
    attempts: Cell
    cost: Cell
    per_token: Cell
    input: Cell
    cached_input: Cell
    cache_write: Cell
    output: Cell
    reasoning: Cell


@dataclass(slots=True)
class RequestPlace:
    """Where requests of one kind are counted: labels are looked up for the first of a kind, not for each."""

    route: str
    task: str
    model: str
    team: str
    requests: Cell
    duration: Cell
    first_token: Cell
    baseline: Cell
    savings: Cell
    extra: Cell
    attempts: dict[tuple[str, ...], AttemptPlace]


class Metrics:
    """One per process, used by one thread.

    A worker observes and sends `take()` to its parent now and then; the parent `merge`s, may observe as well, and
    renders. Counters survive a reconfiguration, and so does a label value once it was configured: calls in flight
    finish on the configuration they began with.
    """

    def __init__(self) -> None:
        self._routes = {"": NONE}
        self._tasks = {"": NONE}
        self._models = {"": NONE}
        self._providers = {"": NONE}
        self._teams = {"": NONE}
        self._labels: LabelSets | None = None
        self._config: tuple[str, bool] | None = None  # the hash in force, and whether the last reload was accepted
        self._config_sent: tuple[str, bool] | None = None
        self._ledger = LedgerState(0, 0, 0)
        self._balances: tuple[BudgetBalance, ...] = ()
        self._series = {f.name: Series(f) for f in FAMILIES.values() if f.kind in {"counter", "histogram"}}
        self._gauges: dict[str, dict[str, Series]] = {}  # source -> family -> what it adds; "" is this process
        self._places: dict[tuple[str | bool, ...], RequestPlace] = {}
        self._overhead = self._cell(families.OVERHEAD)
        self.capacity = Capacity()
        self._stages = StageCells(self._cell)
        self._exemplars = Exemplars()

    def _cell(self, family: Family, *labels: str) -> Cell:
        return self._series[family.name].cell(*labels)

    def configure(self, labels: LabelSets) -> None:
        """Label values that may be shown from now on. To be called at start and after each accepted reload."""
        self._labels = labels
        self.capacity.configure(labels.hourly, labels.replicas)
        for known, values in (
            (self._routes, labels.routes),
            (self._tasks, labels.tasks),
            (self._models, labels.models),
            (self._providers, labels.providers),
            (self._teams, labels.teams),
        ):
            known.update((value, value) for value in values)
        if self._config is None:
            self._config = self._config_sent = (labels.config_hash, True)

    def observe(self, event: Event) -> None:
        """What has no case here is shown otherwise: of a crossed threshold, the gauges tell."""
        match event:
            case RequestFinished(record):
                self._request(record)
            case RequestStarted(model) | RequestEnded(model):
                change = 1 if type(event) is RequestStarted else -1
                self._gauge(families.IN_FLIGHT, self._models.get(model, OTHER))[0] += change
            case ConfigReloaded(result, hash, _):
                self._config = (hash, result == "ok")
                self._cell(families.RELOADS, result)[0] += 1
            case LedgerState():
                self._ledger_state(event)
            case TracesLost(requests):
                self._cell(families.TRACES_LOST)[0] += requests
            case BreakerChanged(model, endpoint, state):
                if model in self._models:
                    self._gauge(families.BREAKER, model, endpoint)[0] = BREAKER_STATES[state]
            case BudgetBalances(balances):
                self._balances = balances
            case ServerRead() | ServerLost():
                self.capacity.observe(event)

    def _request(self, record: Record) -> None:
        key = (record.route, record.task, record.model, record.provider, record.team, record.outcome, record.stream)
        place = self._places.get(key) or self._place(key)
        place.requests[0] += 1
        add(place.duration, families.REQUEST_SECONDS, record.duration)
        add(self._overhead, families.OVERHEAD_SECONDS, record.overhead)
        self._stages.add(record.stages)
        if record.trace_id:
            self._exemplars.observe(record, place.route, place.model)
        if record.first_token is not None:
            add(place.first_token, families.FIRST_TOKEN_SECONDS, record.first_token)
        for attempt in record.attempts:
            self._attempt(place, attempt)
        if record.baseline_model and record.outcome == "ok" and not record.unpriced:
            saved = record.baseline_nano - record.cost_nano
            place.baseline[0] += record.baseline_nano
            place.savings[0] += max(0, saved)
            place.extra[0] += max(0, -saved)
        if len(record.attempts) > 1:
            self._fallbacks(place.route, record.attempts)
        self._rare(record, place)

    def _rare(self, record: Record, place: RequestPlace) -> None:
        """What few requests have."""
        if record.rejection:
            self._cell(families.REJECTIONS, record.rejection)[0] += 1
            if record.rejection == "budget":
                self._cell(families.BUDGET_REJECTIONS, self._budget(record.budget))[0] += 1
        if record.unpriced:
            self._cell(families.UNPRICED, place.model)[0] += 1
        if record.cache == "hit":
            self._cell(families.CACHE_HITS, place.route)[0] += 1
            self._cell(families.CACHE_SAVED, place.route)[0] += record.cache_saved_nano
        if record.lines_dropped:
            self._cell(families.LINES_DROPPED, place.model)[0] += record.lines_dropped

    def _place(self, key: tuple[str, str, str, str, str, str, bool]) -> RequestPlace:
        """Remembered only where the configuration knows every name: clients must not be able to fill the memory."""
        known = (self._routes, self._tasks, self._models, self._providers, self._teams)
        names = [labels.get(name, OTHER) for labels, name in zip(known, key[:5], strict=True)]
        route, task, model, provider, team = names
        place = RequestPlace(
            route,
            task,
            model,
            team,
            self._cell(families.REQUESTS, route, task, model, provider, team, key[5]),
            self._cell(families.DURATION, route, model, STREAM[key[6]]),
            self._cell(families.FIRST_TOKEN, route, model),
            self._cell(families.BASELINE, route, task, team),
            self._cell(families.SAVINGS, route, task, team),
            self._cell(families.EXTRA, route, task, team),
            {},
        )
        if OTHER not in names:
            self._places[key] = place
        return place

    def _attempt(self, place: RequestPlace, attempt: AttemptRecord) -> None:
        key = (attempt.model, attempt.provider, attempt.hosting, attempt.purpose, attempt.result)
        at = place.attempts.get(key) or self._attempt_place(place, key)
        at.attempts[0] += 1
        self._stages.add(attempt.stages)
        at.cost[0] += attempt.cost_nano
        fresh, cached, written, output, reasoning, estimated, _ = attempt.usage
        at.input[0] += fresh
        at.cached_input[0] += cached
        at.cache_write[0] += written
        at.output[0] += output
        at.reasoning[0] += reasoning
        if attempt.reserved_nano is not None and attempt.cost_nano > attempt.reserved_nano:
            for name in attempt.budgets:
                beyond = attempt.cost_nano - attempt.reserved_nano
                self._cell(families.BUDGET_OVERRUN, self._budget(name))[0] += beyond
        if estimated:
            self._cell(families.ESTIMATED, at.model)[0] += 1
        elif attempt.first_token is not None and attempt.result == "ok" and output + reasoning > 1:
            after = attempt.duration - attempt.first_token
            add(at.per_token, families.TOKEN_SECONDS, after / (output + reasoning - 1))

    def _budget(self, name: str) -> str:
        return name if self._labels is not None and name in self._labels.budgets else OTHER

    def _budgets(self, family: Family) -> dict[Labels, Cell]:
        """By budget and scope. Scopes that no configuration names (users) are shown as one."""
        sets, total = self._labels, Series(family)
        if sets is None:
            return {}
        limits = family is families.BUDGET_LIMIT
        for name, budget in sets.budgets.items():
            if limits and not budget.per:
                total.cell(name, ALL)[0] = budget.limit_nano
        for balance in self._balances:
            if balance.budget not in sets.budgets:
                continue
            cell = total.cell(balance.budget, _scope(balance, sets))
            if limits:
                cell[0] = sets.budgets[balance.budget].limit_nano
            else:
                cell[0] += balance.settled if family is families.BUDGET_SETTLED else balance.held
        return total.cells

    def _windows(self, family: Family) -> dict[Labels, Cell]:
        """When they begin or end: of all users that share a scope here, the same."""
        sets, total = self._labels, Series(family)
        if sets is None:
            return {}
        for balance in self._balances:
            if balance.budget in sets.budgets and balance.ends < math.inf:
                at = balance.starts if family is families.BUDGET_STARTS else balance.ends
                total.cell(balance.budget, _scope(balance, sets))[0] = round(at)
        return total.cells

    def _attempt_place(self, place: RequestPlace, key: tuple[str, str, str, str, str]) -> AttemptPlace:
        model, provider = self._models.get(key[0], OTHER), self._providers.get(key[1], OTHER)
        _, _, hosting, purpose, result = key
        where = (place.route, place.task, model)
        at = AttemptPlace(
            model,
            self._cell(families.ATTEMPTS, model, provider, result),
            self._cell(families.COST, *where, provider, hosting, place.team, purpose),
            self._cell(families.PER_TOKEN, model),
            *(self._cell(families.TOKENS, *where, place.team, kind) for kind in TOKEN_TYPES),
        )
        if OTHER not in (model, provider):
            place.attempts[key] = at
        return at

    def _fallbacks(self, route: str, attempts: tuple[AttemptRecord, ...]) -> None:
        for attempt in attempts:
            if attempt.reason == HEDGE:
                self._cell(families.HEDGES, route, "true" if attempt.result == "ok" else "false")[0] += 1
        for left, taken in itertools.pairwise(attempts):
            if left.model != taken.model and taken.reason not in NO_FALLBACK:
                origin, target = self._models.get(left.model, OTHER), self._models.get(taken.model, OTHER)
                self._cell(families.FALLBACKS, route, origin, target, taken.reason)[0] += 1

    def _ledger_state(self, state: LedgerState) -> None:
        """The counts are since the ledger was opened; fewer than before mean a new one."""
        before = self._ledger
        if state.failures < before.failures or state.dropped < before.dropped:
            before = LedgerState(before.depth, 0, 0)
        self._cell(families.LEDGER_FAILURES)[0] += state.failures - before.failures
        self._cell(families.LEDGER_DROPPED)[0] += state.dropped - before.dropped
        self._gauge(families.LEDGER_DEPTH)[0] += state.depth - before.depth
        self._ledger = state

    def _gauge(self, family: Family, *labels: str, source: str = "") -> Cell:
        gauges = self._gauges.setdefault(source, {})
        return gauges.setdefault(family.name, Series(family)).cell(*labels)

    def take(self) -> bytes:
        """What was observed since the last `take`, for `merge` in another process; it is no longer counted here."""
        own = self._gauges.pop("", {})
        delta = CODEC.dumps(
            {
                "series": [
                    (name, *item) for name, s in self._series.items() for item in s.cells.items() if any(item[1])
                ],
                "gauges": [(name, *item) for name, s in own.items() for item in s.cells.items() if any(item[1])],
                "config": self._config if self._config != self._config_sent else None,
                "exemplars": self._exemplars.take(),
            }
        )
        for series in self._series.values():
            series.cells.clear()
        self._places.clear()
        self._overhead = self._cell(families.OVERHEAD)
        self._stages = StageCells(self._cell)
        self._config_sent = self._config
        return delta

    def merge(self, delta: bytes, source: str = "worker") -> None:
        """Adds what another process took. `source` names that process, for `forget`."""
        taken: Mapping[str, Any] = CODEC.loads(delta)
        for name, labels, values in taken["series"]:
            sum_up(self._series[name].cell(*labels), values)
        for name, labels, values in taken["gauges"]:
            sum_up(self._gauge(FAMILIES[name], *labels, source=source), values)
        self._exemplars.merge(taken["exemplars"])
        if taken["config"]:
            self._config = (taken["config"][0], taken["config"][1])

    def remember(self) -> None:
        """Keeps this moment for what is told of the last hour. To be called every `capacity.STEP` seconds."""
        self.capacity.remember(*self._traffic())

    def _traffic(self) -> tuple[dict[Labels, Cell], dict[Labels, Cell]]:
        return self._series[families.TOKENS.name].cells, self._series[families.ATTEMPTS.name].cells

    def forget(self, source: str) -> None:
        """That process is gone: what it had in flight or in its queue is no more. What it counted stays."""
        self._gauges.pop(source, None)

    def render(self, accept: str, more: Iterable[Collector] = ()) -> tuple[bytes, str]:
        """The exposition and its content type, as the scraper's `Accept` prefers: OpenMetrics or Prometheus text."""
        return expose(self.series(), accept, self._exemplars.of, more)

    def series(self) -> Iterator[tuple[Family, Mapping[Labels, Cell]]]:
        """Every family with its series in integers: those that are shown from the start, and those seen since."""
        initial = initial_series(self._labels) if self._labels else {}
        for name, family in FAMILIES.items():
            seen = self._series[name].cells if name in self._series else self._state(family)
            yield family, {labels: [0] * Series(family).width for labels in initial.get(name, {})} | seen

    def _state(self, family: Family) -> dict[Labels, Cell]:
        """What a gauge or an info says now; gauges of several processes add up."""
        if family in families.OF_CAPACITY:
            return self.capacity.cells(family, *self._traffic())
        if family in (families.BUDGET_LIMIT, families.BUDGET_SETTLED, families.BUDGET_RESERVED):
            return self._budgets(family)
        if family in (families.BUDGET_STARTS, families.BUDGET_ENDS):
            return self._windows(family)
        if family is families.CONFIG:
            return {(self._config[0],): [1]} if self._config else {}
        if family is families.RELOADED:
            return {(): [int(self._config[1])]} if self._config else {}
        if family is families.BUILD:
            return {(__version__,): [1]}
        total = Series(family)
        for gauges in self._gauges.values():
            if family.name in gauges:
                for labels, cell in gauges[family.name].cells.items():
                    sum_up(total.cell(*labels), cell)
        return total.cells


def _scope(balance: BudgetBalance, sets: LabelSets) -> str:
    scope = balance.scope.partition(" ")[2] or balance.scope
    return scope if scope in sets.scopes else OTHER
