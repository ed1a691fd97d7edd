"""The recording rules, evaluated by a real Prometheus that scrapes a real gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests import replies
from tests.prometheus import RULES, Point, Prometheus
from tests.replies import Tokens
from tests.servers import Gateway
from tests.upstream import Upstream

RECORDING = RULES / "recording.yaml"
ROUTES = """
version: 1
defaults: {baseline: closed, retries: 0}
providers:
  ours: {base_url: "@BASE@"}
  theirs: {base_url: "@BASE@", api_key: k}
models:
  small:
    provider: ours
    model: small-up
    hosting: self
    price: {usd_per_hour: 3.60, tokens_per_second: {input: 1000, output: 100}}
  idle:
    provider: ours
    model: idle-up
    hosting: self
    price: {usd_per_hour: 0.50, tokens_per_second: {input: 1000, output: 100}}
  open: {provider: theirs, model: open-up, price: {input: 1, output: 2}}
  closed: {provider: theirs, model: closed-up, price: {input: 10, output: 30}}
routes:
  - {name: mixed, match: {model: mixed}, use: [small], fallback: [open]}
  - {name: plain, match: {model: plain}, use: [open]}
budgets: [{name: company, limit_usd: 2, window: total}]
"""
NAMES = [rule["record"] for group in yaml.safe_load(RECORDING.read_text())["groups"] for rule in group["rules"]]
BURSTS = 6  # of a request on each path


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Prometheus]]:
    """Traffic on every path: answers of both tiers, a fallback, errors; and every rule evaluated after it."""
    directory = tmp_path_factory.mktemp("recorded")
    with Upstream(replies.ok()) as upstream:
        upstream.always("small-up", replies.ok(tokens=Tokens(1000, 0, 100)))
        upstream.always("open-up", replies.ok(tokens=Tokens(1000, 0, 100)))
        with (
            Gateway(directory, ROUTES.replace("@BASE@", upstream.base_url)) as gateway,
            Prometheus(directory, [f"127.0.0.1:{gateway.ops_port}"]) as prometheus,
        ):
            prometheus.wait("count_over_time(up[1m]) >= 2")
            for burst in range(1, BURSTS + 1):
                assert gateway.chat("mixed").is_success
                assert gateway.chat("mixed", stream=True).is_success
                upstream.script("small-up", replies.status(500))
                assert gateway.chat("mixed").headers["x-gateway-model"] == "open"
                upstream.script("open-up", replies.status(500))
                assert gateway.chat("plain").status_code == 502
                assert gateway.chat("plain", stream=True).is_success
                prometheus.wait(f"sum(gateway_requests_total) == {5 * burst}")  # in a scrape of its own
            prometheus.wait(f"sum(route_outcome:gateway_requests:rate5m) * 300 > {5 * BURSTS - 1}")
            prometheus.wait_all(*NAMES)
            yield gateway, prometheus


def by(points: list[Point], *labels: str) -> dict[tuple[str, ...], float]:
    return {tuple(point.labels[label] for label in labels): point.value for point in points}


def at_once(prometheus: Prometheus, *queries: str) -> list[list[Point]]:
    """All at one time, so that they can be compared."""
    now = prometheus.query("time()")[0].value
    return [prometheus.query(query, now) for query in queries]


def test_every_rule_is_healthy_and_has_data(scraped: tuple[Gateway, Prometheus]) -> None:
    _, prometheus = scraped
    rules = [rule for group in prometheus.get("/api/v1/rules", type="record")["groups"] for rule in group["rules"]]
    assert sorted(rule["name"] for rule in rules) == sorted(NAMES)
    assert len(NAMES) == len(set(NAMES)) > 60
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []


def test_money_of_machines_and_the_headline(scraped: tuple[Gateway, Prometheus]) -> None:
    _, prometheus = scraped
    names = [
        "model:gateway_capacity_usd_per_hour:max",
        "model:gateway_charged_usd_per_hour:rate5m",
        "model:gateway_idle_usd_per_hour:rate5m",
        "model:gateway_utilisation:ratio_rate5m",
        "model:gateway_spend_usd_per_hour:rate5m",
    ]
    answers = 'sum by (model) (route_task_model_team_outcome:gateway_requests:rate5m{outcome="ok"})'
    found = at_once(prometheus, *names, "all:gateway_baseline_cost_usd_per_hour:rate5m", answers)
    capacity, charged, idle, used, spend = (by(points, "model") for points in found[:5])
    per_second = by(found[6], "model")
    headline = prometheus.value("all:gateway_headline_saving_usd_per_hour:rate5m")

    assert capacity == {("small",): 3.6, ("idle",): 0.5}
    # Answers of two seconds each (1000 / 1000 + 100 / 100) at 3.6 USD an hour; as many as there were, but
    # for what rate() makes of a window that is not full.
    assert per_second["small",] * 300 == pytest.approx(2 * BURSTS, rel=0.25)
    assert charged["small",] == pytest.approx(per_second["small",] * 2 * 3.6, rel=0.05)
    assert charged["idle",] == 0
    assert idle["small",] == pytest.approx(3.6 - charged["small",])
    assert idle["idle",] == 0.5
    assert used["small",] == pytest.approx(charged["small",] / 3.6)
    assert (spend["small",], spend["idle",]) == (3.6, 0.5)
    assert spend["open",] == pytest.approx(per_second["open",] * 3600 * (1000 + 2 * 100) / 1e6, rel=0.05)
    assert headline is not None
    assert headline == pytest.approx(found[5][0].value - sum(spend.values()), rel=0.05)


def test_ratios(scraped: tuple[Gateway, Prometheus]) -> None:
    _, prometheus = scraped
    tiers = by(prometheus.query("route_hosting:gateway_answers:ratio_rate5m"), "route", "hosting")
    assert tiers["mixed", "self"] == pytest.approx(2 / 3, abs=0.05)
    assert tiers["mixed", "api"] == pytest.approx(1 / 3, abs=0.05)
    assert tiers["plain", "api"] == 1
    count = by(prometheus.query("route:gateway_tiers:count"), "route")
    assert (count["mixed",], count["plain",]) == (2, 1)

    fallbacks = by(prometheus.query("route:gateway_fallbacks:ratio_rate5m"), "route")
    assert 0.2 < fallbacks["mixed",] <= 0.4  # the first of a series is not seen by rate()
    assert fallbacks["plain",] == 0
    errors = by(prometheus.query("route:gateway_errors:ratio_rate1h"), "route")
    assert errors == {("mixed",): 0, ("plain",): pytest.approx(0.5, abs=0.05)}
    in_time = by(prometheus.query("route:gateway_first_tokens_in_time:ratio_rate5m"), "route")
    assert set(in_time) == {("mixed",), ("plain",)}
    assert all(0 < share <= 1 for share in in_time.values())


def test_budgets(scraped: tuple[Gateway, Prometheus]) -> None:
    gateway, prometheus = scraped
    row = gateway.rows("SELECT sum(cost_nano) AS nano FROM attempts WHERE model = 'open'")[0]
    used = prometheus.value('budget_scope:gateway_budget_used:ratio{budget="company"}')
    assert used == pytest.approx(row["nano"] / 1e9 / 2)
