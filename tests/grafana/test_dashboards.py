"""Dashboards before any data: made from their source, whole after a round trip, asking for what exists."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from gateway.telemetry.families import FAMILIES
from gateway.telemetry.processes import LABEL, NAMES
from grafana.source.__main__ import DASHBOARDS, main, text
from tests.grafana.dashboards import FILES, GRAFANA, VARIABLE, Panel, panels, read, resolved
from tests.prometheus import tool

PANELS = list(panels())
BUILT_IN = {"__range", "__rate_interval", "__interval", "__interval_ms"}
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
MATCHERS = re.compile(r"\{[^}]*\}")
RANGES = re.compile(r"\[[^]]*\]")
MADE_UP = re.compile(r"vector\s*\(|scalar\s*\(|absent\w*\s*\(|\bor\s+[-+(\s]*[\d.]")
"""What would give an empty panel a value."""


def recorded() -> set[str]:
    rules = yaml.safe_load((GRAFANA / "prometheus" / "recording.yaml").read_text())
    return {rule["record"] for group in rules["groups"] for rule in group["rules"]}


def metrics() -> set[str]:
    """Every name that the gateway exposes or the rules record."""
    shown = set(NAMES) | recorded()
    for name, family in FAMILIES.items():
        shown |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if family.kind == "histogram" else {name}
    return shown


def asked(expr: str) -> set[str]:
    """The names in a query that stand where only a metric can: ours all have a prefix or a colon."""
    names = NAME.findall(RANGES.sub("", MATCHERS.sub("", STRING.sub('""', expr))))
    return {name for name in names if name.startswith(("gateway_", "process_")) or ":" in name}


# What is checked in


def test_every_dashboard_is_checked_in_as_its_source_makes_it() -> None:
    assert [path.name for path in FILES] == sorted(DASHBOARDS)
    assert {path.name: path.read_text() for path in FILES} == {name: text(name) for name in sorted(DASHBOARDS)}
    assert main(["--check"]) == 0


def again(given: dict[str, Any]) -> Any:
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(given)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_grafanas_own_types_keep_every_key(path: Any) -> None:
    """They drop without a word what they do not know."""
    assert again(read(path)) == read(path)


def test_a_planted_key_is_lost() -> None:
    given = read(FILES[0])
    given["panels"][1]["options"]["planted"] = 1
    assert again(given) != given


# Each panel


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_each_panel_says_what_it_shows(panel: Panel) -> None:
    given = panel.json
    assert len(given["description"]) > 10
    assert given["description"].endswith(".")
    assert given["fieldConfig"]["defaults"]["unit"]
    assert given["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel.targets
    if panel.type == "table":
        columns = [each for each in given["fieldConfig"]["overrides"] if each["matcher"]["id"] == "byName"]
        units = [column["properties"][0]["id"] for column in columns]
        assert units == ["unit"] * len(panel.targets), "each column has its own"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_layout(path: Any) -> None:
    given = read(path)["panels"]
    assert [panel["id"] for panel in given] == list(range(1, len(given) + 1))
    titles = Counter(panel["title"] for panel in given)
    assert titles.most_common(1)[0][1] == 1, titles
    taken = Counter(
        (x, y)
        for place in (panel["gridPos"] for panel in given)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    assert max(taken.values()) == 1, "two panels on one place"
    assert {x for x, _ in taken} == set(range(24)), "as wide as the page"
    assert len(taken) == 24 * (1 + max(y for _, y in taken)), "no hole"
    assert given[0]["type"] == "row"
    assert [panel["type"] for panel in given[1:7]] == ["stat"] * 6, "headline figures come first"


# Each query


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_each_query_asks_for_what_exists(panel: Panel) -> None:
    for target in panel.targets:
        assert asked(target.expr), target.expr
        assert asked(target.expr) <= metrics()
        assert not MADE_UP.search(target.expr)


@pytest.mark.parametrize(
    "expr", ["sum(x) or vector(0)", "x or 0", "x or (0 * 1)", "x or -1", "absent(x)", "scalar(x)", "vector (1)"]
)
def test_a_planted_constant_is_found(expr: str) -> None:
    assert MADE_UP.search(expr)


def test_a_planted_metric_is_found() -> None:
    assert asked('sum by (le) (rate(gateway_invented_total{x="gateway_y:z"}[5m])) / a:b:c > 0') == {
        "gateway_invented_total",
        "a:b:c",
    }


LABELS = {label for family in FAMILIES.values() for label in family.labels} | {LABEL, "le", "instance", "hosting"}
GROUPED = re.compile(r"\b(?:by|on|group_left|group_right|ignoring|without)\s*\(([^)]*)\)")
MATCHED = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_each_label_exists(panel: Panel) -> None:
    for target in panel.targets:
        used = {name.strip() for group in GROUPED.findall(target.expr) for name in group.split(",")}
        used |= set(MATCHED.findall(target.expr))
        used |= set(re.findall(r"\{\{(\w+)\}\}", target.legend))
        assert used - {""} <= LABELS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_variables_are_declared_and_each_does_something(path: Any) -> None:
    given = read(path)
    declared = {variable["name"]: variable for variable in given["templating"]["list"]}
    queries = [target.expr for panel in PANELS if panel.dashboard == path.stem for target in panel.targets]
    used = {name for expr in queries for name in VARIABLE.findall(expr)}
    assert used - BUILT_IN == set(declared) - {"datasource"}
    assert {"datasource", "team", "route", "model"} <= set(declared)
    for name, variable in declared.items():
        if name == "datasource":
            assert variable["query"] == "prometheus"
            continue
        values = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"])
        assert values
        assert values[2] == name
        assert name in FAMILIES[values[1]].labels
        assert (variable["includeAll"], variable["multi"], variable["allValue"]) == (True, True, ".*")


# Between files


def test_links_lead_to_the_other_dashboards() -> None:
    uids = {read(path)["uid"] for path in FILES}
    assert len(uids) == len(FILES) == 4
    for path in FILES:
        given = read(path)
        assert {link["url"] for link in given["links"]} == {f"/d/{uid}" for uid in uids - {given["uid"]}}
        assert all(link["includeVars"] and link["keepTime"] for link in given["links"])


def test_provisioning_finds_the_dashboards_and_the_data_source() -> None:
    """Grafana's directory /etc/grafana stands for grafana/ here: deploy/ mounts them so."""
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/gateway.yaml").read_text())["providers"]
    path = provider["options"]["path"]
    assert sorted((GRAFANA / path.removeprefix("/etc/grafana/")).glob("*.json")) == FILES
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/gateway.yaml").read_text())["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    scraped = yaml.safe_load((GRAFANA / "prometheus/prometheus.yaml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped


# What they make of several replicas of the gateway

REPLICAS = {
    'gateway_capacity_usd_per_hour{model="own", instance="a"}': "2.4x60 _x60",
    'gateway_baseline_cost_usd_total{route="r", instance="a"}': "0+0.2x60 _x60",
    'gateway_cost_usd_total{model="own", provider="up", instance="a"}': "0+0.01x60 _x60",
    'gateway_cost_usd_total{model="api", provider="up", instance="a"}': "0+0.05x60 _x60",
    'gateway_effective_price_usd_per_million_tokens{model="own", instance="a"}': "9x120",
    'gateway_capacity_usd_per_hour{model="own", instance="b"}': "_x60 4.8x60",
    'gateway_effective_price_usd_per_million_tokens{model="own", instance="b"}': "4x120",
}
"""Over two hours. In the first there is one; in the second another, and a machine that costs twice as much. It
answered for 12 USD at the baseline's prices, of which 3 went to an API.
"""
SHOWN = {
    "Hardware": ("{}", 7.25),  # 7.20: 2.40 in the first hour, 4.80 in the second
    "Idle hardware": ("{}", 6.5),  # 6.60
    "Net saving": ("{}", 1.75),  # 1.80: 12 - 3 - 7.20
    "Price of a million tokens on your own hardware": ('{model="own"}', 4),
}


def test_machines_that_several_replicas_tell_of_cost_their_hours_once(tmp_path: Path) -> None:
    values = {"__range": "120m", "__interval": "1m", "model": ".*", "team": ".*", "route": ".*"}
    asked_for = {panel.title: panel.targets[0].expr for panel in PANELS if panel.dashboard == "cost"}
    case = {
        "interval": "1m",
        "input_series": [{"series": series, "values": given} for series, given in REPLICAS.items()],
        "promql_expr_test": [
            {
                "expr": f"round({resolved(asked_for[title], values)}, 0.25)",  # they count in steps of a minute
                "eval_time": "120m",
                "exp_samples": [{"labels": labels, "value": value}],
            }
            for title, (labels, value) in SHOWN.items()
        ],
    }
    rules = str(GRAFANA / "prometheus" / "recording.yaml")
    (tmp_path / "case.yaml").write_text(yaml.safe_dump({"rule_files": [rules], "tests": [case]}))
    command = [tool("promtool"), "test", "rules", str(tmp_path / "case.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
