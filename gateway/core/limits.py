"""Limits on traffic: requests and tokens a minute, requests in flight (`limits:` of routes.yaml and of keys)."""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.budgets import Scope
from gateway.core.rules import Match


class Limit(NamedTuple):
    """One entry. None: not limited. At least one of the three is given."""

    name: str  # tells it apart from others: "limits[0]", or "key ci"
    match: Match = Match()
    per: Scope = ""  # without it, all that match share one count
    requests_per_minute: int | None = None  # in any 60 seconds
    tokens_per_minute: int | None = None  # input and output, as billed
    max_in_flight: int | None = None
