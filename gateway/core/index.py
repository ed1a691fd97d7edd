"""Models and routes prepared for fast decisions: everything about them that does not depend on the request.

Built once per configuration (`Rules.prepared`). A request looks only at the routes that may match the name it gives, so
that a thousand routes cost what three do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.core.call import Call, Principal
from gateway.core.globs import Names, is_literal
from gateway.core.pricing import Price
from gateway.core.rules import Candidate, Match, Model, Route, Skipped, Target, Timeouts
from gateway.core.strategies import ordinal
from gateway.core.tasks import Task

BUILT_IN = Timeouts(connect=3.0, attempt=120.0, first_token=60.0, idle=60.0, total=300.0)
BUILT_IN_REASONING = BUILT_IN._replace(first_token=600.0, idle=600.0)  # thinking is silent for minutes


class Matcher:
    """A route's `match`, compiled."""

    __slots__ = ("_has", "_key", "_max_input", "_min_input", "_model", "_tag", "_task", "_team")

    def __init__(self, match: Match) -> None:
        names = (match.model, match.task, match.key, match.team, match.tag)
        self._model, self._task, self._key, self._team, self._tag = map(_names, names)
        self._has = match.has
        self._min_input = match.min_input_tokens
        self._max_input = match.max_input_tokens

    def unmet(self, call: Call, task: Task, principal: Principal) -> str:
        """The first condition that does not hold, by its name in `match`; empty where all hold."""
        if self._model is not None and not self._model.hold(call.model):
            return "model"
        if self._task is not None and not self._task.hold(task.label):
            return "task"
        if self._key is not None and not self._key.hold(principal.key):
            return "key"
        if self._team is not None and not self._team.hold(principal.team):
            return "team"
        if self._tag is not None and not self._tag.hold_any(call.hints.tags | principal.tags):
            return "tag"
        if self._has is not None and self._has.isdisjoint(call.has):
            return "has"
        if self._min_input is not None and call.estimated_input < self._min_input:
            return "min_input_tokens"
        if self._max_input is not None and call.estimated_input > self._max_input:
            return "max_input_tokens"
        return ""


class LineUp(NamedTuple):
    """A route's models as targets in the listed order."""

    route: Route
    matcher: Matcher
    use: tuple[tuple[Target, Candidate], ...]
    fallback: tuple[Target, ...]
    skipped: tuple[Skipped, ...]  # whatever the request: disabled, given twice
    baseline: Model | None
    replicated: bool = False  # a model in it has several replicas
    alternatives: bool = False  # there are at least two models
    reasons: bool = False  # a model in it does
    timed: bool = False  # a price in it depends on the time


class Index:
    """`line_ups` are in the order of the routes."""

    def __init__(self, models: Mapping[str, Model], routes: Sequence[Route], direct: Route) -> None:
        self._models = {name: model for name, model in models.items() if model.upstream_name}
        wildcards = [model for model in models.values() if not model.upstream_name]
        self._wildcards = sorted(wildcards, key=lambda model: -len(model.name))  # the most specific first
        self.line_ups = tuple(self._line_up(route, direct) for route in routes)
        self.direct = {name: self._direct(name, direct) for name in models}
        self.known_tasks = frozenset(name for route in routes for name in route.match.task or () if is_literal(name))
        self._literal: dict[str, list[int]] = {}
        self._open: list[int] = []  # routes that may match a name that they do not give literally
        for position, route in enumerate(routes):
            names = route.match.model
            for name in set(filter(is_literal, names or ())):
                self._literal.setdefault(name, []).append(position)
            if names is None or not all(map(is_literal, names)):
                self._open.append(position)
        enabled = {name for name, model in self._models.items() if not model.disabled}
        self.visible = tuple(sorted(enabled | self._literal.keys()))

    def find(self, name: str) -> Model | None:
        """The entry under `models:` that a name means, wildcards last."""
        model = self._models.get(name)
        if model is None and self._wildcards:
            model = next((wildcard for wildcard in self._wildcards if rest_of(wildcard, name)), None)
        return model

    def names_literally(self, name: str) -> bool:
        """Whether a route's `match.model` does."""
        return name in self._literal

    def first_match(self, call: Call, task: Task, principal: Principal) -> int | None:
        """The position of the first route that matches."""
        literal = self._literal.get(call.model, ())
        found = self._first_of(literal, call, task, principal)
        before = self._open if found is None else [position for position in self._open if position < found]
        earlier = self._first_of(before, call, task, principal)
        return found if earlier is None else earlier

    def _first_of(self, positions: Iterable[int], call: Call, task: Task, principal: Principal) -> int | None:
        for position in positions:
            if not self.line_ups[position].matcher.unmet(call, task, principal):
                return position
        return None

    def _line_up(self, route: Route, direct: Route) -> LineUp:
        use: list[tuple[Target, Candidate]] = []
        fallback: list[Target] = []
        skipped: list[Skipped] = []
        seen: set[str] = set()
        levels = (route.timeouts, direct.timeouts)
        for place, candidate in enumerate(route.use, 1):
            target = self._target(candidate.model, levels, f"listed {ordinal(place)}")
            if why := _sleeping(candidate.model, target, seen):
                skipped.append(Skipped(candidate.model, why))
            else:
                use.append((target, candidate))
        for place, name in enumerate(route.fallback, 1):
            target = self._target(name, levels, f"fallback {ordinal(place)}")._replace(fallback=True)
            if why := _sleeping(name, target, seen):
                skipped.append(Skipped(name, why))
            else:
                fallback.append(target)
        models = [target.model for target, _ in use] + [target.model for target in fallback]
        return LineUp(
            *(route, Matcher(route.match), tuple(use), tuple(fallback), tuple(skipped), self.find(route.baseline)),
            replicated=any(len(model.replicas) > 1 for model in models),
            alternatives=len(models) > 1,
            reasons=any("reasoning" in model.supports for model in models),
            timed=any(price.timed for model in models for price in (model.price, *model.prices.values()) if price),
        )

    def _direct(self, name: str, direct: Route) -> LineUp:
        """The defaults belong to the file, not to a route: the model's own timeouts go before them."""
        route = direct._replace(use=(Candidate(name),), fallback=(), order="listed", timeouts=Timeouts())
        line_up = self._line_up(route, direct)
        use = tuple((target._replace(why="named by the client"), candidate) for target, candidate in line_up.use)
        return line_up._replace(use=use)

    def _target(self, name: str, levels: tuple[Timeouts, Timeouts], why: str) -> Target:
        model = next((each for each in self._wildcards if each.name == name), None) or self.find(name)
        if model is None:
            raise KeyError(name)  # the configuration was checked: every name in a route is there
        of_route, defaults = levels
        timeouts = resolve((of_route, model.timeouts, defaults), reasoning="reasoning" in model.supports)
        upstream_name = model.upstream_name or (rest_of(model, name) if name != model.name else "")
        price = price_of(model, upstream_name)
        return Target(model, upstream_name, price, timeouts, fallback=False, why=why, replica=model.replicas[0])


def resolve(levels: Sequence[Timeouts], *, reasoning: bool) -> Timeouts:
    """The first level that sets a limit decides it; at last the built-in default (contract section 2, "Timeouts")."""
    columns = zip(*levels, BUILT_IN_REASONING if reasoning else BUILT_IN, strict=True)
    return Timeouts(*(next(value for value in column if value is not None) for column in columns))


def rest_of(wildcard: Model, name: str) -> str:
    """What a wildcard's star stands for in a requested name; empty where it does not fit."""
    prefix = wildcard.name.removesuffix("*")
    return name[len(prefix) :] if name.startswith(prefix) else ""


def price_of(model: Model, upstream_name: str) -> Price | None:
    """A wildcard's own price goes before the book's price of the name sent upstream."""
    return model.price if model.price is not None else model.prices.get(upstream_name)


def _sleeping(name: str, target: Target, seen: set[str]) -> str:
    """Why a target is never tried, whatever the request."""
    if name in seen:
        return "given twice"
    seen.add(name)
    return f"disabled: {target.model.disabled}" if target.model.disabled else ""


def _names(globs: tuple[str, ...] | None) -> Names | None:
    return None if globs is None else Names.of(globs)
