"""Budgets in a replay: what is settled in every account when recorded calls come one after another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from gateway.core.budgets import (
    MOST_USERS,
    NOTHING_TOUCHED,
    OTHER,
    Account,
    Action,
    Budget,
    Touch,
    Touched,
    verdict,
)
from gateway.core.call import Call, Principal
from gateway.core.routing import Rules
from gateway.core.tasks import Task

_PRUNED = 4096  # settlements between two looks for windows that have ended


class Books:
    """One configuration's budgets. Accounts of windows that have ended are forgotten."""

    def __init__(self, rules: Rules, principals: Mapping[str, Principal]) -> None:
        self._guards = rules.guards
        self.budgets: tuple[Budget, ...] = rules.budgets + tuple(
            budget for _, each in sorted(principals.items()) for budget in each.budgets
        )
        # Nano-USD, when its window ends, and the next amount at which a threshold is crossed.
        self._settled: dict[Account, tuple[int, float, float]] = {}
        self.crossings = 0  # of thresholds so far: while there is no more, the budgets ask for what they asked for
        self._users: dict[tuple[str, str], int] = {}  # by budget and window: scopes told apart
        self._until_pruned = _PRUNED

    def begins(self, now: float) -> float:
        """When the earliest of the windows in force at `now` began, unix seconds; `now` without budgets."""
        return min((budget.window.bounds(now)[0] for budget in self.budgets), default=now)

    def copied_from(self, other: Books) -> None:
        """Takes over what is settled in another's accounts, where the budgets are the same."""
        self._settled = dict(other._settled)
        self.crossings = other.crossings + 1
        self._users = dict(other._users)

    def touched(self, matching: Sequence[Budget], call: Call, task: Task, principal: Principal, now: float) -> Touched:
        return self._guards.touch(matching, call, task, principal, now) if matching else NOTHING_TOUCHED

    def settled(self, account: Account) -> int:
        return self._spent(account)

    def _spent(self, account: Account) -> int:
        found = self._settled.get(account)
        if found is None and account.scope.startswith("user "):
            found = self._settled.get(_shared(account))
        return 0 if found is None else found[0]

    def asked(self, touched: Touched) -> Action:
        """The strictest that the request's own budgets ask for."""
        return verdict(touched.of_request, self.settled).action

    def standing(self, touched: Touched) -> list[int]:
        """What is left in the request's own accounts, nano-USD."""
        return [touch.budget.limit_nano - self._spent(touch.account) for touch in touched.of_request]

    def left(self, touches: Sequence[Touch]) -> tuple[int, Touch]:
        """Nano-USD in the tightest of the budgets, and which it is."""
        tightest = touches[0]
        least = tightest.budget.limit_nano - self._spent(tightest.account)
        for touch in touches[1:]:
            left = touch.budget.limit_nano - self._spent(touch.account)
            if left < least:
                least, tightest = left, touch
        return least, tightest

    def settle(self, touches: Iterable[Touch], nano: int) -> None:
        for touch in touches:
            account = self._own(touch)
            known = self._settled.get(account)
            if known is not None and known[0] + nano < known[2]:
                self._settled[account] = (known[0] + nano, known[1], known[2])
                continue
            settled = nano if known is None else known[0] + nano
            self.crossings += 1
            self._settled[account] = (settled, touch.ends, _next_threshold(touch.budget, settled))

    def _own(self, touch: Touch) -> Account:
        """The account it is booked to: users beyond the most that are told apart share one."""
        account = touch.account
        if touch.budget.per != "user" or account in self._settled:
            return account
        window = (account.budget, account.window)
        told_apart = self._users.get(window, 0)
        if told_apart >= MOST_USERS:
            return _shared(account)
        self._users[window] = told_apart + 1
        return account

    def forget(self, now: float) -> None:
        """Drops what has ended, every so many calls."""
        self._until_pruned -= 1
        if self._until_pruned <= 0:
            self._until_pruned = max(_PRUNED, len(self._settled))
            self._settled = {account: each for account, each in self._settled.items() if each[1] > now}
            in_force = {(account.budget, account.window) for account in self._settled}
            self._users = {window: count for window, count in self._users.items() if window in in_force}


def _next_threshold(budget: Budget, settled: int) -> float:
    amounts = (-(-each.percent * budget.limit_nano // 100) for each in budget.at)
    return min((amount for amount in amounts if amount > settled), default=math.inf)


def _shared(account: Account) -> Account:
    return account._replace(scope=f"user {OTHER}")
