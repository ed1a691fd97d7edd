"""The recording rules, evaluated by a real Prometheus that scrapes a real gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from gateway.core.budgets import Window
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
budgets: [{name: company, limit_usd: 2, window: month}]
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


def test_every_rule_is_healthy_and_has_data(scraped: tuple[Gateway, Prometheus]) -> None:
    """The fixture has waited for the data of each."""
    _, prometheus = scraped
    rules = [rule for group in prometheus.get("/api/v1/rules", type="record")["groups"] for rule in group["rules"]]
    assert sorted(rule["name"] for rule in rules) == sorted(NAMES)
    assert len(NAMES) == len(set(NAMES)) > 60
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []


def test_names_say_which_labels_are_left(scraped: tuple[Gateway, Prometheus]) -> None:
    _, prometheus = scraped
    for name in NAMES:
        level, _, _ = name.split(":")
        expected = set() if level == "all" else set(level.split("_"))
        for point in prometheus.query(name):
            assert point.labels.keys() - {"__name__"} == expected, name


def agree(prometheus: Prometheus, left: str, right: str) -> None:
    """Waits until both sides are the same within 3%: groups of rules are evaluated at moments of their own."""
    prometheus.wait(f"abs(({left}) / ({right}) - 1) < 0.03")


def test_money_of_machines_and_the_headline(scraped: tuple[Gateway, Prometheus]) -> None:
    _, prometheus = scraped
    capacity = by(prometheus.query("model:gateway_capacity_usd_per_hour:max"), "model")
    assert capacity == {("small",): 3.6, ("idle",): 0.5}
    # Answers of two seconds each (1000 / 1000 + 100 / 100) at 3.6 USD an hour.
    answers = 'sum by (model) (route_task_model_team_outcome:gateway_requests:rate5m{outcome="ok"})'
    agree(prometheus, 'model:gateway_charged_usd_per_hour:rate5m{model="small"}', f"{answers} * 2 * 3.6")
    agree(prometheus, 'model:gateway_spend_usd_per_hour:rate5m{model="open"}', f"{answers} * 3600 * 0.0012")
    charged = 'scalar(model:gateway_charged_usd_per_hour:rate5m{model="small"})'
    agree(prometheus, 'model:gateway_idle_usd_per_hour:rate5m{model="small"}', f"3.6 - {charged}")
    agree(prometheus, 'model:gateway_utilisation:ratio_rate5m{model="small"}', f"{charged} / 3.6")

    assert prometheus.value('model:gateway_charged_usd_per_hour:rate5m{model="idle"}') == 0
    assert prometheus.value('model:gateway_idle_usd_per_hour:rate5m{model="idle"}') == 0.5
    machines = 'model:gateway_spend_usd_per_hour:rate5m{model=~"small|idle"}'
    assert by(prometheus.query(machines), "model") == capacity, "hours of machines, not what requests were charged"

    headline = "all:gateway_headline_saving_usd_per_hour:rate5m"
    # 1000 tokens in and 100 out, at the 10 and 30 USD a million of `closed`, for each answer of either model.
    api = answers.replace('outcome="ok"', 'outcome="ok", model="open"')
    agree(prometheus, f"{headline} + 4.1 + scalar({api}) * 3600 * 0.0012", f"scalar(sum({answers})) * 3600 * 0.013")


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
    used = 'budget_scope:gateway_budget_used:ratio{budget="company"}'
    # Which is set once in an interval of its own: the last request's share may come a scrape later than its count.
    prometheus.wait(f"abs({used} - {row['nano'] / 1e9 / 2}) < 1e-9")
    left = prometheus.value("budget_scope:gateway_budget_window_left_hours:max")
    now = prometheus.query("time()")[0].value
    _, end = Window("month").bounds(now)
    assert left == pytest.approx((end - now) / 3600, abs=0.01)
