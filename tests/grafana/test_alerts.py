"""Alerts: each fires and stays silent in promtool's own tests (tests/grafana/alerts/), stands on metrics that exist,
and leads to its section in docs/runbooks.md.
"""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.telemetry.families import FAMILIES
from tests.prometheus import RULES, rule_files, tool

ROOT = Path(__file__).parent.parent.parent
CASES = sorted((Path(__file__).parent / "alerts").glob("*.yaml"))
METRIC = re.compile(r"(?<![\w:])gateway_\w+(?![\w:])")
RECORDED = re.compile(r"\b[a-z_]+:\w+:\w+\b")
SELECTED = re.compile(r"(?<![\w:])(?P<name>gateway_\w+)(?:\{(?P<matchers>[^}]*)\})?(?:\[\w+\])?")
FROM_SCRAPE = {"instance", "job"}


@functools.cache
def groups() -> list[dict[str, Any]]:
    return [group for path in rule_files() for group in yaml.safe_load(path.read_text())["groups"]]


def rules() -> list[dict[str, Any]]:
    return [rule for group in groups() for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]


def promtool(*args: str | Path) -> str:
    ended = subprocess.run(
        [tool("promtool"), *map(str, args)], capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def test_promtool_accepts_the_configuration_and_all_rules() -> None:
    told = promtool("check", "config", RULES / "prometheus.yaml")
    assert re.findall(r"(\d+) rules found", told) == [
        str(sum(len(group["rules"]) for group in yaml.safe_load(path.read_text())["groups"])) for path in rule_files()
    ]
    promtool("check", "rules", "--lint=all", "--lint-fatal", *rule_files())


def test_amtool_accepts_the_example_of_an_alertmanager() -> None:
    subprocess.run([tool("amtool"), "check-config", RULES / "alertmanager.yaml"], capture_output=True, check=True)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_alerts_fire_and_stay_silent(path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", path)


# What promtool does not ask


def cases() -> Iterator[tuple[str, str, list[str]]]:
    """(alert, severity or "silent", the metrics that the case feeds)."""
    for path in CASES:
        written = yaml.safe_load(path.read_text())
        assert [(path.parent / name).resolve() for name in written["rule_files"]] == rule_files()
        assert sorted(written["group_eval_order"]) == sorted(group["name"] for group in groups())
        for test in written["tests"]:
            fed = [each["series"].partition("{")[0] for each in test["input_series"] if "_" not in each["values"]]
            for case in test["alert_rule_test"]:
                expected = case["exp_alerts"]
                for severity in {each["exp_labels"]["severity"] for each in expected} or {"silent"}:
                    yield case["alertname"], severity, fed


def named(rule: Mapping[str, Any]) -> str:
    return f"{rule['alert']} ({rule['labels']['severity']})"


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_every_alert_has_a_firing_and_a_silent_case(alert: Mapping[str, Any]) -> None:
    own = [case for case in cases() if case[0] == alert["alert"]]
    assert alert["labels"]["severity"] in {how for _, how, _ in own}
    silent = [fed for _, how, fed in own if how == "silent"]
    needed = metrics_behind(alert["expr"])
    # Silence counts where there was something to hear: the case feeds what the alert looks at.
    assert any(needed & {base(name) for name in fed} for fed in silent)


def test_no_case_is_for_an_alert_that_is_gone() -> None:
    assert {name for name, _, _ in cases()} == {alert["alert"] for alert in ALERTS}


def base(metric: str) -> str:
    """The family that a sample belongs to."""
    return metric if metric in FAMILIES else re.sub(r"_(bucket|count|sum)$", "", metric)


def metrics_behind(expr: str) -> set[str]:
    """What an expression comes from, through the recording rules."""
    found = {base(name) for name in METRIC.findall(expr)} | ({"up"} if re.search(r"\bup\b", expr) else set())
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
    for name in RECORDED.findall(expr):
        assert name in recorded, f"nobody records {name}"
        found |= metrics_behind(recorded[name])
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("record") or named(rule))
def test_every_metric_and_label_of_a_rule_exists(rule: Mapping[str, Any]) -> None:
    expr = rule["expr"]
    assert metrics_behind(expr) - {"up"} <= set(FAMILIES)
    for found in SELECTED.finditer(expr):
        family = FAMILIES[base(found["name"])]
        known = {*family.labels, *FROM_SCRAPE, *(["le"] if family.kind == "histogram" else [])}
        assert set(re.findall(r"(\w+)\s*[=!]~?\s*\"", found["matchers"] or "")) <= known
        if family.kind == "histogram":
            assert re.search(r"_(bucket|count|sum)$", found["name"]), "a histogram has no series of its own name"
    # `by` directly around a metric: each label must be one of its.
    for labels, inner in re.findall(r"by \(([\w, ]+)\) \((?:rate|increase)?\(?(gateway_\w+)(?![\w:])", expr):
        assert set(re.split(r",\s*", labels)) <= {*FAMILIES[base(inner)].labels, *FROM_SCRAPE, "le"}


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_every_alert_says_what_and_leads_to_its_runbook(alert: Mapping[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    told = alert["annotations"]
    assert set(told) == {"summary", "description", "runbook_url"}
    page, _, anchor = told["runbook_url"].partition("#")
    assert page == "docs/runbooks.md"
    assert anchor == alert["alert"].lower()
    by = set(re.findall(r"\$labels\.(\w+)", told["summary"] + told["description"]))
    assert by or alert["alert"] == "GatewayOverloaded", "only what is about the whole gateway names no label"


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    text = (ROOT / "docs" / "runbooks.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(dict.fromkeys(alert["alert"] for alert in ALERTS))
    for name, section in sections.items():
        for part in ("**What it means.**", "**What to look at.**", "**What to do.**"):
            assert part in section, f"{name}: {part}"
        for metric in METRIC.findall(section):
            assert base(metric) in FAMILIES, metric
        recorded = {rule["record"] for rule in rules() if "record" in rule}
        assert set(RECORDED.findall(section)) <= recorded


def test_the_queries_in_the_documentation_are_of_what_there_is() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert set(RECORDED.findall(text)) <= recorded
    assert {base(name) for name in METRIC.findall(text)} <= set(FAMILIES)
