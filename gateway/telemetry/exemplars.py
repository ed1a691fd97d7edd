"""Exemplars: of each bucket, the trace of the last request that fell into it. Shown in OpenMetrics alone.

They are kept apart from the counts, because they do not add up: of two processes' exemplars the later one stays. Their
number is bounded by that of the buckets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gateway.core.record import Record
from gateway.telemetry import families
from gateway.telemetry.families import FAMILIES, Family, Labels

STREAM = {False: "false", True: "true"}


class Exemplar(NamedTuple):
    trace_id: str
    seconds: float
    at: float  # unix seconds


Place = tuple[str, Labels, int]  # family, labels, number of the bucket; the last is +Inf
Sent = tuple[str, list[str], int, str, float, float]


class Exemplars:
    """One per process, used by one thread."""

    def __init__(self) -> None:
        self._kept: dict[Place, Exemplar] = {}

    def observe(self, record: Record, route: str, model: str) -> None:
        """A request whose trace somebody records. `route` and `model` as the histograms' labels have them."""
        ended = record.started + record.duration
        labels = (route, model, STREAM[record.stream])
        self._note(families.DURATION, labels, Exemplar(record.trace_id, record.duration, ended))
        if record.first_token is not None:
            self._note(families.FIRST_TOKEN, labels[:2], Exemplar(record.trace_id, record.first_token, ended))

    def _note(self, family: Family, labels: Labels, exemplar: Exemplar) -> None:
        self._kept[family.name, labels, bisect_left(family.buckets, exemplar.seconds)] = exemplar

    def take(self) -> list[tuple[object, ...]]:
        """What was noted since the last time, for `merge` in another process."""
        taken: list[tuple[object, ...]] = [(*place, *exemplar) for place, exemplar in self._kept.items()]
        self._kept = {}
        return taken

    def merge(self, taken: Iterable[Sent]) -> None:
        for name, labels, bucket, trace_id, seconds, at in taken:
            place, exemplar = (name, tuple(labels), bucket), Exemplar(trace_id, seconds, at)
            before = self._kept.get(place)
            if name in FAMILIES and (before is None or before.at <= exemplar.at):
                self._kept[place] = exemplar

    def of(self, family: Family) -> Mapping[tuple[Labels, int], Exemplar]:
        """By labels and number of the bucket."""
        return {(labels, bucket): e for (name, labels, bucket), e in self._kept.items() if name == family.name}
