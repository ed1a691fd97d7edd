"""Events to their consumers (metrics, the log, traces, webhooks): one visible list."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from gateway.admission import Admission
from gateway.caching import Answers
from gateway.config.types import Config, Key
from gateway.dispatch import Shared
from gateway.health import Watch
from gateway.loads import Loads
from gateway.outputs import Outputs
from gateway.owners import Owners
from gateway.pace import Pace
from gateway.rates import Rates
from gateway.sessions import Sessions
from gateway.spending import Crossing, Spending
from gateway.stores.base import Ledger
from gateway.stores.cache import SqliteCache
from gateway.stores.counters import SqliteCounters
from gateway.telemetry.capacity import STEP
from gateway.telemetry.events import BudgetCrossed, Event, LedgerState, TracesLost
from gateway.telemetry.labels import LabelSets
from gateway.telemetry.log import Format, Log
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.trace import read_tracing
from gateway.webhooks import Webhooks
from gateway.wire import CODEC

if TYPE_CHECKING:  # it imports OpenTelemetry
    from gateway.telemetry.otlp import Traces


log = logging.getLogger("gateway")


def open_log(format: Format) -> Log:
    """The process's log on stderr; what the program reports through `logging` goes the same way."""
    lines = Log(sys.stderr.buffer, format)
    root = logging.getLogger()
    root.addHandler(lines.handler())
    root.setLevel(logging.WARNING)
    log.setLevel(logging.INFO)
    return lines


def warn(config: Config) -> None:
    """Says what should be known of a configuration that is in force from now on."""
    for warning in (*config.warnings, *config.notices):
        log.warning("%s", warning)


class Observer:
    """What a process tells the world: counters, log lines and deliveries, all made from the same events."""

    def __init__(self, log: Log, traces: Traces | None = None) -> None:
        self.metrics = Metrics()
        self.webhooks = Webhooks()
        self.traces = traces
        self._log = log
        self._config: Config | None = None
        self._created: tuple[Key, ...] = ()

    def emit(self, event: Event) -> None:
        self.metrics.observe(event)
        self._log.observe(event)
        if self.traces is not None:
            self.traces.observe(event)
        self.webhooks.observe(event)

    def configure(self, config: Config) -> None:
        self._config = config
        if self.traces is not None:
            self.traces.configure(config)
        self.webhooks.configure(config.webhooks)
        self.metrics.configure(LabelSets.of(config, self._created))

    def know(self, created: Iterable[Key]) -> None:
        """Keys that do not stand in the file: their teams and budgets may be shown too."""
        self._created = tuple(created)
        if self._config is not None:
            self.configure(self._config)

    async def remember(self) -> None:
        """Keeps the moments that the metrics of the last hour are made from, until it is cancelled."""
        while True:
            self.metrics.remember()
            await asyncio.sleep(STEP)

    def look_at(self, ledger: Ledger) -> None:
        self.metrics.observe(LedgerState(ledger.depth, ledger.failures, ledger.dropped))
        if self.traces is not None and (lost := self.traces.take_lost()):
            self.metrics.observe(TracesLost(lost))

    async def close(self) -> None:
        """Delivers what waits to be delivered, for a few seconds at most."""
        if self.traces is not None:
            await self.traces.close()
        await self.webhooks.close()


class Memory(NamedTuple):
    """What a process remembers of who served what."""

    sessions: Sessions
    owners: Owners


def shared(
    config: Config, observer: Observer, health: Watch, admission: Admission, memory: Memory, rates: Rates
) -> Shared:
    """What a process's calls share, whatever the configuration."""
    spending = Spending(lambda: SqliteCounters(config.counters), lambda crossing: observer.emit(_crossed(crossing)))
    in_flight: dict[str, int] = {}
    loads = Loads(in_flight)
    answers = Answers(lambda: SqliteCache(config.cache))
    sampling = read_tracing(os.environ)
    return Shared(
        *(observer.emit, CODEC, in_flight, Pace(), health, admission, memory.sessions, spending, Outputs(), rates),
        *(loads, answers, memory.owners, sampling),
    )


def _crossed(crossing: Crossing) -> BudgetCrossed:
    budget, account, percent, action, settled = crossing
    return BudgetCrossed(
        *(budget.name, account.scope, account.window, percent, action.word, settled),
        limit_nano=budget.limit_nano,
    )
