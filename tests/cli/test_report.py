"""`gateway report` as a process, against the ledger's own sums and by hand."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.core.usage import Usage
from gateway.stores.reader import read_requests, sums
from gateway.stores.summary import DIMENSIONS
from tests import ledgers
from tests.servers import BIN
from tests.stores.records import ATTEMPT, keep, record

START = 1_793_577_600.0  # 2026-11-02T00:00:00Z


def report(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN), "report", "--config", "routes.yaml", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def reported(folder: Path, *options: str) -> dict[str, Any]:
    ended = report(folder, "--json", "--since", "2026-11-01", *options)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def nano(usd: float) -> int:
    return round(usd * 1e9)


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    ledgers.make(folder, 4_000)
    return folder


def equals(kept: Any, totals: dict[str, Any]) -> None:
    assert totals["requests"] == kept.requests == sum(totals["outcomes"].values())
    assert totals["attempts"] == kept.attempts
    assert nano(totals["cost_usd"]) == kept.cost_nano == kept.attempts_cost_nano
    assert sum(map(nano, totals["cost_by_purpose_usd"].values())) == kept.cost_nano
    assert nano(totals["api_cost_usd"]) + nano(totals["self_hosted_cost_usd"]) == kept.cost_nano
    assert nano(totals["baseline_usd"]) == kept.baseline_nano
    assert Usage(**totals["tokens"]) == kept.tokens


@pytest.mark.parametrize("by", ["", *DIMENSIONS, "team,model", "day,purpose,outcome", "tag,key"])
def test_the_totals_are_the_ledgers_sums(traffic: Path, by: str) -> None:
    kept = sums(traffic / "gateway.db")
    found = reported(traffic, *(("--by", by) if by else ()))
    equals(kept, found["totals"])
    if by and "tag" not in by:  # a request with two tags is in both groups
        assert sum(group["requests"] for group in found["groups"]) == kept.requests
        assert sum(nano(group["cost_usd"]) for group in found["groups"]) == kept.cost_nano
        assert sum(nano(group["baseline_usd"]) for group in found["groups"]) == kept.baseline_nano


def test_an_attempt_counts_for_its_own_model(traffic: Path) -> None:
    cost: dict[str, int] = {}
    answered: dict[str, int] = {}
    for made in read_requests(traffic / "gateway.db", attempts=True):
        answered[made.model] = answered.get(made.model, 0) + (made.outcome == "ok")
        for attempt in made.attempts:
            cost[attempt.model] = cost.get(attempt.model, 0) + attempt.cost_nano
    groups = {group["model"]: group for group in reported(traffic, "--by", "model")["groups"]}
    assert {name: nano(group["cost_usd"]) for name, group in groups.items() if name} == cost
    assert {name: group["outcomes"]["ok"] for name, group in groups.items()} == answered


def test_csv_says_the_same_to_the_nano_dollar(traffic: Path) -> None:
    groups = reported(traffic, "--by", "team,route")["groups"]
    ended = report(traffic, "--csv", "--since", "2026-11-01", "--by", "team,route", "-o", "out.csv")
    assert (ended.returncode, ended.stdout) == (0, "")
    rows = list(csv.DictReader(io.StringIO((traffic / "out.csv").read_text(encoding="utf-8"))))
    assert [(row["team"], row["route"]) for row in rows] == [(group["team"], group["route"]) for group in groups]
    for row, group in zip(rows, groups, strict=True):
        assert nano(float(row["cost_usd"])) == nano(group["cost_usd"])
        assert int(row["requests"]) == group["requests"]
        assert int(row["output_tokens"]) == group["tokens"]["output"]


# By hand

ROUTES = """\
version: 1
providers: {up: {base_url: "http://127.0.0.1:9/v1", api_key: k}}
models:
  own:
    provider: up
    model: o
    hosting: self
    price: {gpu_hour_usd: 2, gpus: 2, tokens_per_second: {input: 1000, output: 100}}
    endpoints: [{url: "http://127.0.0.1:9/v1"}, {url: "http://127.0.0.1:8/v1"}]
  gpt: {provider: up, model: g, price: {input: 2, output: 10}}
routes: [{name: all, match: {model: auto}, use: [own], fallback: [gpt], baseline: gpt}]
"""
USED = Usage(input=1000, output=100)


def small(folder: Path, requests: Sequence[Any]) -> Path:
    (folder / "routes.yaml").write_text(ROUTES)
    keep(requests, folder / "gateway.db")
    return folder


def test_the_headline_counts_hardware_by_the_hour(tmp_path: Path) -> None:
    own = ATTEMPT._replace(model="own", hosting="self", usage=USED, cost_nano=2_222_222)
    gpt = ATTEMPT._replace(model="gpt", hosting="api", usage=USED, cost_nano=3_000_000)
    lost = own._replace(purpose="retry", result="timeout", cost_nano=1_111_111)
    made = [
        record("a", own)._replace(baseline_nano=3_000_000),
        record("b", lost, gpt)._replace(baseline_nano=3_000_000, tags=()),
    ]
    started = [each._replace(started=START + 3600 * number) for number, each in enumerate(made)]
    # Three hours from the first request on, though the period began before: 2 endpoints of 2 GPUs at 2 USD an hour.
    found = reported(small(tmp_path, started), "--until", "2026-11-02T03:00:00")
    capacity = 3 * 8 * 10**9
    assert found["from"] == "2026-11-02T00:00:00+00:00"
    [hardware] = found["hardware"]
    assert (hardware["model"], nano(hardware["capacity_usd"])) == ("own", capacity)
    assert nano(hardware["charged_usd"]) == 3_333_333
    assert nano(hardware["idle_usd"]) == capacity - 3_333_333
    assert hardware["utilisation"] == 3_333_333 / capacity
    assert nano(found["headline"]["saving_usd"]) == 6_000_000 - 3_000_000 - capacity
    totals = found["totals"]
    assert nano(totals["savings_usd"]) == 3_000_000 - 2_222_222  # the first; the second cost more than its baseline
    assert nano(totals["extra_usd"]) == 1_111_111
    assert {name: nano(usd) for name, usd in totals["cost_by_purpose_usd"].items()} == {
        "answer": 5_222_222,
        "retry": 1_111_111,
    }
    text = report(tmp_path, "--since", "2026-11-01", "--until", "2026-11-02T03:00:00", "--by", "tag").stdout
    assert "own hardware, idle included  -$24" in text


def test_a_machine_costs_its_hours_whoever_owns_it(tmp_path: Path) -> None:
    """As the metrics have it. What was charged while it was hosted otherwise is no part of these hours."""
    rented = ATTEMPT._replace(model="own", hosting="api", usage=USED, cost_nano=2_222_222)
    before = ATTEMPT._replace(model="own", hosting="self", usage=USED, cost_nano=1_000_000)
    made = [record("a", rented)._replace(started=START), record("b", before)._replace(started=START + 60)]
    folder = small(tmp_path, [each._replace(baseline_nano=3_000_000) for each in made])
    (folder / "routes.yaml").write_text(ROUTES.replace("hosting: self", "hosting: api"))
    found = reported(folder, "--until", "2026-11-02T03:00:00")
    [hardware] = found["hardware"]
    assert (nano(hardware["capacity_usd"]), nano(hardware["charged_usd"])) == (24 * 10**9, 2_222_222)
    assert nano(found["headline"]["api_cost_usd"]) == 1_000_000
    assert nano(found["headline"]["saving_usd"]) == 6_000_000 - 1_000_000 - 24 * 10**9


def test_tags_days_and_a_period(tmp_path: Path) -> None:
    made = [
        record("a")._replace(started=START - 1, tags=("x", "y")),
        record("b")._replace(started=START, tags=("y",)),
        record("c")._replace(started=START + 90_000, tags=(), user="=HYPERLINK(1)"),
    ]
    folder = small(tmp_path, made)
    by_tag = {group["tag"]: group["requests"] for group in reported(folder, "--by", "tag")["groups"]}
    assert by_tag == {"x": 1, "y": 2, "": 1}
    by_day = [(group["day"], group["requests"]) for group in reported(folder, "--by", "day")["groups"]]
    assert by_day == [("2026-11-01", 1), ("2026-11-02", 1), ("2026-11-03", 1)]
    only = reported(folder, "--by", "hour", "--since", "2026-11-02", "--until", "2026-11-03")
    assert [group["hour"] for group in only["groups"]] == ["2026-11-02T00:00Z"]
    assert "'=HYPERLINK(1)" in report(folder, "--csv", "--since", "2026-11-01", "--by", "user").stdout


def test_an_empty_ledger_and_none(tmp_path: Path) -> None:
    folder = small(tmp_path, [])
    found = reported(folder, "--by", "team")
    assert (found["totals"]["requests"], found["groups"], found["headline"]["saving_usd"]) == (0, [], 0)
    missing = report(folder, "--ledger", "elsewhere.db")
    assert missing.returncode == 1
    assert "there is no ledger at" in missing.stderr
    assert report(folder, "--by", "colour").returncode == 2
    assert report(folder, "--json", "--csv").returncode == 2
