"""What a plan does with targets that are not in good health (`Signals.standing`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.core.breaker import SLOWLY
from gateway.core.rules import Signals, Skipped, Standing, Target
from gateway.errors import RouteExhausted

_FINE = Standing()


class Blocked(NamedTuple):
    target: Target
    standing: Standing


def in_good_health(
    targets: list[Target], signals: Signals, *, kept: str, no_fallback: bool
) -> tuple[list[Target], list[Blocked]]:
    """The targets that may be tried now, and those that must not.

    One that starts slowly is tried after the other candidates, or after the fallbacks where it has no other, unless the
    dice grant it its share. Of a model with a replica that is fine, the replicas have been ordered so already; and
    `kept`, the model that a conversation must stay with, keeps its place. A client that wants no fallback gets none for
    a candidate that is out of order.
    """
    standings = signals.standing
    seen = [(target, standings.get((target.model.name, target.replica.name), _FINE)) for target in targets]
    blocked = [Blocked(target, standing) for target, standing in seen if standing.blocked]
    stays = {target.model.name for target, standing in seen if not standing.blocked and standing.share >= 1.0} | {kept}
    groups: dict[tuple[bool, bool], list[Target]] = {}  # by fallback and slow
    for target, standing in seen:
        if standing.blocked:
            continue
        slow = signals.roll >= standing.share and not no_fallback and target.model.name not in stays
        groups.setdefault((target.fallback, slow), []).append(target._replace(why=SLOWLY) if slow else target)
    ready, fallbacks = groups.get((False, False), []), groups.get((True, False), [])
    slow_ones, slow_fallbacks = groups.get((False, True), []), groups.get((True, True), [])
    if no_fallback and not ready and any(not each.target.fallback for each in blocked):
        return [], blocked
    if ready:
        return ready + slow_ones + fallbacks + slow_fallbacks, blocked
    return fallbacks + slow_ones + slow_fallbacks, blocked


def left_out(blocked: Sequence[Blocked]) -> list[Skipped]:
    """For explanations. A replica is named where its model has several."""
    return [Skipped(_name(target), standing.blocked) for target, standing in blocked]


def none_healthy(route: str, blocked: Sequence[Blocked], skipped: Sequence[Skipped]) -> RouteExhausted:
    """503 `no_healthy_upstream`: every target that could serve the request is out of order for the moment."""
    reasons = "; ".join(f"{each.what}: {each.why}" for each in (*left_out(blocked), *skipped))
    message = f"no model of route {route} is healthy now: {reasons}"
    error = RouteExhausted(message, status=503, code="no_healthy_upstream")
    soonest = min(standing.retry_after for _, standing in blocked)
    del error.headers["x-should-retry"]  # nothing was tried yet
    error.headers["retry-after"] = str(max(1, math.ceil(soonest)))
    return error


def health_of(target: Target, standings: Mapping[tuple[str, str], Standing] | None) -> str:
    """For people. None: nobody knows, as in `gateway explain`, which asks no running gateway."""
    if standings is None:
        return "unknown offline"
    standing = standings.get((target.model.name, target.replica.name))
    if standing is None:
        return "fine"
    if standing.blocked:
        return standing.blocked
    return f"{SLOWLY}: {standing.share:.0%} of its traffic" if standing.share < 1 else "half-open: one request may try"


def _name(target: Target) -> str:
    return target.model.name if len(target.model.replicas) == 1 else f"{target.model.name}@{target.replica.name}"
