"""Rules + Call + Task + Principal + signals -> Plan: the targets in order, and the reason for each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import NamedTuple

from gateway.core.budgets import NO_VERDICT, NOTHING_TOUCHED, Budget, BudgetIndex, Touched, Verdict
from gateway.core.caching import Cache
from gateway.core.call import Call, Principal
from gateway.core.capture import Capture
from gateway.core.failures import DEFAULT_FALLBACK_ON, Kind
from gateway.core.health import in_good_health, left_out, none_healthy
from gateway.core.index import Index, LineUp, price_of, rest_of
from gateway.core.limits import Limit, LimitIndex
from gateway.core.passed_over import Asked, PassedOver
from gateway.core.pricing import dollars, price_at
from gateway.core.replicas import expand
from gateway.core.rules import Candidate, Hedge, Match, Model, Route, Signals, Skipped, Target, Timeouts
from gateway.core.sticky import Conversation, conversation_of, kept_first, roll_of
from gateway.core.stored import of_owner, stored
from gateway.core.strategies import STRATEGIES, Strategy, highest_cost
from gateway.core.tasks import Task, TaskRule
from gateway.core.translate import losses, translation
from gateway.core.verdicts import out_of_budget, ruled
from gateway.errors import RequestError, RouteExhausted

__all__ = [
    "STRATEGIES",
    "Candidate",
    "Match",
    "Model",
    "Plan",
    "Route",
    "Rules",
    "Signals",
    "Skipped",
    "Strategy",
    "Target",
    "Timeouts",
    "plan",
    "visible_models",
]

_COMPARED_NAME = 64  # characters: longer names are no typing mistakes, and comparing them would cost
_NEEDED_BY: Mapping[str, str] = {
    "tools": "tools",
    "json_schema": "response_format",
}  # capability -> member; else messages
_DEARER = "more than x-gateway-max-cost-usd"
_NAMES: Mapping[str, str] = {"json_schema": "JSON schemas"}


class _Rules(NamedTuple):
    models: Mapping[str, Model]
    tasks: tuple[TaskRule, ...]
    routes: tuple[Route, ...]
    direct: Route  # `defaults` as a route: for a model that the client named itself (label "direct", no fallback)
    budgets: tuple[Budget, ...] = ()
    limits: tuple[Limit, ...] = ()


class Rules(_Rules):
    """Everything of routes.yaml that decisions need."""

    @cached_property
    def prepared(self) -> Index:
        return Index(self.models, self.routes, self.direct)

    @cached_property
    def guards(self) -> BudgetIndex:
        return BudgetIndex(self.budgets)

    @cached_property
    def quotas(self) -> LimitIndex:
        return LimitIndex(self.limits)

    @cached_property
    def caches(self) -> bool:
        """Whether a route gives answers again."""
        return any(route.cache is not None for route in (*self.routes, self.direct))

    @property
    def known_tasks(self) -> frozenset[str]:
        """Tasks that a route's match names literally."""
        return self.prepared.known_tasks


class Plan(NamedTuple):
    route: str
    task: Task
    targets: tuple[Target, ...]  # may be empty: then `skipped` says why
    skipped: tuple[Skipped, ...]  # models of the route that were left out
    passed_over: Sequence[Skipped]  # routes that did not match
    fallback_on: frozenset[Kind] = DEFAULT_FALLBACK_ON
    retries: int = 1  # on the same target
    max_attempts: int = 4  # over all targets
    total: float = 600.0  # seconds over all attempts
    baseline: Model | None = None
    hedge: Hedge | None = None
    mid_stream: str = "error"  # or "continue"
    conversation: Conversation | None = None  # to be remembered with who answers
    clamp: bool = True  # a budget may cap the output
    touched: Touched = NOTHING_TOUCHED  # the budgets that its attempts are charged to
    verdict: Verdict = NO_VERDICT  # the strictest that they ask for
    capture: Capture | None = None  # whether what is said is kept
    cache: Cache | None = None  # whether its answer may be given again


def plan(rules: Rules, call: Call, task: Task, principal: Principal, signals: Signals) -> Plan:
    """Which models to try, in which order, and why (contract section 1, "What `model` may be").

    A model that the client names is taken itself. Where a route's `match.model` names it literally, it is a name like
    any other, and is taken itself only if no route matches.

    Raises RequestError 403 where the key's `allow` does not hold the requested name, 404 `model_not_found` with close
    matches among what the key may use, and 400 `invalid_request_error` where models matched but none can do what the
    request needs (images, tools, context window: then `context_length_exceeded`), or where the owner of the previous
    response is not among them; 503 RouteExhausted
    `no_healthy_upstream` where all are disabled, or must not be tried at the moment (then with `retry-after`); 429
    `insufficient_quota` where a budget's threshold leaves none.
    """
    line_up, position, literally = _chosen(rules, call, task, principal)
    conversation = None
    if line_up.alternatives or line_up.replicated:
        conversation = conversation_of(line_up, call, principal, signals)
        if conversation is not None and conversation.sticky and line_up.route.order == "weighted":
            signals = signals._replace(roll=roll_of(conversation.key))
    targets, skipped = _targets(line_up, call, signals)
    if not targets:
        raise _named(_refusal(line_up, call, skipped), line_up)
    asked = NO_VERDICT
    if signals.touched is not None and signals.settled is not None:
        targets, spent, asked = ruled(line_up.route.name, targets, signals.touched, signals.settled)
        if not targets:
            raise _named(out_of_budget(line_up.route.name, spent, asked), line_up)
        skipped += spent
    if conversation is not None or line_up.replicated:
        targets, conversation = _placed(line_up, targets, conversation, signals)
    if stored(call):
        try:
            targets, others = of_owner(targets, call, signals)
        except RequestError as error:
            raise _named(error, line_up) from None
        skipped += others
    if signals.standing:
        targets, blocked = _healthy(line_up, targets, call, conversation, signals)
        skipped += blocked
    route = line_up.route
    return Plan(
        route=route.name,
        task=task,
        targets=tuple(targets),
        skipped=line_up.skipped + tuple(skipped) if skipped else line_up.skipped,
        passed_over=PassedOver(rules.prepared.line_ups, position, Asked(call, task, principal), named=literally),
        fallback_on=route.fallback_on,
        retries=route.retries,
        max_attempts=route.max_attempts,
        total=max(target.timeouts.total or 0.0 for target in targets),
        baseline=line_up.baseline,
        hedge=route.hedge,
        mid_stream=route.mid_stream,
        conversation=conversation,
        clamp=route.clamp,
        touched=signals.touched or NOTHING_TOUCHED,
        verdict=asked,
        capture=route.capture,
        cache=route.cache,
    )


def route_of(rules: Rules, call: Call, task: Task, principal: Principal) -> Route:
    """The route that answers a call, whoever may be tried. Raises RequestError 403 and 404 as `plan`."""
    return _chosen(rules, call, task, principal)[0].route


def _chosen(rules: Rules, call: Call, task: Task, principal: Principal) -> tuple[LineUp, int | None, bool]:
    """Who answers, the position of its route (None: none matched), and whether the client named a model itself."""
    if not principal.may_use(call.model):
        message = f"this key may not use the model {call.model!r}"
        raise RequestError(message, status=403, type="permission_error", code="permission_denied", param="model")
    index = rules.prepared
    named = index.find(call.model)
    literally = named is not None and not index.names_literally(call.model)
    position = None if literally else index.first_match(call, task, principal)
    if position is not None:
        return index.line_ups[position], position, literally
    if named is not None:
        return index.direct[named.name], None, literally
    raise _unknown(rules, call, principal)


def visible_models(rules: Rules, principal: Principal) -> list[str]:
    """What `/v1/models` lists: enabled models and the literal names in routes that the key may use, sorted."""
    return list(filter(principal.may_use, rules.prepared.visible))


def _targets(line_up: LineUp, call: Call, signals: Signals) -> tuple[list[Target], list[Skipped]]:
    skipped: list[Skipped] = []
    candidates: list[tuple[Target, Candidate]] = []
    now = signals.now if line_up.timed else None
    for given, candidate in line_up.use:
        if target := _fitted(given, call, skipped, now):
            candidates.append((target, candidate))
    targets = STRATEGIES[line_up.route.order](candidates, call, signals)
    for given in line_up.fallback:
        if target := _fitted(given, call, skipped, now):
            targets.append(target)
    return targets, skipped


def _placed(
    line_up: LineUp, targets: list[Target], conversation: Conversation | None, signals: Signals
) -> tuple[list[Target], Conversation | None]:
    """The targets with a model's replicas apart, in the order that is best for the conversation."""
    if conversation is None:
        return expand(targets, signals, "", None), None
    # An order that looks at prices or load may come out otherwise on another worker, or a moment later.
    order = line_up.route.order
    if not line_up.alternatives or order == "listed" or (order == "weighted" and conversation.sticky):
        conversation = conversation._replace(anew=targets[0].model.name)
    if conversation.sticky:
        targets = kept_first(targets, conversation, signals)
    if line_up.replicated:
        targets = expand(targets, signals, conversation.session, conversation.kept)
    return targets, conversation


def _healthy(
    line_up: LineUp, targets: list[Target], call: Call, conversation: Conversation | None, signals: Signals
) -> tuple[list[Target], list[Skipped]]:
    kept = conversation.kept[0] if conversation is not None and conversation.sticky and conversation.kept else ""
    healthy, blocked = in_good_health(targets, signals, kept=kept, no_fallback=call.hints.no_fallback)
    if not healthy:
        raise _named(none_healthy(line_up.route.name, blocked, line_up.skipped), line_up)
    return healthy, left_out(blocked)


def _fitted(target: Target, call: Call, skipped: list[Skipped], now: float | None) -> Target | None:
    """The target for this very request; None, and the reason in `skipped`, where it cannot serve it.

    `now`: unix seconds; None where no price depends on it.
    """
    model = target.model
    why = _unable(model, call)
    if not target.upstream_name:
        upstream_name = rest_of(model, call.model)
        why = why or ("" if upstream_name else "the requested name does not fit it")
        target = target._replace(upstream_name=upstream_name, price=price_of(model, upstream_name))
    if now is not None:
        target = target._replace(price=price_at(target.price, now))
    if call.hints.max_cost_nano_usd is not None:
        why = why or _too_dear(target, call, call.hints.max_cost_nano_usd)
    if why:
        skipped.append(Skipped(model.name, why))
        return None
    shorter, total = call.hints.timeout, target.timeouts.total
    if shorter is not None and total is not None and shorter < total:
        return target._replace(timeouts=target.timeouts._replace(total=shorter))
    return target


def _unable(model: Model, call: Call) -> str:
    """Why a model cannot do what the request needs; empty where it can."""
    if call.form.api not in model.apis and not call.form.free:
        needed = translation(call, model)
        if needed is None:
            return f"its server has no {call.endpoint} (`apis` of provider {model.provider})"
        if refused := losses(call, model).refused:
            return f"its server has no {call.endpoint}, and {needed.to} cannot carry {', '.join(refused)}"
    elif model.only and call.endpoint not in model.only:
        return f"there is no {call.endpoint} through litellm"
    if lacking := _lacking(model, call):
        return "does not support " + " or ".join(_NAMES.get(need, need) for need in lacking)
    if _too_small(model, call):
        return f"context window of {model.context_window} tokens is too small for about {call.estimated_input}"
    return ""


def _too_dear(target: Target, call: Call, limit: int) -> str:
    """Why a model is not for a client with a limit of so many nano-USD; empty where it is."""
    highest = highest_cost(target, call)
    if highest is None:
        return "no known price, and the client has set a limit"
    return f"may cost ${dollars(highest)}, {_DEARER}" if highest > limit else ""


def _lacking(model: Model, call: Call) -> list[str]:
    return [] if call.has <= model.supports else sorted(call.has - model.supports)


def _too_small(model: Model, call: Call) -> bool:
    return model.context_window is not None and call.estimated_input > model.context_window


def _named(error: RequestError | RouteExhausted, line_up: LineUp) -> RequestError | RouteExhausted:
    error.route = line_up.route.name
    return error


def _refusal(line_up: LineUp, call: Call, skipped: Sequence[Skipped]) -> RequestError | RouteExhausted:
    """No target is left: because of what the request needs, or because nothing is switched on."""
    reasons = "; ".join(f"{each.what}: {each.why}" for each in (*line_up.skipped, *skipped))
    name = line_up.route.name
    if not skipped:
        message = f"no model of route {name} is enabled: {reasons}"
        return RouteExhausted(message, status=503, code="no_healthy_upstream")
    models = [target.model for target, _ in line_up.use] + [target.model for target in line_up.fallback]
    lacking = [need for model in models for need in _lacking(model, call)]
    uncarried = [name for model in models for name in losses(call, model).refused]
    message = f"no model of route {name} can serve this request: {reasons}"
    if lacking:
        return RequestError(message, param=_NEEDED_BY.get(lacking[0], "messages"))
    if uncarried:
        return RequestError(message, param=re.split(r"[^\w]", uncarried[0], maxsplit=1)[0])
    if any(each.why.endswith(_DEARER) for each in skipped):
        return RequestError(message, code="max_cost_exceeded", param="x-gateway-max-cost-usd")
    if any(_too_small(model, call) for model in models):
        return RequestError(message, code="context_length_exceeded", param=call.form.content)
    return RequestError(message, param="model")  # a wildcard that the requested name does not fit


def _unknown(rules: Rules, call: Call, principal: Principal) -> RequestError:
    message = f"the model {call.model!r} does not exist"
    if len(call.model) <= _COMPARED_NAME and (close := get_close_matches(call.model, visible_models(rules, principal))):
        message += f"; did you mean {' or '.join(close)}?"
    return RequestError(message, status=404, code="model_not_found", param="model")
