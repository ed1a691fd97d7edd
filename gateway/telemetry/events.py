"""Frozen events: the only things that metrics, logs and traces see."""

from __future__ import annotations

from typing import NamedTuple

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
    result: str  # ok | rejected
    hash: str  # of the configuration now in force


Event = RequestStarted | RequestEnded | RequestFinished | ConfigReloaded
