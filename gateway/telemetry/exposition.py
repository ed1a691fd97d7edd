"""Integers by series -> the Prometheus or OpenMetrics text that a scraper asked for, written by prometheus_client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as PrometheusExemplar

from gateway.telemetry.exemplars import Exemplar
from gateway.telemetry.families import Family, Labels

Series = Mapping[Labels, list[int]]
Bucket = tuple[str, float] | tuple[str, float, PrometheusExemplar]
Shown = Mapping[tuple[Labels, int], Exemplar]  # of one family, by labels and bucket


def expose(
    series: Iterable[tuple[Family, Series]],
    accept: str,
    exemplars: Callable[[Family], Shown] = lambda _: {},
    more: Iterable[Collector] = (),
) -> tuple[bytes, str]:
    """The text and its content type; plain Prometheus text, which has no exemplars, where `accept` makes no sense."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in (_Snapshot(series, exemplars), *more):
        registry.register(collector)
    try:
        encode, content_type = choose_encoder(accept)
    except TypeError:  # a version in `accept` that is no number
        encode, content_type = choose_encoder("")
    return encode(registry), content_type


class _Snapshot(Collector):
    def __init__(self, series: Iterable[tuple[Family, Series]], exemplars: Callable[[Family], Shown]) -> None:
        self._series = series
        self._exemplars = exemplars

    def collect(self) -> Iterator[Metric]:
        for family, series in self._series:
            yield _metric(family, series, self._exemplars(family) if family.buckets else {})


def _metric(family: Family, series: Series, exemplars: Shown) -> Metric:
    """A quotient of integers is the nearest float: `round(value * 1e9)` is nano-USD again, up to two million USD."""
    match family.kind:
        case "counter":
            counter = CounterMetricFamily(family.name, family.help, labels=family.labels)
            for labels, cell in series.items():
                counter.add_metric(labels, cell[0] / family.unit)
            return counter
        case "gauge":
            gauge = GaugeMetricFamily(family.name, family.help, labels=family.labels)
            for labels, cell in series.items():
                gauge.add_metric(labels, cell[0] / family.unit)
            return gauge
        case "info":
            info = InfoMetricFamily(family.name.removesuffix("_info"), family.help)
            for labels in series:
                info.add_metric((), dict(zip(family.labels, labels, strict=True)))
            return info
        case "histogram":
            histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
            for labels, cell in series.items():
                counts = enumerate(_cumulative(family.buckets, cell))
                buckets = [_bucket(*count, exemplars.get((labels, place))) for place, count in counts]
                histogram.add_metric(labels, buckets, cell[-1] / family.unit)
            return histogram


def _bucket(bound: str, count: float, kept: Exemplar | None) -> Bucket:
    if kept is None:
        return bound, count
    return bound, count, PrometheusExemplar({"trace_id": kept.trace_id}, kept.seconds, kept.at)


def _cumulative(buckets: tuple[float, ...], cell: list[int]) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*buckets, float("inf")), cell, strict=False):
        total += count
        found.append(("+Inf" if bound == float("inf") else repr(float(bound)), total))
    return found
