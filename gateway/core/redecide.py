"""Every recorded request decided twice: under the rules before and under the rules after, with the code that serves.

What a decision looks at is little, so the two are made once for all requests that are alike in it. Two decisions that
are the same leave what happened as it was: the rules had no part in how it went otherwise.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from gateway.core.budgets import NOTHING_TOUCHED, Action, Settled, Touch, Touched
from gateway.core.call import Principal
from gateway.core.recorded import RecordedCall, Row
from gateway.core.replay_tasks import Retasked, Tasks
from gateway.core.routing import Plan, Route, Rules, Signals, plan
from gateway.core.tasks import Task
from gateway.errors import GatewayError, QuotaExceeded, RouteExhausted

DRAWS = 1024
"""So many dice stand for chance, each as often as the others: the shares of `weighted` come out to a thousandth."""

_DRAWN = frozenset({"weighted", "least_busy"})  # orders that depend on chance, or on a load that is not known
_REMEMBERED = 8_000  # kinds of request, and as many draws


class Side(NamedTuple):
    """One configuration."""

    rules: Rules
    principals: Mapping[str, Principal]  # by key: whoever may call
    hash: str = ""

    def principal(self, row: Row) -> Principal:
        known = self.principals.get(row.key or "")
        return known or Principal(row.key or "", row.team or "", row.user or "")


class Decision(NamedTuple):
    plan: Plan | None
    refusal: str = ""  # where there is no plan: budget | rejected | upstream_error
    compared: tuple[Any, ...] = ()  # equal: nothing that matters is different
    drawn: bool = False
    sized: bool = False  # prices are compared, so that it depends on how much is read and written
    sticky: bool = False


class Pair(NamedTuple):
    before: Decision
    after: Decision
    same: bool
    task: Retasked

    @property
    def recached(self) -> bool:
        """Whether answers are given again that were not, or for another time."""
        before, after = self.before.plan, self.after.plan
        return before is not None and after is not None and after.cache not in (None, before.cache)

    @property
    def spares(self) -> bool:
        """Whether what was given again still would be. The cache stands before models and budgets."""
        before, after = self.before.plan, self.after.plan
        if before is None or after is None:
            return before is None or self.after.refusal != "rejected"
        return after.cache is not None or before.cache is None


class Budgeted(NamedTuple):
    """What a decision is told of the budgets. None: there are none."""

    touched: Touched
    settled: Settled


class Alike:
    """What requests have in common that no rule tells apart."""

    __slots__ = (
        *("asked", "by_user", "call", "charged", "matching", "pairs", "principals", "sized", "task", "tasks"),
        *("touched", "until"),
    )

    def __init__(self, decider: Redecider, row: Row) -> None:
        self.call = RecordedCall(row)
        self.task = decider.task(row, self.call)
        why = row.task_why or ""
        self.tasks = Task(row.task or "", 1.0, why), Task(self.task.label, 1.0, why)
        sides = (decider.before, decider.after)
        self.principals = sides[0].principal(row), sides[1].principal(row)
        self.matching = tuple(
            side.rules.guards.matching(self.call, task, who)
            for side, task, who in zip(sides, self.tasks, self.principals, strict=True)
        )
        self.by_user = any(budget.per == "user" for found in self.matching for budget in found)
        self.pairs: dict[tuple[Any, ...], Pair] = {}  # by what the budgets ask for
        self.sized = False  # prices are compared: requests of other sizes are not alike
        self.touched: list[Touched] = [NOTHING_TOUCHED, NOTHING_TOUCHED]
        self.asked: list[tuple[Touched, int, Action] | None] = [None, None]  # remembered by whoever keeps the books
        self.charged: tuple[dict[Any, tuple[Touch, ...]], ...] = ({}, {})  # by model, on either side
        self.until = [-math.inf, -math.inf]  # what they touch on either side, unix seconds: a window ends then


class Redecider:
    def __init__(self, before: Side, after: Side) -> None:
        self._tasks = Tasks(before.rules, after.rules)
        self.before = before._replace(rules=_unstuck(before.rules))
        self.after = after._replace(rules=_unstuck(after.rules))
        self._looks = _looked_at(before, after)
        self._known: dict[tuple[Any, ...], Alike] = {}
        self._drawn: dict[tuple[Any, ...], Decision] = {}

    def task(self, row: Row, call: RecordedCall) -> Retasked:
        return self._tasks.of(row, call, ours=row.config_hash == self.before.hash)

    def alike(self, row: Row) -> Alike:
        features = self._features(row)
        found = self._known.get(features)
        if found is None:
            found = self._remember(features, row)
        if found.sized:
            features = (*features, row.estimated_input, row.max_output, row.n)
            found = self._known.get(features)
            if found is None:
                found = self._remember(features, row)
        return found

    def pair(
        self, row: Row, alike: Alike, asked: tuple[Any, ...] = (), budgets: tuple[Budgeted, Budgeted] | None = None
    ) -> Pair:
        """`asked`: what the budgets ask for on both sides, as far as it decides; empty: not to be remembered."""
        found = alike.pairs.get(asked)
        if found is None:
            first = _decide(self.before, row, alike.tasks[0], budgets and budgets[0])
            second = _decide(self.after, row, alike.tasks[1], budgets and budgets[1])
            found = Pair(first, second, first.compared == second.compared, alike.task)
            if first.sized or second.sized:
                exact = (*self._features(row), row.estimated_input, row.max_output, row.n)
                if self._known.get(exact) is not alike:
                    alike.sized = True
                    return found
            if asked or budgets is None:
                alike.pairs[asked] = found
        return found

    def drawn(self, row: Row, alike: Alike, draw: int, asked: tuple[Any, ...], budgets: Budgeted | None) -> Decision:
        """The decision after, where it is left to chance, with the dice of this draw."""
        key = (id(alike), asked, draw % DRAWS)
        found = self._drawn.get(key)
        if found is None:
            found = _decide(self.after, row, alike.tasks[1], budgets, draw)
            if asked or budgets is None:
                self._drawn[key] = found
        return found

    def _remember(self, features: tuple[Any, ...], row: Row) -> Alike:
        if len(self._known) >= _REMEMBERED or len(self._drawn) >= _REMEMBERED:
            self._known.clear()
            self._drawn.clear()  # its keys are identities of what is known
        found = self._known[features] = Alike(self, row)
        return found

    def _features(self, row: Row) -> tuple[Any, ...]:
        """All that decisions look at, and nothing that they do not: the fewer there are, the more are alike."""
        looks = self._looks
        limited = row.max_cost_nano is not None
        return (
            row.requested_model,
            row.task,
            row.asked_task,
            row.key if looks.key else None,
            row.team if looks.team else None,
            row.tags if looks.tags else None,
            row.has,
            row.endpoint,
            row.estimated_input if limited else bisect_right(looks.sizes, row.estimated_input),
            (row.max_output, row.n, row.max_cost_nano) if limited else None,
            row.timeout,
            row.started // 60_000_000 if looks.time else None,  # prices change on the minute
            None if self._tasks.same else (row.task_why, row.config_hash),
        )


class _Looks(NamedTuple):
    """What the rules of either side look at."""

    key: bool
    team: bool
    tags: bool
    time: bool  # a price depends on it
    sizes: list[int]  # bounds of the input


def _looked_at(before: Side, after: Side) -> _Looks:
    rules = (before.rules, after.rules)
    matches = [route.match for each in rules for route in each.routes]
    matches += [budget.match for each in rules for budget in each.budgets]
    principals = [who for side in (before, after) for who in side.principals.values()]
    budgets = any(each.budgets for each in rules) or any(who.budgets for who in principals)
    bounds = {each.min_input_tokens or 0 for each in matches}
    bounds |= {each.max_input_tokens + 1 for each in matches if each.max_input_tokens is not None}
    bounds |= {m.context_window + 1 for each in rules for m in each.models.values() if m.context_window is not None}
    bounds |= {c.min_input_tokens or 0 for each in rules for task in each.tasks for c in task.when}
    teams = any(match.team is not None for match in matches)
    tags = any(match.tag is not None for match in matches)
    return _Looks(
        key=budgets
        or any(match.key is not None for match in matches)
        or (teams and before.principals != after.principals)
        or (tags and any(who.tags for who in principals))
        or any(who.allow != ("*",) for who in principals),
        team=budgets or teams,
        tags=tags,
        time=any(
            price.timed
            for each in rules
            for model in each.models.values()
            for price in (model.price, *model.prices.values())
            if price is not None
        ),
        sizes=sorted(bounds),
    )


def _decide(side: Side, row: Row, task: Task, budgets: Budgeted | None, draw: int = 0) -> Decision:
    signals = Signals(roll=_roll(draw), in_flight=_loads(side.rules, draw), now=row.when)
    if budgets is not None:
        signals = signals._replace(touched=budgets.touched, settled=budgets.settled)
    try:
        found = plan(side.rules, RecordedCall(row), task, side.principal(row), signals)
    except GatewayError as error:
        kind = "upstream_error" if isinstance(error, RouteExhausted) else "rejected"
        refusal = "budget" if isinstance(error, QuotaExceeded) else kind
        return Decision(None, refusal, compared=("refused", refusal, error.status, error.code))
    route = _route(side.rules, found.route)
    sized = route.order == "cheapest"
    return Decision(found, "", _compared(found, route), route.order in _DRAWN, sized, route.sticky)


def _route(rules: Rules, name: str) -> Route:
    return next((route for route in rules.routes if route.name == name), rules.direct)


def _compared(found: Plan, route: Route) -> tuple[Any, ...]:
    targets = tuple(target._replace(why="") for target in found.targets)
    policy = (found.fallback_on, found.retries, found.max_attempts, found.total, found.hedge, found.mid_stream)
    return targets, policy, found.baseline, found.clamp, route.order, route.use if route.order == "weighted" else ()


def _unstuck(rules: Rules) -> Rules:
    """The same, where no conversation keeps its model: which requests belong together is not in the ledger."""
    return rules._replace(routes=tuple(route._replace(sticky=False) for route in rules.routes))


def _roll(draw: int) -> float:
    """The dice of a draw, in [0, 1): the middles of `DRAWS` equal parts, in an order that spreads them evenly.

    The bits of the number, reversed (van der Corput's sequence): any stretch of draws is spread over all parts.
    """
    bits = DRAWS.bit_length() - 1
    return (int(f"{draw % DRAWS:0{bits}b}"[::-1], 2) + 0.5) / DRAWS


def _loads(rules: Rules, draw: int) -> Mapping[str, int]:
    """Requests in flight are not known: with each draw another model is the least busy, all of them equally often."""
    if not any(route.order == "least_busy" for route in rules.routes) and rules.direct.order != "least_busy":
        return {}
    return {name: int.from_bytes(blake2b(f"{draw} {name}".encode(), digest_size=4).digest()) for name in rules.models}
