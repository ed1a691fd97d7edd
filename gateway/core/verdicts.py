"""What the budgets' thresholds do to a route's targets: reorder, filter or refuse them (contract section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.core.budgets import Action, Settled, Touch, Touched, Verdict, verdict
from gateway.core.rules import Skipped, Target
from gateway.errors import QuotaExceeded


class Ruling(NamedTuple):
    targets: list[Target]
    skipped: list[Skipped]
    verdict: Verdict  # the strictest that was asked for, by the request's budgets or by those of a target left out


def ruled(route: str, targets: Sequence[Target], touched: Touched, settled: Settled) -> Ruling:
    """The targets that are left, self-hosted ones first where a budget prefers them, and why others are not."""
    overall = verdict(touched.of_request, settled)
    if overall.action < Action.PREFER_SELF_HOSTED and not touched.of_target:
        return Ruling(list(targets), [], overall)
    kept: list[Target] = []
    dear: list[Target] = []  # not self-hosted, where that is preferred
    skipped: list[Skipped] = []
    strictest = overall
    for target in targets:
        asked = overall
        if touched.of_target:
            own = verdict(touched.by(route, target.model), settled)
            asked = own if own.action > overall.action else overall
        strictest = asked if asked.action > strictest.action else strictest
        hosted = target.model.hosting == "self"
        if asked.action is Action.REJECT or (asked.action is Action.SELF_HOSTED_ONLY and not hosted):
            skipped.append(Skipped(target.model.name, said(asked)))
        elif asked.action is Action.PREFER_SELF_HOSTED and not hosted:
            dear.append(target._replace(why=f"{target.why}; {said(asked)}"))
        else:
            kept.append(target)
    return Ruling(kept + dear, skipped, strictest)


def said(verdict: Verdict) -> str:
    """For people, without amounts: a company's budget is not every client's to know."""
    if verdict.touch is None:
        return ""
    words = {
        Action.ALERT: "its alert is raised",
        Action.PREFER_SELF_HOSTED: "self-hosted models first",
        Action.SELF_HOSTED_ONLY: "self-hosted models only",
        Action.REJECT: "nothing more until it starts anew",
    }
    return f"{named(verdict.touch)}: {words.get(verdict.action, 'fine')}"


def named(touch: Touch) -> str:
    """ "budget per-team (team support, month 2026-11-01T00:00:00+00:00)"."""
    scope = f"{touch.account.scope}, " if touch.budget.per else ""
    return f"budget {touch.budget.name} ({scope}{touch.account.window})"


def out_of_budget(route: str, skipped: Sequence[Skipped], asked: Verdict) -> QuotaExceeded:
    """No target is left: the error that names each budget once."""
    reasons = "; ".join(dict.fromkeys(each.why for each in skipped))
    budget = asked.touch.budget.name if asked.touch is not None else ""
    return QuotaExceeded(f"route {route}: {reasons}", budget=budget)
