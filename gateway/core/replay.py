"""A recorded request lived through again under another plan: `next_step` decides, the recorded attempts answer.

What a model did then it does again: it fails with the same kind at the same cost, or answers with the same usage. Of a
model that was not asked then nothing is known: it is taken to answer, with the usage that was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from gateway.core.attempts import Continue, Fail, Past, Try, Wait, next_step
from gateway.core.failures import RELAYED, Kind
from gateway.core.hedging import HEDGE
from gateway.core.pieces import priced
from gateway.core.pricing import baseline_cost, cost, price_at
from gateway.core.recorded import Row, Tried
from gateway.core.routing import Plan, Target
from gateway.core.usage import Usage, together

NOTHING = Usage()
_DICE = 0.5  # for the pauses between retries: the middle of what they may be


class NoRoom(NamedTuple):
    """No budget has room for an attempt."""

    code: str
    budget: str


class Till(Protocol):
    """Where attempts are paid for."""

    def room(self, target: Target, reserved: int | None) -> NoRoom | None:
        """`reserved`: nano-USD that were held for this model then; None: unknown."""

    def settle(self, target: Target, nano: int) -> None: ...


class Case(NamedTuple):
    """What is known of the request."""

    row: Row
    tried: Sequence[Tried]
    usual: Callable[[Row], Usage]  # of an answer, where none was recorded
    same_price: Callable[[Target, Row], bool]  # whether it is what it was before the change
    passed: frozenset[str] = frozenset()  # models that were not to be had at that moment


class Replayed(NamedTuple):
    outcome: str = "upstream_error"
    model: str = ""  # that answered, or was tried last
    by_budget: bool = False  # rejected by one
    cost: int = 0  # nano-USD
    baseline: int | None = None  # None: none applies
    unpriced: bool = False
    assumed: bool = False  # a model was asked of which nothing is known
    estimated: bool = False  # no answer was recorded at all: how long it is was guessed
    raced: bool = False  # a recorded race could not be run again as it was


class _Met(NamedTuple):
    """What a target did."""

    usage: Usage
    cost: int
    result: str = "ok"
    kind: Kind | None = None
    committed: bool = False
    duration: float = 0.0
    status: int | None = None
    retry_after: float | None = None


def replay(plan: Plan, case: Case, till: Till | None) -> Replayed:
    if case.passed:
        targets = tuple(target for target in plan.targets if target.model.name not in case.passed)
        if not targets:  # nobody was there
            return Replayed()
        plan = plan._replace(targets=targets)
    return _Story(plan, case, till).told()


class _Story:
    def __init__(self, plan: Plan, case: Case, till: Till | None) -> None:
        self._plan = plan
        self._case = case
        self._till = till
        self._now = 0.0
        self._history: list[Past] = []
        self._cost = 0
        self._usage = NOTHING
        self._speaker: Target | None = None
        self._answered = False
        self._outcome = ""
        self._by_budget = self._unpriced = self._assumed = self._estimated = False
        self._worth = (1, 1)  # what an answer had cost, to what its estimate costs
        self._left: dict[str, list[Tried]] = {}  # by model: attempts that have not been lived through again
        for each in case.tried:
            if each.purpose != HEDGE:
                self._left.setdefault(each.model, []).append(each)

    def told(self) -> Replayed:
        raced = any(each.reason == HEDGE for each in self._case.tried)
        again = raced and self._race()
        no_fallback = bool(self._case.row.no_fallback)
        while not self._outcome:
            step = next_step(self._plan, self._history, started=0.0, now=self._now, no_fallback=no_fallback, roll=_DICE)
            match step:
                case Try() | Continue():
                    self._attempt(step.target)
                case Wait(seconds):
                    self._now += seconds
                case Fail():
                    self._give_up(step)
        return Replayed(
            self._outcome,
            self._speaker.model.name if self._speaker is not None else "",
            self._by_budget,
            self._cost,
            self._baseline(),
            self._unpriced,
            self._assumed,
            self._estimated,
            raced and not again,
        )

    def _race(self) -> bool:
        """Runs a recorded race again, where the plan still has both for it. False: it has not."""
        plan, tried = self._plan, self._case.tried
        second = next(each for each in tried if each.reason == HEDGE)
        first = next((each for each in tried if each.reason != HEDGE), None)
        names = [target.model.name for target in plan.targets[:2]]
        if plan.hedge is None or first is None or names != [first.model, second.model]:
            return False
        racers = [each for each in tried if each is first or each is second]  # in the order of their ends
        for each in racers:
            index = 1 if each is second else 0
            self._meet(index, self._recorded(plan.targets[index], each))
            if each in self._left.get(each.model, ()):
                self._left[each.model].remove(each)
        return True

    def _attempt(self, index: int) -> None:
        target = self._plan.targets[index]
        known = self._left.get(target.model.name)
        if self._till is not None:
            held = next((each.reserved_nano for each in known or () if each.reserved_nano is not None), None)
            if held is not None and not self._case.same_price(target, self._case.row):
                held = None
            refused = self._till.room(target, held)
            if refused is not None:
                self._history.append(self._not_tried(index, refused))
                return
        if known:
            # Tries beyond those recorded go like the last of them.
            self._meet(index, self._recorded(target, known.pop(0) if len(known) > 1 else known[0]))
        else:
            self._assumed = True
            self._meet(index, self._guessed(target))

    def _meet(self, index: int, met: _Met) -> None:
        target = self._plan.targets[index]
        self._cost += met.cost
        self._unpriced = self._unpriced or (priced(met.usage, target.price) is None and met.usage != NOTHING)
        if self._till is not None:
            self._till.settle(target, met.cost)
        if met.result == HEDGE:  # it lost the race
            return
        self._speaker = target
        self._now += met.duration
        if met.committed:
            self._usage = together(self._usage, met.usage)
        if met.kind is None:
            self._answered = met.result == "ok"
            self._outcome = {"ok": "ok", "relayed": "client_error"}.get(met.result, "cancelled")
            return
        goes_on = met.committed and self._followed(met)
        self._history.append(
            Past(index, met.kind, "", self._now, met.status, met.retry_after, met.committed, resumable=goes_on)
        )

    def _followed(self, met: _Met) -> bool:
        """Whether the answer that broke off was continued then: so it could be."""
        last = self._case.tried[-1]
        return met.kind is not None and not (last.kind is met.kind and last.purpose == "answer")

    def _recorded(self, target: Target, each: Tried) -> _Met:
        usage = each.usage
        result = HEDGE if each.purpose == HEDGE else each.result
        return _Met(
            usage,
            each.cost_nano if self._case.same_price(target, self._case.row) else _priced(usage, target),
            result,
            each.kind if each.purpose != HEDGE else None,
            each.purpose == "answer" and each.result != "relayed",
            each.duration,
            each.status,
            each.retry_after,
        )

    def _guessed(self, target: Target) -> _Met:
        row = self._case.row
        if row.outcome == "client_error":  # the request's own fault, which it would be elsewhere too
            return _Met(NOTHING, 0, "relayed")
        usage = row.usage if row.outcome in ("ok", "cancelled") else NOTHING
        if usage == NOTHING and row.outcome == "cancelled":
            usage = self._case.tried[-1].usage if self._case.tried else NOTHING
        if usage == NOTHING and row.outcome != "cancelled":
            self._estimated = True
            usage = self._case.usual(row)
        result = "cancelled" if row.outcome == "cancelled" else "ok"
        nano = _priced(usage, target)
        known = row.cache_saved_nano if row.given_again and target.model.name == row.model else None
        if known and self._case.same_price(target, row):  # better known than how long it was
            self._worth = (known, nano) if nano else self._worth
            nano = known
        return _Met(usage, nano, result, committed=True)

    def _not_tried(self, index: int, refused: NoRoom) -> Past:
        committed = bool(self._history) and self._history[-1].committed
        return Past(
            *(index, Kind.RATE_LIMITED, "", self._now, None, None, committed, committed),
            skipped="no room in a budget",
            code=refused.code,
            budget=refused.budget,
        )

    def _give_up(self, end: Fail) -> None:
        last = self._history[-1] if self._history else None
        if last is not None and last.kind in RELAYED and not last.committed and not last.skipped:
            self._outcome = "client_error"
        elif end.status < 500:
            self._outcome, self._by_budget = "rejected", True
        elif end.code == "overloaded":
            self._outcome = "rejected"
        else:
            self._outcome = "upstream_error"

    def _baseline(self) -> int | None:
        """As when it is served (contract section 5)."""
        baseline = self._plan.baseline
        if not self._answered or self._unpriced or baseline is None or baseline.price is None:
            return None
        if self._speaker is None or self._speaker.price is None:
            return None
        price = price_at(baseline.price, self._case.row.when)
        if price is None:
            return None
        had_cost, estimated = self._worth
        return baseline_cost(self._usage, price) * had_cost // estimated


def _priced(usage: Usage, target: Target) -> int:
    price = priced(usage, target.price)
    return cost(usage, price) if price is not None else 0
