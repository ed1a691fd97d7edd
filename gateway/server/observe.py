"""Events to their consumers: one visible list."""

from __future__ import annotations

from gateway.config.types import Config
from gateway.telemetry.events import Event
from gateway.telemetry.log import RequestLog
from gateway.telemetry.metrics import LabelSets, Metrics


class Observer:
    """What a process that serves calls tells the world: counters and log lines, both made from the same events."""

    def __init__(self, log_format: str) -> None:
        self.metrics = Metrics()
        self.log = RequestLog(log_format)

    def emit(self, event: Event) -> None:
        self.metrics.observe(event)
        self.log.observe(event)

    def configure(self, config: Config) -> None:
        self.metrics.configure(LabelSets.of(config))

    def close(self) -> None:
        self.log.close()
