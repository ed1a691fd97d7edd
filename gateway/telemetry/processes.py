"""What the gateway's processes use of the machine, read from /proc when a scraper asks.

The names and figures are prometheus_client's own (`process_resident_memory_bytes`, `process_cpu_seconds_total`, ...).
The label `process` says whose they are, so that a worker that is started anew is a counter that begins again, which
Prometheus understands, and not a sum that falls. Without /proc there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

LABEL = "process"
NAMES = (
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
)

Pids = Callable[[], Mapping[str, int]]
"""Who runs now: `gateway`, `worker 0`, `model NAME` -> its process id."""


class Processes(Collector):
    def __init__(self, pids: Pids) -> None:
        self._pids = pids
        self._pid = 0
        self._figures = ProcessCollector(pid=lambda: self._pid, registry=None)

    def collect(self) -> Iterator[Metric]:
        found: dict[str, Metric] = {}
        for name, pid in self._pids().items():
            self._pid = pid
            for metric in self._figures.collect():  # nothing of a process that has just ended
                whole = found.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                whole.samples += [each._replace(labels={LABEL: name}) for each in metric.samples]
        yield from found.values()
