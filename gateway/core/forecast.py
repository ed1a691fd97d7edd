"""What a changed configuration would have done with recorded requests: cost, mix, budgets, and what nobody can know.

`take` is given the requests one by one, in the order of their time. `needs` says beforehand whether it will ask for a
request's attempts, which most do not need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.core.attempts import BUDGET
from gateway.core.books import Books
from gateway.core.budgets import Action, Touch, Touched
from gateway.core.call import Endpoint
from gateway.core.ceiling import Unbounded, ceiling, recorded_bound
from gateway.core.index import price_of
from gateway.core.pricing import price_at
from gateway.core.recorded import RecordedCall, Row, Tried
from gateway.core.redecide import Alike, Budgeted, Decision, Pair, Redecider, Side
from gateway.core.replay import Case, NoRoom, Replayed, replay
from gateway.core.routing import Model, Plan, Target
from gateway.core.tally import UNKNOWNS, Tally, summed, tally_of
from gateway.core.usage import Usage

_KEPT_REFUSALS = frozenset({"auth", "rate_limit", "overload", "too_large"})  # by what is not replayed


class _Moment(NamedTuple):
    """One request under the budgets, as they stand on both sides when it comes."""

    touched: tuple[Touched, Touched]
    asked: tuple[Any, ...]  # what the budgets ask for; empty where that depends on the target
    shared: bool  # the books are the same on both sides


class Forecast:
    """`usual`: by task, output and reasoning tokens of an answer: for requests that have none on record."""

    def __init__(self, before: Side, after: Side, usual: Mapping[str, tuple[int, int]]) -> None:
        self._decider = Redecider(before, after)
        self._usual = usual
        self._before: dict[str, Tally] = {}  # by route: of what goes otherwise after
        self._after: dict[str, Tally] = {}
        self._same: dict[tuple[str, str], Tally] = {}  # by route before and after: of what goes as it went
        self.unknown = dict.fromkeys(UNKNOWNS, 0)  # requests that each of them concerns
        self.changed = 0  # requests that were lived through again
        books = Books(before.rules, before.principals), Books(after.rules, after.principals)
        self.budgets = bool(books[0].budgets or books[1].budgets)
        same = books[0].budgets == books[1].budgets and before.principals == after.principals
        # While nothing has come out otherwise, both sides have the same books.
        self._books = (books[0], books[0] if same and self.budgets else books[1])
        self._second = books[1]
        self._models: dict[tuple[str, str, str], Model] = {}
        self._number = 0

    @property
    def before(self) -> dict[str, Tally]:
        """By route; "" where there was none."""
        return summed(self._before, [(route, each) for (route, _), each in self._same.items()])

    @property
    def after(self) -> dict[str, Tally]:
        return summed(self._after, [(route, each) for (_, route), each in self._same.items()])

    def begins(self, since: float) -> float:
        """From when on the forecast has to hear of what was spent, unix seconds: budgets' windows began before."""
        return min(books.begins(since) for books in self._books)

    def spent(self, row: Row, tried: Sequence[Tried]) -> None:
        """A request from before the period."""
        alike = self._decider.alike(row)
        self._settle_recorded(row, tried, (alike, self._moment(row, alike)), both=True)

    def needs(self, row: Row) -> bool:
        return self.budgets or not self._kept(row, (), self._pair(row, self._decider.alike(row), None), None)

    def take(self, row: Row, tried: Sequence[Tried]) -> None:
        self._number += 1
        alike = self._decider.alike(row)
        moment = self._moment(row, alike) if self.budgets else None
        pair = self._pair(row, alike, moment)
        self._remark(row, pair)
        if self._kept(row, tried, pair, moment):
            tally_of(self._same, (row.route or "", self._route_after(row, pair) or "")).recorded(row)
            if moment is not None:
                self._settle_recorded(row, tried, (alike, moment), both=True)
            return
        assert pair is not None
        tally_of(self._before, row.route or "").recorded(row)
        self.changed += 1
        self._part()
        self._again(row, tried, (alike, pair), moment)
        if moment is not None:
            self._settle_recorded(row, tried, (alike, moment), both=False)

    # The decision.

    def _moment(self, row: Row, alike: Alike) -> _Moment:
        first, second = self._books
        now = row.when
        first.forget(now)
        touched = self._touched(0, row, alike, now)
        if second is first and alike.tasks[0].label == alike.tasks[1].label:
            asked: tuple[Any, ...] = () if touched.of_target else (self._asked(0, alike, touched),)
            return _Moment((touched, touched), asked, True)
        second.forget(now)
        other = self._touched(1, row, alike, now)
        by_target = bool(touched.of_target or other.of_target)
        asked = () if by_target else (self._asked(0, alike, touched), self._asked(1, alike, other))
        return _Moment((touched, other), asked, False)

    def _asked(self, side: int, alike: Alike, touched: Touched) -> Action:
        """What the budgets ask for; the same until some account comes to a threshold."""
        books = self._books[side]
        known = alike.asked[side]
        if known is not None and known[0] is touched and known[1] == books.crossings:
            return known[2]
        found = books.asked(touched)
        alike.asked[side] = (touched, books.crossings, found)
        return found

    def _touched(self, side: int, row: Row, alike: Alike, now: float) -> Touched:
        if now < alike.until[side]:
            return alike.touched[side]
        who, call = alike.principals[side], alike.call
        if alike.by_user:
            decider = self._decider
            who, call = (decider.after if side else decider.before).principal(row), RecordedCall(row)
        found = self._books[side].touched(alike.matching[side], call, alike.tasks[side], who, now)
        if not alike.by_user and not found.of_target:
            alike.touched[side] = found
            alike.charged[side].clear()
            alike.until[side] = min((touch.ends for touch in found.of_request), default=math.inf)
        return found

    def _pair(self, row: Row, alike: Alike, moment: _Moment | None) -> Pair | None:
        """None: it was refused for a reason that is not replayed, or was none that could be decided on."""
        if not row.requested_model or row.rejection in _KEPT_REFUSALS:
            return None
        if moment is None:
            return self._decider.pair(row, alike)
        found = alike.pairs.get(moment.asked) if moment.asked else None
        return found or self._decider.pair(row, alike, moment.asked, self._given(moment))

    def _given(self, moment: _Moment) -> tuple[Budgeted, Budgeted]:
        (first, second), (before, after) = moment.touched, self._books
        return Budgeted(first, before.settled), Budgeted(second, after.settled)

    def _kept(self, row: Row, tried: Sequence[Tried], pair: Pair | None, moment: _Moment | None) -> bool:
        """Whether it goes as it went."""
        if pair is None or row.free:
            return True
        if row.given_again:
            return pair.spares
        if row.outcome == "rejected" and row.rejection != BUDGET and pair.before.plan is not None:
            return True  # refused by something else than the rules
        if row.outcome == "cancelled" and not row.model:
            return True  # the client did not even wait for the first attempt
        if moment is None or moment.shared or not pair.same:
            return pair.same
        first, second = moment.touched
        if first.of_target or second.of_target:
            return False
        if row.rejection == BUDGET:
            return self._still_short(row.budget or "", first, second)
        if [(each.account, each.budget.counts) for each in first.of_request] != [
            (each.account, each.budget.counts) for each in second.of_request
        ]:
            return False
        before, after = self._books
        if not second.of_request or _covered(tried, after.left(second.of_request)[0]):
            return True
        pairs = zip(before.standing(first), after.standing(second), strict=True)
        return all(now >= then for then, now in pairs)

    def _still_short(self, budget: str, first: Touched, second: Touched) -> bool:
        """Whether a budget that refused has no more left than it had."""
        before, after = self._books
        then = [left for each, left in zip(first.of_request, before.standing(first), strict=True)
                if each.budget.name == budget]  # fmt: skip
        now = [left for each, left in zip(second.of_request, after.standing(second), strict=True)
               if each.budget.name == budget]  # fmt: skip
        return len(then) == len(now) == 1 and now[0] <= then[0]

    def _route_after(self, row: Row, pair: Pair | None) -> str | None:
        if pair is None or pair.before.plan is None or pair.after.plan is None:
            return row.route
        renamed = pair.after.plan.route != pair.before.plan.route
        return pair.after.plan.route if renamed else row.route

    # Living through it again.

    def _again(self, row: Row, tried: Sequence[Tried], decided: tuple[Alike, Pair], moment: _Moment | None) -> None:
        alike, pair = decided
        decision = pair.after
        if decision.drawn and not pair.same:
            self.unknown["drawn"] += 1
            asked, budgets = ((), None) if moment is None else (moment.asked, self._given(moment)[1])
            decision = self._decider.drawn(row, alike, self._number, asked, budgets)
        if decision.plan is None:
            route = pair.after.plan.route if pair.after.plan is not None else row.route
            outcome = "upstream_error" if decision.refusal == "upstream_error" else "rejected"
            tally_of(self._after, route or "").replayed(Replayed(outcome, by_budget=decision.refusal == BUDGET))
            return
        till = None if moment is None else _Till(self._books[1], moment.touched[1], decision.plan, row)
        plan = _as_drawn(decision.plan, tried) if pair.same and decision.drawn else decision.plan
        passed = self._passed_over(row, tried, pair.before, moment)
        case = Case(row, tried, self._usage_of, self._same_price, passed)
        told = replay(plan, case, till)
        told = self._same_baseline(row, pair, decision, told)
        tally_of(self._after, plan.route).replayed(told)
        self._remark_replayed(pair, case, told, budgeted=till is not None and till.used)

    def _same_baseline(self, row: Row, pair: Pair, decision: Decision, told: Replayed) -> Replayed:
        """What did not change is taken from the row, whatever its price was then."""
        before, after = pair.before.plan, decision.plan
        if told.baseline is None or told.assumed or before is None or after is None or not row.baseline_model:
            return told
        same = before.baseline == after.baseline and row.outcome == told.outcome
        return told._replace(baseline=row.baseline_nano) if same else told

    def _usage_of(self, row: Row) -> Usage:
        if row.endpoint == Endpoint.EMBEDDINGS.value:
            return Usage(input=row.estimated_input, estimated=True)
        output, reasoning = self._usual.get(row.task or "", (512, 0))
        most = row.max_output or output + reasoning
        output, reasoning = min(output, most), min(reasoning, max(most - output, 0))
        made = row.n or 1
        return Usage(row.estimated_input, output=output * made, reasoning=reasoning * made, estimated=True)

    def _passed_over(
        self, row: Row, tried: Sequence[Tried], before: Decision, moment: _Moment | None
    ) -> frozenset[str]:
        """Models that were not to be had at that moment: out of order, or busy."""
        plan = before.plan
        if plan is not None and row.rejection == BUDGET and not tried and moment is not None:
            # What no budget could refuse was not there.
            models = [target.model for target in plan.targets]
            return frozenset(each.name for each in models if not moment.touched[0].by(plan.route, each))
        ours = row.config_hash == self._decider.before.hash
        if plan is None or not ours or row.rejection or any(each.reason == BUDGET for each in tried):
            return frozenset()
        asked = {each.model for each in tried}
        if len(asked) == 1 and plan.targets[0].model.name in asked and row.outcome == "ok":
            return frozenset()  # the first was there
        order = [target.model.name for target in plan.targets]
        if not asked <= set(order):
            return frozenset()
        if _exhausted(row, tried, plan):
            return frozenset(order) - asked
        if not tried or before.drawn or before.sticky or "tools" in row.has:
            return frozenset()  # chance, or the conversation, may have decided on the order
        return frozenset(order[: max(map(order.index, asked))]) - asked

    def _same_price(self, target: Target, row: Row) -> bool:
        rules = self._decider.before.rules
        model = rules.models.get(target.model.name)
        if model is None:
            return False
        price = price_of(model, target.upstream_name)
        return price_at(price, row.when) == target.price

    # The books.

    def _part(self) -> None:
        """From here on both sides have books of their own."""
        first, second = self._books
        if self.budgets and second is first:
            self._second.copied_from(first)
            self._books = (first, self._second)

    def _settle_recorded(self, row: Row, tried: Sequence[Tried], now: tuple[Alike, _Moment], *, both: bool) -> None:
        first, second = self._books
        for each in tried:
            if each.cost_nano:
                first.settle(self._charged(0, row, each, now), each.cost_nano)
                if both and second is not first:
                    second.settle(self._charged(1, row, each, now), each.cost_nano)

    def _charged(self, side: int, row: Row, each: Tried, now: tuple[Alike, _Moment]) -> tuple[Touch, ...]:
        """The accounts that a recorded attempt is charged to."""
        alike, moment = now
        touched = moment.touched[side]
        if touched is not alike.touched[side]:
            return touched.by(row.route or "", self._model(each))
        known = alike.charged[side]
        key = (each.model, each.provider, each.hosting)
        found = known.get(key)
        if found is None:
            found = known[key] = touched.by(row.route or "", self._model(each))
        return found

    def _model(self, each: Tried) -> Model:
        """As it was charged then."""
        key = (each.model, each.provider, each.hosting)
        found = self._models.get(key)
        if found is None:
            found = Model(each.model, each.provider, each.model, hosting="self" if each.hosting == "self" else "api")
            self._models[key] = found
        return found

    # What cannot be known.

    def _remark(self, row: Row, pair: Pair | None) -> None:
        unknown = self.unknown
        if row.config_hash != self._decider.before.hash:
            unknown["other_configuration"] += 1
        if row.n is None:
            unknown["old_rows"] += 1
        if pair is not None and not pair.task.known:
            unknown["task"] += 1
        if pair is None and row.rejection:
            unknown["refused"] += 1
        if pair is not None and pair.recached and not row.given_again and not row.free:
            unknown["cached"] += 1

    def _remark_replayed(self, pair: Pair, case: Case, told: Replayed, *, budgeted: bool) -> None:
        unknown = self.unknown
        unknown["other_model"] += told.assumed and not told.estimated
        unknown["no_answer"] += told.estimated
        unknown["hedged"] += told.raced or (
            pair.after.plan is not None and pair.after.plan.hedge is not None and told.assumed
        )
        unknown["sticky"] += pair.after.sticky
        unknown["passed_over"] += bool(case.passed)
        unknown["under_way"] += budgeted


class _Till:
    """Attempts of one request, charged to the budgets after the change."""

    def __init__(self, books: Books, touched: Touched, plan: Plan, row: Row) -> None:
        self._books = books
        self._touched = touched
        self._plan = plan
        self._row = row
        self.used = False

    def room(self, target: Target, reserved: int | None) -> NoRoom | None:
        touches = self._touches(target)
        if not touches:
            return None
        self.used = True
        left, tightest = self._books.left(touches)
        if reserved is None:
            call = RecordedCall(self._row)
            read = recorded_bound(call, call.size, target)
            bound = ceiling(call, target, left, None, clamp=self._plan.clamp, read=read)
            if isinstance(bound, Unbounded):
                return NoRoom(bound.code, touches[0].budget.name)
            reserved = bound.nano
        return NoRoom("insufficient_quota", tightest.budget.name) if reserved > left else None

    def settle(self, target: Target, nano: int) -> None:
        self._books.settle(self._touches(target), nano)

    def _touches(self, target: Target) -> tuple[Touch, ...]:
        return self._touched.by(self._plan.route, target.model)


def _exhausted(row: Row, tried: Sequence[Tried], plan: Plan) -> bool:
    """Whether it failed because nobody else was there, not because it had to end."""
    if row.outcome != "upstream_error" or len(tried) >= plan.max_attempts or (row.no_fallback and tried):
        return False
    last = tried[-1] if tried else None
    if last is not None and (last.kind not in plan.fallback_on or last.purpose == "answer"):
        return False
    return sum(each.duration for each in tried) < plan.total


def _covered(tried: Sequence[Tried], least: int) -> bool:
    """Whether all that was held for a request still fits, each beside the others."""
    held = 0
    for each in tried:
        if each.reserved_nano is not None:
            held += max(each.reserved_nano, each.cost_nano)
        elif each.hosting != "self":
            return False  # nobody knows: its budgets are new
    return held <= least


def _as_drawn(plan: Plan, tried: Sequence[Tried]) -> Plan:
    """The targets in the order that chance gave them then, as far as they were tried."""
    order = list(dict.fromkeys(each.model for each in tried))
    place = {name: at for at, name in enumerate(order)}
    return plan._replace(targets=tuple(sorted(plan.targets, key=lambda each: place.get(each.model.name, len(place)))))
