"""A decision in full, for people and programs: `gateway explain` and `x-gateway-dry-run`. Never any content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gateway.core.budgets import Account, Balance
from gateway.core.call import Call, Principal
from gateway.core.dialects import adapted
from gateway.core.health import health_of
from gateway.core.pricing import Price, dollars
from gateway.core.routing import Plan
from gateway.core.rules import Skipped, Standing, Target
from gateway.core.strategies import expected_cost
from gateway.core.translate import losses, outgoing, translation
from gateway.core.verdicts import said

Standings = Mapping[tuple[str, str], Standing] | None
Balances = Callable[[Account], Balance] | None


def explain(
    call: Call, plan: Plan, principal: Principal, standings: Standings = None, balances: Balances = None
) -> dict[str, Any]:
    """JSON-able; names are stable. Money in USD, prices per million tokens or per hour, durations in seconds.

    `standings`: as in Signals; None where no gateway runs that could know, and balances also where a client
    asks: what a company may spend is not every client's to know.
    """
    return {
        "request": {
            "model": call.model,
            "endpoint": call.endpoint.value,
            "stream": call.stream,
            "has": sorted(call.has),
            "estimated_input": call.estimated_input,
            "max_output": call.max_output,
            "key": principal.key,
            "team": principal.team,
            "tags": sorted(call.hints.tags | principal.tags),
        },
        "task": plan.task._asdict(),
        "route": plan.route,
        "targets": [_target(target, call, standings) for target in plan.targets],
        "skipped": _skipped(plan.skipped),
        "passed_over": _skipped(plan.passed_over),
        "timeouts": {"total": plan.total},
        "retries": plan.retries,
        "max_attempts": plan.max_attempts,
        "fallback_on": sorted(plan.fallback_on),
        "baseline": plan.baseline.name if plan.baseline is not None else None,
        "budgets": {
            "verdict": plan.verdict.action.word,
            "because": said(plan.verdict),
            "touched": _touched(plan, balances),
        },
    }


def _touched(plan: Plan, balances: Balances) -> list[dict[str, Any]]:
    """Every account that some target would be charged to, once."""
    by_target = {target.model.name: plan.touched.by(plan.route, target.model) for target in plan.targets}
    touches = {touch.account: touch for found in (plan.touched.of_request, *by_target.values()) for touch in found}
    return [
        {
            "budget": touch.budget.name,
            "scope": touch.account.scope,
            "window": touch.account.window,
            "limit_usd": None if balances is None else float(dollars(touch.budget.limit_nano)),
            "settled_usd": None if balances is None else float(dollars(balances(touch.account).settled)),
            "reserved_usd": None if balances is None else float(dollars(balances(touch.account).reserved)),
            "charged_by": [model for model, found in by_target.items() if touch in found],
        }
        for touch in touches.values()
    ]


def _target(target: Target, call: Call, standings: Standings) -> dict[str, Any]:
    expected = expected_cost(target, call)
    changes = adapted(outgoing(call, target.model), target.model, target.upstream_name)
    return {
        "model": target.model.name,
        "upstream_model": target.upstream_name,
        "provider": target.model.provider,
        "replica": target.replica.name if target.replica.provider else None,
        "hosting": target.model.hosting,
        "price": _price(target.price),
        "expected_cost_usd": None if expected is None else float(dollars(expected)),
        "health": health_of(target, standings),
        "translated_to": None if (needed := translation(call, target.model)) is None else needed.to.value,
        "dropped": list(losses(call, target.model).dropped + changes.dropped),
        "mapped": list(changes.mapped),
        "fallback": target.fallback,
        "why": target.why,
        "timeouts": target.timeouts._asdict(),
    }


def _price(price: Price | None) -> dict[str, Any] | None:
    if price is None:
        return None
    shown: dict[str, Any] = {"source": price.source}
    if price.rates is not None:
        rates = price.rates.of_tokens
        shown["usd_per_million_tokens"] = {name: float(dollars(rate)) for name, rate in rates.items()}
        shown["tiers_above_tokens"] = [tier.above for tier in price.tiers]
    if price.machine is not None:
        shown["usd_per_hour"] = float(dollars(price.machine.nano_usd_per_hour))
        shown["input_tokens_per_second"] = price.machine.input_tokens_per_second
        shown["output_tokens_per_second"] = price.machine.output_tokens_per_second
    shown["unmetered"] = price.unmetered
    return shown


def _skipped(skipped: Iterable[Skipped]) -> list[dict[str, str]]:
    return [each._asdict() for each in skipped]
