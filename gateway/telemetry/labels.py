"""Which label values metrics may show, and which series exist before the first request: both come from routes.yaml."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from gateway.config.types import Config, Key
from gateway.core.failures import Kind
from gateway.core.passing import MODEL, ROUTE
from gateway.core.record import AttemptStages, Stages
from gateway.core.routing import Model, Route
from gateway.core.scopes import ALL
from gateway.core.tasks import DEFAULT_TASK
from gateway.telemetry import families
from gateway.telemetry.capacity import Hourly, hourly_of
from gateway.telemetry.families import Family, Labels

OTHER = "other"  # a value that the configuration does not know
NONE = "none"  # no value: no team, or no route and no model because the request was refused before
DIRECT = "direct"

OUTCOMES = ("ok", "client_error", "rejected", "upstream_error", "cancelled")
REJECTIONS = (
    *("auth", "permission", "not_found", "invalid", "too_large", "rate_limit", "budget"),
    *("overload", "store_unavailable"),
)
PURPOSES = ("answer", "retry", "hedge")
RESULTS = ("ok", "relayed", "cancelled", *Kind)
TOKEN_TYPES = ("input", "cached_input", "cache_write", "output", "reasoning")
RELOAD_RESULTS = ("ok", "rejected")

STAGES = (*Stages._fields, *AttemptStages._fields)

MOST_COMBINATIONS = 1_000
"""Of route, model, task and team, shown before they were seen: a huge configuration must not make a huge page."""


class Pair(NamedTuple):
    """A model that a route may use."""

    route: str
    model: str
    provider: str
    hosting: str
    tasks: tuple[str, ...]  # that the route takes


class BudgetLabels(NamedTuple):
    limit_nano: int
    per: str  # empty: one account for all


class LabelSets(NamedTuple):
    """What metrics need to know of a configuration."""

    routes: frozenset[str]
    tasks: frozenset[str]
    models: frozenset[str]
    providers: frozenset[str]
    teams: frozenset[str]
    pairs: tuple[Pair, ...] = ()  # in the order of the file; asleep models are not among them
    moves: tuple[tuple[str, str, str], ...] = ()  # route, and a model that may be taken after which other
    caching: tuple[str, ...] = ()  # routes that give answers again
    replicas: tuple[tuple[str, str], ...] = ()  # model and endpoint
    hourly: Mapping[str, Hourly] = {}  # models whose machines are paid by the hour
    budgets: Mapping[str, BudgetLabels] = {}
    scopes: frozenset[str] = frozenset()  # of budgets: what `per` may be worth
    config_hash: str = ""

    @classmethod
    def of(cls, config: Config, created: Iterable[Key] = ()) -> LabelSets:
        """`created`: keys that do not stand in the file."""
        rules = config.rules
        awake = {name: model for name, model in rules.models.items() if not model.disabled}
        tasks = _tasks(config)
        pairs = [pair for route in rules.routes for pair in _pairs(route, awake, tasks)]
        moves = (move for route in rules.routes for move in _moves(route, awake))
        keys = [key.principal for key in (*config.keys, *created)]
        teams = config.teams | {key.team for key in keys if key.team}
        own = [budget for key in keys for budget in key.budgets]
        budgets = {each.name: BudgetLabels(each.limit_nano, each.per) for each in (*own, *rules.budgets)}
        named = [*(key.key for key in keys), *teams, *tasks, *(route.name for route in rules.routes), DIRECT]
        pairs += [Pair(DIRECT, m.name, m.provider, m.hosting, tasks) for m in awake.values()]
        through = [each.name for each in config.providers.values() if each.passthrough and not each.disabled]
        pairs += [Pair(ROUTE, MODEL, name, "api", tasks) for name in through]
        return cls(
            routes=frozenset(route.name for route in rules.routes) | {DIRECT, *(ROUTE for _ in through)},
            tasks=frozenset(tasks),
            models=frozenset(rules.models) | {MODEL for _ in through},
            providers=frozenset(config.providers),
            teams=teams,
            pairs=tuple(pairs),
            moves=tuple(itertools.islice(moves, MOST_COMBINATIONS)),
            caching=tuple(each.name for each in (*rules.routes, rules.direct) if each.cache is not None),
            replicas=tuple((m.name, replica.name) for m in awake.values() for replica in m.replicas),
            hourly=hourly_of(config),
            budgets=budgets,
            scopes=frozenset((ALL, NONE, *named, *rules.models, *config.providers)),
            config_hash=config.hash,
        )


def _tasks(config: Config) -> tuple[str, ...]:
    """The names under `tasks:`, `default`, and those that a route asks for by name: a client may send these."""
    named = [task.name for task in config.rules.tasks]
    asked = [task for route in config.rules.routes for task in route.match.task or () if not set(task) & set("*?[")]
    return tuple(dict.fromkeys([*named, DEFAULT_TASK, *asked]))


def _pairs(route: Route, models: Mapping[str, Model], tasks: tuple[str, ...]) -> Iterator[Pair]:
    taken = tasks
    if route.match.task is not None:
        taken = tuple(task for task in tasks if any(fnmatchcase(task, glob) for glob in route.match.task))
    for name in dict.fromkeys([*(candidate.model for candidate in route.use), *route.fallback]):
        if name in models:
            yield Pair(route.name, name, models[name].provider, models[name].hosting, taken)


def _moves(route: Route, models: Mapping[str, Model]) -> Iterator[tuple[str, str, str]]:
    """Any candidate may come before any other; what is under `fallback:` comes after, in its order."""
    used = dict.fromkeys(candidate.model for candidate in route.use if candidate.model in models)
    last = [name for name in route.fallback if name in models and name not in used]
    pairs = (itertools.permutations(used, 2), itertools.product(used, last), itertools.combinations(last, 2))
    return ((route.name, left, taken) for left, taken in itertools.chain(*pairs))


def initial_series(sets: LabelSets) -> dict[str, dict[Labels, None]]:
    """Family name -> the label values that are shown from the start, at 0: `increase()` misses what begins above it."""
    found: dict[str, dict[Labels, None]] = {}

    def add(family: Family, *values: Iterable[str]) -> None:
        found.setdefault(family.name, {}).update(dict.fromkeys(itertools.product(*values)))

    add(families.REJECTIONS, REJECTIONS)
    add(families.RELOADS, RELOAD_RESULTS)
    for family in (families.OVERHEAD, families.LEDGER_DEPTH, families.LEDGER_FAILURES, families.LEDGER_DROPPED):
        add(family)
    add(families.TRACES_LOST)
    add(families.STAGES, STAGES)
    for family, labels in itertools.chain(_fallbacks(sets), _budgets(sets), _caches(sets)):
        found.setdefault(family.name, {})[labels] = None
    for pair in sets.pairs[:MOST_COMBINATIONS]:
        route, model, provider = [pair.route], [pair.model], [pair.provider]
        add(families.DURATION, route, model, ("false", "true"))
        add(families.FIRST_TOKEN, route, model)
        add(families.HEDGES, route, ("false", "true"))
        for family in (families.PER_TOKEN, families.ESTIMATED, families.UNPRICED, families.LINES_DROPPED):
            add(family, model)
        add(families.IN_FLIGHT, model)
        add(families.ATTEMPTS, model, provider, RESULTS)
    for model_name, endpoint in sets.replicas:
        add(families.BREAKER, [model_name], [endpoint])
    for route_name, task, team in itertools.islice(_refused(sets), MOST_COMBINATIONS):
        add(families.REQUESTS, [route_name], [task], [NONE], [NONE], [team], ("rejected", "upstream_error"))
        add(families.DURATION, [route_name], [NONE], ("false", "true"))
    for pair, task, team in itertools.islice(_combinations(sets), MOST_COMBINATIONS):
        place = ([pair.route], [task])
        add(families.REQUESTS, *place, [pair.model], [pair.provider], [team], OUTCOMES)
        add(families.TOKENS, *place, [pair.model], [team], TOKEN_TYPES)
        add(families.COST, *place, [pair.model], [pair.provider], [pair.hosting], [team], PURPOSES)
        for family in (families.BASELINE, families.SAVINGS, families.EXTRA):
            add(family, *place, [team])
    return found


def _caches(sets: LabelSets) -> Iterator[tuple[Family, Labels]]:
    return ((family, (route,)) for family in (families.CACHE_HITS, families.CACHE_SAVED) for route in sets.caching)


def _fallbacks(sets: LabelSets) -> Iterator[tuple[Family, Labels]]:
    moves = itertools.islice(itertools.product(sets.moves, Kind), MOST_COMBINATIONS)
    return ((families.FALLBACKS, (*move, kind)) for move, kind in moves)


def _budgets(sets: LabelSets) -> Iterator[tuple[Family, Labels]]:
    for name, budget in itertools.islice(sets.budgets.items(), MOST_COMBINATIONS):
        yield families.BUDGET_REJECTIONS, (name,)
        yield families.BUDGET_OVERRUN, (name,)
        if not budget.per:
            yield families.BUDGET_SETTLED, (name, ALL)
            yield families.BUDGET_RESERVED, (name, ALL)


def _refused(sets: LabelSets) -> Iterator[tuple[str, str, str]]:
    """Route, task and team of requests that no model was tried for, some not even a route found."""
    teams = [NONE, *sorted(sets.teams)]
    found = {(pair.route, task): None for pair in sets.pairs for task in pair.tasks}
    places = itertools.chain([(NONE, NONE)], ((NONE, task) for task in sorted(sets.tasks)), found)
    return ((*place, team) for place in places for team in teams)


def _combinations(sets: LabelSets) -> Iterator[tuple[Pair, str, str]]:
    teams = [NONE, *sorted(sets.teams)]
    return ((pair, task, team) for pair in sets.pairs for task in pair.tasks for team in teams)
