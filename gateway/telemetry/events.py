"""Frozen events: the only things that metrics, logs and traces see."""

from __future__ import annotations

import math
from typing import NamedTuple

from gateway.core.loads import Reading
from gateway.core.record import Record


class RequestStarted(NamedTuple):
    """An attempt on a model began: for gateway_requests_in_flight{model}."""

    model: str


class RequestEnded(NamedTuple):
    """That attempt ended."""

    model: str


class RequestFinished(NamedTuple):
    """The one event of a request."""

    record: Record


class ConfigReloaded(NamedTuple):
    """A changed routes.yaml was read. Of one reload, one process tells: the one that watches the file."""

    result: str  # ok | rejected
    hash: str  # of the configuration now in force
    problems: str = ""  # of a rejected file, a line each, for the log alone


class LedgerState(NamedTuple):
    """How the ledger of this process stands: once a second or so. The numbers are those of `stores.base.Ledger`."""

    depth: int
    failures: int
    dropped: int


class TracesLost(NamedTuple):
    """So many requests more whose spans could not be delivered."""

    requests: int


class BreakerChanged(NamedTuple):
    """The breaker of a model's replica is in another state. One process tells: the one that holds the breakers."""

    model: str
    endpoint: str
    state: str  # closed | half_open | open
    reason: str  # for people, no content


class BudgetCrossed(NamedTuple):
    """So much of a budget is spent. Of one window and threshold, one process of the machine tells, once."""

    budget: str
    scope: str  # "all", or "team support"
    window: str  # "month 2026-11-01T00:00:00+00:00"
    percent: int
    action: str  # alert | prefer_self_hosted | self_hosted_only | reject
    settled_nano: int
    limit_nano: int


class BudgetBalance(NamedTuple):
    """An account in its window. Nano-USD."""

    budget: str
    scope: str  # as of BudgetCrossed
    settled: int
    held: int
    starts: float = 0.0  # unix seconds: when its window did
    ends: float = math.inf  # when it will; infinite for `total`


class BudgetBalances(NamedTuple):
    """How all accounts stand, in place of what was told before. The process with the operations listener tells."""

    balances: tuple[BudgetBalance, ...]


class ServerRead(NamedTuple):
    """A self-hosted server has told how it is doing. One process of a machine reads them, and tells."""

    model: str
    endpoint: str
    reading: Reading
    when: float  # seconds of a monotonic clock
    alone: bool  # no other entry of `models` is served there, so all of its tokens are this model's


class ServerLost(NamedTuple):
    """It no longer tells, or is no longer asked."""

    model: str
    endpoint: str


Event = (
    RequestStarted
    | RequestEnded
    | RequestFinished
    | ConfigReloaded
    | LedgerState
    | TracesLost
    | BreakerChanged
    | BudgetCrossed
    | BudgetBalances
    | ServerRead
    | ServerLost
)
