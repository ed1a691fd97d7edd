"""No panel is empty and none lies: a real Prometheus scraped a real gateway, and the ledger says the same.

Counters begin at 0 before the first request and rest before the last scrape, at whose very moment queries are asked. So
`increase()` has nothing to extrapolate, and figures may be held to 0.1% (`Figure` says which cannot). What rules
recorded was extrapolated, by a factor that is found once (`stretch`).
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pytest

from tests import replies
from tests.grafana.dashboards import Panel, Target, panels, resolved
from tests.grafana.figures import EVERYTHING, FIGURES, MACHINE, NOT_IN_THE_LEDGER, RULE, Figure, Run, per_hour
from tests.grafana.ledger import Choice, Ledger
from tests.grafana.scenario import MACHINE_USD_PER_HOUR, STRANGERS, play, routes, under_way
from tests.prometheus import Prometheus
from tests.servers import Gateway, until
from tests.upstream import Upstream

PANELS = list(panels())
CHOICES = {
    "all": Choice(),
    "one": Choice(team="web", route="support", model="qwen", budget="teams"),
    "another": Choice(team="platform", route="coding", model="deepseek", budget="experiments"),
}
QUIET = {
    "Ledger failures": "the disk works",
    "Ledger failures and dropped rows": "the disk works",
    "Ledger queue": "it is empty when nothing goes on",
    "Request rate": "nothing comes in at the end, when it is asked",
    "First to run out": "0 hours: one is spent",
}
"""Panels whose figures are 0 in this run, and why. Of the others one is not."""


OF_MACHINES = {"Price of a million tokens on your own hardware", "Traffic against break-even"}


class Seen(NamedTuple):
    prometheus: Prometheus
    ledger: Ledger
    run: Run
    at: float  # Unix seconds of the last scrape

    def ask(self, target: Target, choice: Choice, rate: str) -> list[tuple[Mapping[str, str], list[float]]]:
        """Series and their values: one of an instant query, one a second of a trend. What is NaN is no value."""
        values = {name: value or ".*" for name, value in choice._asdict().items()}
        values |= {
            "__range": f"{self.run.range}s",
            "__rate_interval": rate,
            "__interval": "1s",
            "__interval_ms": "1000",
        }
        expr, at = resolved(target.expr, values), f"{self.at:.3f}"
        if target.instant:
            found = self.prometheus.get("/api/v1/query", query=expr, time=at)["result"]
            series = [(each["metric"], [each["value"]]) for each in found]
        else:
            start = f"{self.at - self.run.range:.3f}"
            found = self.prometheus.get("/api/v1/query_range", query=expr, start=start, end=at, step="1")["result"]
            series = [(each["metric"], each["values"]) for each in found]
        known = [(labels, [float(v) for _, v in points if not math.isnan(float(v))]) for labels, points in series]
        return [(labels, points) for labels, points in known if points]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    directory = tmp_path_factory.mktemp("panels")
    with contextlib.ExitStack() as gateways, contextlib.ExitStack() as prometheuses:
        upstream = gateways.enter_context(Upstream(replies.ok()))
        gateway = gateways.enter_context(Gateway(directory, routes(upstream)))
        prometheus = Prometheus(directory, [f"127.0.0.1:{gateway.ops_port}"])
        prometheuses.enter_context(prometheus)
        first = prometheus.wait("timestamp(gateway_build_info)")[0].value
        prometheus.wait("all:gateway_capacity_usd_per_hour:sum > 0", 60)
        play(gateway, upstream)
        with under_way(gateway, upstream):
            found = settle(gateway, prometheus, first)
        gateways.close()  # what is asked from here on was before
        yield found


def settle(gateway: Gateway, prometheus: Prometheus, first: float) -> Seen:
    """Once all is written, scraped and recorded by one whole evaluation, and three more seconds saw the same."""
    path = gateway.directory / "gateway.db"

    def whole() -> bool:
        return gateway.metric("gateway_requests_total") == len(gateway.rows()) + STRANGERS

    until("all to be counted and written", whole, 60)
    prometheus.wait(f"sum(gateway_requests_total) == {gateway.metric('gateway_requests_total')}", 300)

    def calm() -> float:
        before = Ledger.read(path, gateway.log)
        since = prometheus.query("time()")[0].value + 3
        at = prometheus.steady(since)
        prometheus.wait(f"timestamp(all:gateway_spend_usd_per_hour:rate5m) > {at}")
        baselines, costs = stretches[:] = stretch(prometheus, before, at)
        whole = costs == pytest.approx(baselines, rel=1e-4)
        return at if whole and Ledger.read(path, gateway.log) == before else 0.0

    stretches: list[float] = []
    try:
        at = until("nothing to change", calm, 300)  # leases are given back after a while
    except AssertionError as error:
        raise AssertionError(f"recorded baselines and costs show {stretches} times what the ledger has") from error
    scrapes = prometheus.get("/api/v1/query", query="gateway_build_info[1h]", time=f"{at:.3f}")["result"][0]["values"]
    gap = max(after - before for (before, _), (after, _) in itertools.pairwise(scrapes))
    ledger = Ledger.read(path, gateway.log)
    run = Run(math.ceil(at - first) + 5, at - first, gap, stretch(prometheus, ledger, at)[0])
    return Seen(prometheus, ledger, run, at)


def stretch(prometheus: Prometheus, ledger: Ledger, at: float) -> list[float]:
    """How many times what was counted a recorded rate shows: of baselines, and of costs.

    A rate goes on to the moment of evaluation as it was up to the last scrape. That is a part of a second, but here of
    some twenty in all. The rules of one evaluation have it alike, unless a scrape comes in among them.
    """
    shown = [prometheus.value(f"all:gateway_{name}_usd_per_hour:rate5m", at) for name in ("baseline_cost", "cost")]
    counted = [per_hour(figures, RULE)[()] for figures in (ledger.baseline(EVERYTHING), ledger.cost(EVERYTHING))]
    return [(rate or 0.0) / amount for rate, amount in zip(shown, counted, strict=True)]


# No panel is empty


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES.keys())
@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_every_query_has_data(seen: Seen, panel: Panel, choice: Choice) -> None:
    rate = f"{max(4, math.ceil(2 * seen.run.gap))}s"  # what came while scrapes were missing is in no shorter one
    for target in panel.targets:
        found = seen.ask(target, choice, rate)
        assert found or nothing(seen, panel, target, choice), target.expr
        if choice == Choice() and panel.title not in QUIET:
            assert any(value for _, points in found for value in points), f"only zeros: {target.expr}"


def nothing(seen: Seen, panel: Panel, target: Target, choice: Choice) -> bool:
    """Whether the ledger has nothing either, or an API's model was chosen for a panel of machines. Never for "All"."""
    if panel.title in OF_MACHINES and choice.model not in ("", MACHINE):
        return True
    figure = FIGURES[panel.dashboard].get(panel.title, {}).get(target.ref)
    return choice != Choice() and figure is not None and not any(figure.compute(seen.ledger, choice, seen.run).values())


# None lies


def test_every_counter_began_at_zero(seen: Seen) -> None:
    """What begins with its first event is missing in `increase()` for ever."""
    every = f'{{__name__=~"gateway_.+_(total|count|bucket)"}}[{seen.run.range}s]'
    found = seen.prometheus.get("/api/v1/query", query=every, time=f"{seen.at:.3f}")["result"]
    assert len(found) > 1000
    assert [each["metric"] for each in found if float(each["values"][0][1])] == []


COMPARED = [
    pytest.param(target, FIGURES[panel.dashboard][panel.title][target.ref], id=f"{panel}, {target.ref}")
    for panel in PANELS
    for target in panel.targets
    if target.ref in FIGURES[panel.dashboard].get(panel.title, {})
]


def test_each_panel_is_compared_or_says_why_not() -> None:
    for panel in PANELS:
        figures = FIGURES[panel.dashboard].get(panel.title, {})
        if set(figures) != {target.ref for target in panel.targets}:
            assert NOT_IN_THE_LEDGER[panel.dashboard][panel.title]
    titles = {(panel.dashboard, panel.title) for panel in PANELS}
    for table in (FIGURES, NOT_IN_THE_LEDGER):
        assert {(name, title) for name, rows in table.items() for title in rows} <= titles


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES.keys())
@pytest.mark.parametrize(("target", "figure"), COMPARED)
def test_it_shows_what_the_ledger_says(seen: Seen, target: Target, figure: Figure, choice: Choice) -> None:
    found = seen.ask(target, choice, rate=f"{seen.run.range}s")
    shown = {tuple(labels.get(label, "") for label in figure.by): points[-1] for labels, points in found}
    assert len(shown) == len(found), "labels that are more than these tell series apart"
    expected = figure.compute(seen.ledger, choice, seen.run)
    for key in {*shown, *expected}:
        near(figure, seen, shown.get(key, 0.0), expected.get(key, 0.0))


def test_recorded_rates_go_on_for_a_scrape_at_most(seen: Seen) -> None:
    """Or for a tenth more: Prometheus takes less where the last scrape is longer ago. They were recorded up to a second
    before the last scrape, and saw one that was up to a scrape before that.
    """
    assert 0.9999 < seen.run.stretch < 1.0001 + 1.1 * seen.run.gap / (seen.run.seen - 1 - seen.run.gap)


def near(figure: Figure, seen: Seen, shown: float, expected: float) -> None:
    late = 1 + seen.run.gap  # seconds
    share = late / seen.run.seen if figure.near == "time" else 0.001
    usd = late / 3600 * MACHINE_USD_PER_HOUR
    amount = {"usd": usd, "share": usd / seen.ledger.baseline(EVERYTHING)[()]}.get(figure.near, 1e-9)
    assert shown == pytest.approx(expected, rel=share, abs=amount)
