"""Events to their consumers: one visible list."""

from __future__ import annotations

import logging
import sys

from gateway.admission import Admission
from gateway.config.types import Config
from gateway.dispatch import Shared
from gateway.health import Watch
from gateway.outputs import Outputs
from gateway.pace import Pace
from gateway.rates import Rates
from gateway.sessions import Sessions
from gateway.spending import Spending
from gateway.stores.base import Ledger
from gateway.stores.counters import SqliteCounters
from gateway.telemetry.events import Event, LedgerState
from gateway.telemetry.labels import LabelSets
from gateway.telemetry.log import Format, Log
from gateway.telemetry.metrics import Metrics
from gateway.wire import CODEC


def open_log(format: Format) -> Log:
    """The process's log on stderr; what the program reports through `logging` goes the same way."""
    log = Log(sys.stderr.buffer, format)
    root = logging.getLogger()
    root.addHandler(log.handler())
    root.setLevel(logging.WARNING)
    logging.getLogger("gateway").setLevel(logging.INFO)
    return log


class Observer:
    """What a process that serves calls tells the world: counters and log lines, both made from the same events."""

    def __init__(self, log: Log) -> None:
        self.metrics = Metrics()
        self._log = log

    def emit(self, event: Event) -> None:
        self.metrics.observe(event)
        self._log.observe(event)

    def configure(self, config: Config) -> None:
        self.metrics.configure(LabelSets.of(config))

    def look_at(self, ledger: Ledger) -> None:
        self.metrics.observe(LedgerState(ledger.depth, ledger.failures, ledger.dropped))


def shared(
    config: Config, observer: Observer, health: Watch, admission: Admission, sessions: Sessions, rates: Rates
) -> Shared:
    """What a process's calls share, whatever the configuration."""
    spending = Spending(lambda: SqliteCounters(config.counters))
    return Shared(observer.emit, CODEC, {}, Pace(), health, admission, sessions, spending, Outputs(), rates)
