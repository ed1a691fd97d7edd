"""Budgets: which ones a call touches, in which window, and what their thresholds ask for (contract section 3).

Vocabulary: a **budget** is an entry of routes.yaml; an **account** is one of its scopes in one window, to which money
is booked; a call **touches** accounts; a **verdict** is what the thresholds passed so far ask for.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Literal, NamedTuple

from gateway.core.call import Call, Principal
from gateway.core.rules import Match, Model
from gateway.core.scopes import ALL, ByCaller, GuardIndex, Scope, scope_of
from gateway.core.tasks import Task

OF_THE_REQUEST = frozenset({"", "key", "team", "user", "task"})  # scopes that are known before a route is
OTHER = "other"  # the scope of users beyond `MOST_USERS`
MOST_USERS = 10_000  # scopes of one budget in one window: `user` may be the client's own word


class Action(IntEnum):
    """What a threshold does, the mildest first."""

    ALLOW = 0
    ALERT = 1
    PREFER_SELF_HOSTED = 2
    SELF_HOSTED_ONLY = 3
    REJECT = 4

    @property
    def word(self) -> str:
        """As routes.yaml writes it."""
        return self.name.lower()


class Threshold(NamedTuple):
    percent: int  # of the limit, by settled spend; 1 to 100
    action: Action


class Window(NamedTuple):
    """Calendar-aligned. A daylight saving day has 23 or 25 hours, and the hour that comes twice is two windows."""

    kind: Literal["hour", "day", "week", "month", "total"] = "month"
    zone: datetime.tzinfo = datetime.UTC

    def bounds(self, now: float) -> tuple[float, float]:
        """Start and end in unix seconds of the window that `now` falls into; weeks begin on Monday (ISO 8601)."""
        if self.kind == "total":
            return 0.0, math.inf
        local = datetime.datetime.fromtimestamp(now, self.zone)
        if self.kind == "hour":
            # By the offset in force, not by the local clock: it tells the two hours of an autumn night apart.
            offset = (local.utcoffset() or datetime.timedelta()).total_seconds()
            start = (now + offset) // 3600 * 3600 - offset
            return start, start + 3600
        first = local.date()
        if self.kind == "week":
            first -= datetime.timedelta(days=first.weekday())
        elif self.kind == "month":
            first = first.replace(day=1)
        return self._midnight(first), self._midnight(self._after(first))

    def name(self, start: float) -> str:
        """The window that begins at `start` (unix seconds), for accounts and people."""
        if self.kind == "total":
            return self.kind
        return f"{self.kind} {datetime.datetime.fromtimestamp(start, self.zone).isoformat()}"

    def _after(self, first: datetime.date) -> datetime.date:
        if self.kind == "month":
            return (first + datetime.timedelta(days=31)).replace(day=1)
        return first + datetime.timedelta(days=7 if self.kind == "week" else 1)

    def _midnight(self, day: datetime.date) -> float:
        """Where midnight does not exist (a clock set forward at 00:00), the moment of the change."""
        return datetime.datetime.combine(day, datetime.time(), self.zone).timestamp()


def began(name: str) -> float:
    """When a window began, in unix seconds, by the name that `Window.name` gave it; 0 for `total`."""
    _, _, start = name.partition(" ")
    return datetime.datetime.fromisoformat(start).timestamp() if start else 0.0


class Budget(NamedTuple):
    name: str
    limit_nano: int  # nano-USD in one window
    window: Window = Window()
    match: Match = Match()
    per: Scope = ""
    counts: Literal["api", "all"] = "api"  # all: self-hosted models at their rate too
    at: tuple[Threshold, ...] = (Threshold(100, Action.REJECT),)  # ascending; never empty

    def action(self, settled_nano: int) -> Action:
        """What the highest threshold that was reached asks for; the strictest of those reached."""
        strictest = Action.ALLOW
        for percent, action in self.at:
            if settled_nano * 100 < percent * self.limit_nano:
                break
            strictest = max(strictest, action)
        return strictest


class Account(NamedTuple):
    """The identity of one balance: a changed window, zone or `per` is another account, a changed limit is not."""

    budget: str
    scope: str  # "all", or the value after `per`
    window: str  # "month 2026-11-01T00:00:00+01:00", "total": its kind and start


class Touch(NamedTuple):
    """A budget, and the account of it that a call is charged to."""

    budget: Budget
    account: Account
    ends: float = math.inf  # unix seconds: when its window does


class Balance(NamedTuple):
    """Nano-USD. `reserved`: held for calls under way, and slices that workers have leased."""

    settled: int = 0
    reserved: int = 0


class _Period(NamedTuple):
    """A budget's window in force."""

    budget: Budget
    start: float  # unix seconds
    end: float
    window: str  # as in its accounts
    touches: dict[str, Touch]  # by scope


Settled = Callable[[Account], int]
"""What is settled of an account, nano-USD."""


class Periods:
    """The windows in force, remembered until they end: calendars are too slow for every request."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, _Period] = {}  # by the budget's name

    def touch(self, budget: Budget, scope: str, now: float) -> Touch:
        """`scope`: what the account's `per` is worth; any text where the budget has no `per`."""
        period = self.at(budget, now)
        if not budget.per:
            scope = ALL
        touch = period.touches.get(scope)
        if touch is None:
            if len(period.touches) >= MOST_USERS:  # `scope` may be the client's own word
                period.touches.clear()
            account = Account(budget.name, f"{budget.per} {scope}" if budget.per else ALL, period.window)
            touch = period.touches[scope] = Touch(budget, account, period.end)
        return touch

    def at(self, budget: Budget, now: float) -> _Period:
        period = self._known.get(budget.name)
        if (
            period is None
            or not period.start <= now < period.end
            or not (period.budget is budget or period.budget == budget)
        ):
            start, end = budget.window.bounds(now)
            period = self._known[budget.name] = _Period(budget, start, end, budget.window.name(start), {})
        return period


class Touched(NamedTuple):
    """What a request touches, whichever target serves it, and the budgets whose scope is the target's."""

    of_request: tuple[Touch, ...] = ()
    of_machines: tuple[Touch, ...] = ()  # those of them that self-hosted models are charged to as well
    of_target: tuple[Budget, ...] = ()  # `per: route | model | provider`
    now: float = 0.0  # unix seconds: the windows in force at this moment admit the call
    periods: Periods | None = None

    def by(self, route: str, model: Model) -> tuple[Touch, ...]:
        """The accounts that an attempt on `model` is charged to."""
        found = self.of_machines if model.hosting == "self" else self.of_request
        if not self.of_target or self.periods is None:
            return found
        scopes = {"route": route, "model": model.name, "provider": model.provider}
        targets = (budget for budget in self.of_target if counts(budget, model))
        return found + tuple(self.periods.touch(budget, scopes[budget.per], self.now) for budget in targets)


NOTHING_TOUCHED = Touched()


def counts(budget: Budget, model: Model) -> bool:
    """Whether a model's cost is charged to a budget."""
    return budget.counts == "all" or model.hosting != "self"


class Verdict(NamedTuple):
    action: Action = Action.ALLOW
    touch: Touch | None = None  # the budget that asks for it


NO_VERDICT = Verdict()


def verdict(touches: Iterable[Touch], settled: Settled) -> Verdict:
    """The strictest of what the touched budgets ask for."""
    strictest = NO_VERDICT
    for touch in touches:
        action = touch.budget.action(settled(touch.account))
        if action > strictest.action:
            strictest = Verdict(action, touch)
    return strictest


class _InForce(NamedTuple):
    """What a caller touches while no window of it ends. Unix seconds."""

    touched: Touched
    start: float
    end: float


class BudgetIndex:
    """Which budgets a request touches."""

    def __init__(self, budgets: Sequence[Budget]) -> None:
        self._index = GuardIndex(budgets)
        self._periods = Periods()
        self._callers = ByCaller[_InForce](budgets)

    def touched(self, call: Call, task: Task, principal: Principal, now: float) -> Touched:
        """Asked for every request; a replay asks `matching` once for many that are alike."""
        known = self._callers.get(call, task, principal)
        if known is not None and known.start <= now < known.end:
            return known.touched
        matching = self.matching(call, task, principal)
        found = self.touch(matching, call, task, principal, now)
        if self._callers.remembers:
            periods = [self._periods.at(budget, now) for budget in matching]
            start = max((period.start for period in periods), default=-math.inf)
            end = min((period.end for period in periods), default=math.inf)
            self._callers.put(call, task, principal, _InForce(found, start, end))
        return found

    def matching(self, call: Call, task: Task, principal: Principal) -> list[Budget]:
        """`principal.budgets` are the key's own, which match whatever it asks."""
        return [*self._index.matching(call, task, principal), *principal.budgets]

    def touch(self, found: Sequence[Budget], call: Call, task: Task, principal: Principal, now: float) -> Touched:
        """`found`: what `matching` says."""
        if not found:
            return NOTHING_TOUCHED
        touch = self._periods.touch
        of_request: list[Touch] = []
        rest: list[Budget] = []
        for budget in found:
            per = budget.per
            if per in OF_THE_REQUEST:
                of_request.append(touch(budget, scope_of(per, call, task, principal) if per else ALL, now))
            else:
                rest.append(budget)
        of_machines = tuple([touch for touch in of_request if touch.budget.counts == "all"])
        return Touched(tuple(of_request), of_machines, tuple(rest), now, self._periods)
