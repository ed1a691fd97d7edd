"""The recording rules, evaluated by a real Prometheus that scrapes a real gateway."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from gateway.core.budgets import Window
from tests import replies
from tests.prometheus import RULES, Point, Prometheus
from tests.replies import Tokens
from tests.servers import BIN, Gateway, until
from tests.test_docs import ROOT
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
  metered: {provider: ours, model: metered-up, hosting: self, price: {input: 5, output: 10}}
  open: {provider: theirs, model: open-up, price: {input: 1, output: 2}}
  closed: {provider: theirs, model: closed-up, price: {input: 10, output: 30}}
routes:
  - {name: mixed, match: {model: mixed}, use: [small], fallback: [open]}
  - {name: plain, match: {model: plain}, use: [open]}
  - {name: rented, match: {model: rented}, use: [metered]}
budgets: [{name: company, limit_usd: 2, window: month}]
"""
GROUPS = {
    group["name"]: [rule["record"] for rule in group["rules"]]
    for group in yaml.safe_load(RECORDING.read_text())["groups"]
}
NAMES = [name for names in GROUPS.values() for name in names]
BURSTS = 6  # of a request on each path
PATHS = 6
MACHINES = 3.60 + 0.50  # USD an hour


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Prometheus, float]]:
    """Traffic on every path: answers of both tiers, a fallback, errors; and a moment after it when all was recorded."""
    directory = tmp_path_factory.mktemp("recorded")
    with Upstream(replies.ok()) as upstream:
        upstream.always("small-up", replies.ok(tokens=Tokens(1000, 0, 100)))
        upstream.always("open-up", replies.ok(tokens=Tokens(1000, 0, 100)))
        upstream.always("metered-up", replies.ok(tokens=Tokens(1000, 0, 100)))
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
                assert gateway.chat("rented").is_success
                prometheus.wait(f"sum(gateway_requests_total) == {PATHS * burst}")  # in a scrape of its own
            now = prometheus.query("time()")[0].value  # groups are evaluated once a second, each at its own moment
            prometheus.wait_all(*(f"timestamp({name}) > {now}" for name in NAMES))

            def recorded() -> float:
                """A scrape's moment may be before that of the rules that saw the last request: then a later one is."""
                at = prometheus.steady(now)
                return at if all(prometheus.query(f"timestamp({name}) > {now}", at) for name in NAMES) else 0.0

            yield gateway, prometheus, until("all to be recorded", recorded)


def by(points: list[Point], *labels: str) -> dict[tuple[str, ...], float]:
    return {tuple(point.labels[label] for label in labels): point.value for point in points}


def test_every_rule_is_healthy_and_has_data(scraped: tuple[Gateway, Prometheus, float]) -> None:
    """The fixture has waited for the data of each."""
    _, prometheus, _ = scraped
    rules = [rule for group in prometheus.get("/api/v1/rules", type="record")["groups"] for rule in group["rules"]]
    assert sorted(rule["name"] for rule in rules) == sorted(NAMES)
    assert len(NAMES) == len(set(NAMES)) > 60
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []


def test_names_say_which_labels_are_left(scraped: tuple[Gateway, Prometheus, float]) -> None:
    _, prometheus, at = scraped
    for name in NAMES:
        level, _, _ = name.split(":")
        expected = set() if level == "all" else set(level.split("_"))
        for point in prometheus.query(name, at):
            assert point.labels.keys() - {"__name__"} == expected, name


def agree(prometheus: Prometheus, *pairs: tuple[str, str]) -> None:
    """Waits until the sides of every pair are the same in one evaluation of the rules of money.

    Rates go on to the moment of evaluation as they were up to the last scrape. At one moment all are so much greater by
    the same factor; at two of them, a part of a second apart, by some percent where counters are as young as here. A
    scrape that comes in among the rules of one evaluation does the same to it: then the next one is looked at.
    """
    found: list[tuple[float | None, float | None]] = []

    def all_agree() -> bool:
        at = prometheus.value(f"timestamp({GROUPS['gateway_money'][-1]}" + '{route="mixed"})')
        found[:] = [(prometheus.value(left, at), prometheus.value(right, at)) for left, right in pairs]
        return all(None not in sides and sides[0] == pytest.approx(sides[1], rel=1e-6) for sides in found)

    try:
        until("both sides of each to agree", all_agree, 60)
    except AssertionError as error:
        values = (f"{values} of {pair}" for values, pair in zip(found, pairs, strict=True))
        raise AssertionError("in no evaluation all were the same\n" + "\n".join(values)) from error


def test_money_of_machines_and_the_headline(scraped: tuple[Gateway, Prometheus, float]) -> None:
    """Each burst has two answers of `small` and of `open`, one of `metered`, of 1000 tokens in and 100 out."""
    _, prometheus, at = scraped
    capacity = by(prometheus.query("model:gateway_capacity_usd_per_hour:max", at), "model")
    assert capacity == {("small",): 3.6, ("idle",): 0.5}
    # An hour at the pace of all of them in the rate's five minutes, as the rate has it: `closed` takes 10 and 30 USD a
    # million, so one has a baseline of 0.013 USD.
    answers = 2 * BURSTS * 3600 / 300
    baseline = "all:gateway_baseline_cost_usd_per_hour:rate5m"
    would_be = 2.5 * answers * 0.013
    pace = f"(scalar({baseline}) / {would_be})"
    # There are at least as many scrapes as bursts, and a rate goes on for 1.1 of them at most.
    assert 1 - 1e-6 < (prometheus.value(pace, at) or 0) < 1 + 1.1 / (BURSTS - 1)

    charged = 'model:gateway_charged_usd_per_hour:rate5m{model="small"}'
    headline = "all:gateway_headline_saving_usd_per_hour:rate5m"
    api = answers * 0.0012  # at the 1 and 2 USD a million of `open`
    rented = answers / 2 * 0.006  # a self-hosted model that is priced by the token counts with what it was charged
    agree(
        prometheus,
        # Answers of two seconds each (1000 / 1000 + 100 / 100) at 3.6 USD an hour.
        (charged, f"{answers * 2 * 3.6 / 3600} * {pace}"),
        ('model:gateway_spend_usd_per_hour:rate5m{model="open"}', f"{api} * {pace}"),
        ('model:gateway_idle_usd_per_hour:rate5m{model="small"}', f"3.6 - {charged}"),
        ('model:gateway_utilisation:ratio_rate5m{model="small"}', f"{charged} / 3.6"),
        ('model:gateway_spend_usd_per_hour:rate5m{model="metered"}', f"{rented} * {pace}"),
        (headline, f"({would_be - api - rented}) * {pace} - {MACHINES}"),
        ("all:gateway_headline_saving:ratio_rate5m", f"{headline} / {baseline}"),
    )

    assert prometheus.value('model:gateway_charged_usd_per_hour:rate5m{model="idle"}', at) == 0
    assert prometheus.value('model:gateway_idle_usd_per_hour:rate5m{model="idle"}', at) == 0.5
    machines = 'model:gateway_spend_usd_per_hour:rate5m{model=~"small|idle"}'
    assert by(prometheus.query(machines, at), "model") == capacity, "hours of machines, not what requests were charged"


def test_docs_rules_and_report_have_one_headline(scraped: tuple[Gateway, Prometheus, float]) -> None:
    """Of the same requests, `metered` among them: it is self-hosted, and has a price by the token."""
    gateway, prometheus, _ = scraped
    (asked,) = re.findall(r"# the headline saving,.*\n((?:.+\n)+?)```", (ROOT / "docs/cost.md").read_text())
    # Either side as a share of its own baseline, as the page's query may see a scrape that the rules came before.
    rate, baseline = (
        "sum(rate(gateway_baseline_cost_usd_total[5m])) * 3600",
        "all:gateway_baseline_cost_usd_per_hour:rate5m",
    )
    headline = "all:gateway_headline_saving_usd_per_hour:rate5m"
    page = asked.replace("[1h]", "[5m]")
    agree(prometheus, (f"(({page}) + {MACHINES}) / ({rate})", f"({headline} + {MACHINES}) / {baseline}"))

    gateway.wait_rows(PATHS * BURSTS, 60)
    command = [str(BIN), "report", "--config", str(gateway.routes), "--json"]
    told = json.loads(subprocess.run(command, env=gateway.env, capture_output=True, check=True, timeout=60).stdout)
    best = told["headline"]
    without = {each["model"]: each["charged_usd"] for each in told["hardware"] if each["capacity_usd"] is None}
    assert without == {"metered": pytest.approx(BURSTS * 0.006)}
    machines = sum(each["capacity_usd"] or 0 for each in told["hardware"])
    assert best["capacity_usd"] == pytest.approx(machines + without["metered"])
    # The page's query, of the counters as they stand in place of their rates: machines for one hour.
    totals, count = re.subn(r"rate\((\w+)\[1h\]\) *\) *\* 3600", r"\1)", asked)
    assert count == 2
    prometheus.wait(f"abs(({totals}) - {best['saving_usd'] + machines - MACHINES}) < 1e-6")


def test_ratios(scraped: tuple[Gateway, Prometheus, float]) -> None:
    _, prometheus, at = scraped
    tiers = by(prometheus.query("route_hosting:gateway_answers:ratio_rate5m", at), "route", "hosting")
    assert tiers["mixed", "self"] == pytest.approx(2 / 3, abs=0.05)
    assert tiers["mixed", "api"] == pytest.approx(1 / 3, abs=0.05)
    assert tiers["plain", "api"] == 1
    count = by(prometheus.query("route:gateway_tiers:count", at), "route")
    assert (count["mixed",], count["plain",]) == (2, 1)

    fallbacks = by(prometheus.query("route:gateway_fallbacks:ratio_rate5m", at), "route")
    assert 0.2 < fallbacks["mixed",] <= 0.4  # the first of a series is not seen by rate()
    assert fallbacks["plain",] == 0
    errors = by(prometheus.query("route:gateway_errors:ratio_rate1h", at), "route")
    assert errors == {("mixed",): 0, ("plain",): pytest.approx(0.5, abs=0.05), ("rented",): 0}
    in_time = by(prometheus.query("route:gateway_first_tokens_in_time:ratio_rate5m", at), "route")
    assert set(in_time) == {("mixed",), ("plain",)}  # of `rented` nothing is streamed
    assert all(0 < share <= 1 for share in in_time.values())


def test_budgets(scraped: tuple[Gateway, Prometheus, float]) -> None:
    gateway, prometheus, at = scraped
    gateway.wait_rows(PATHS * BURSTS, 60)
    row = gateway.rows("SELECT sum(cost_nano) AS nano FROM attempts WHERE model = 'open'")[0]
    used = 'budget_scope:gateway_budget_used:ratio{budget="company"}'
    # Which is set once in an interval of its own: the last request's share may come a scrape later than its count.
    prometheus.wait(f"abs({used} - {row['nano'] / 1e9 / 2}) < 1e-9")
    left = prometheus.value("budget_scope:gateway_budget_window_left_hours:max", at)
    _, end = Window("month").bounds(at)
    assert left == pytest.approx((end - at) / 3600, abs=0.01)
