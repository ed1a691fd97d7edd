"""`gateway plan` as a process, on ledgers that the serving code has written."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.core.record import AttemptRecord, Record
from gateway.core.usage import More, Usage
from gateway.stores.reader import sums
from tests import ledgers
from tests.servers import BIN
from tests.stores.records import ATTEMPT, keep, record

ROWS = 20_000
SINCE = "2026-11-01"
START = 1_793_577_600.0


def plan(folder: Path, changed: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "new.yaml").write_text(changed)
    command = [str(BIN), "plan", "--config", "routes.yaml", "--routes", "new.yaml", "--since", SINCE, *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def planned(folder: Path, changed: str, *options: str) -> dict[str, Any]:
    ended = plan(folder, changed, "--json", *options)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def nano(usd: float) -> int:
    return round(usd * 1e9)


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("traffic")
    ledgers.make(folder, ROWS)
    yield folder
    shutil.rmtree(folder)


def unchanged(found: dict[str, Any]) -> bool:
    of_routes = [found["totals"], *found["routes"].values()]
    return all(
        figure["before"] == figure["after"]
        for figures in of_routes
        for figure in (*(value for name, value in figures.items() if name != "models"), *figures["models"].values())
    )


def test_the_traffic_is_of_every_kind(traffic: Path) -> None:
    with closing(sqlite3.connect(traffic / "gateway.db")) as db:
        outcomes = {row[0] for row in db.execute("SELECT DISTINCT coalesce(rejection, outcome) FROM requests")}
        results = {row[0] for row in db.execute("SELECT DISTINCT result FROM attempts")}
        purposes = {row[0] for row in db.execute("SELECT DISTINCT purpose FROM attempts")}
        query = "SELECT count(*) FROM attempts WHERE number > 0 AND reason = 'stream_cut'"
        (continued,) = db.execute(query).fetchone()
    assert {"ok", "client_error", "cancelled", "upstream_error", "budget", "rate_limit"} <= outcomes
    assert {"server_error", "rate_limited", "timeout", "stream_cut", "connect", "empty", "relayed"} <= results
    assert purposes == {"answer", "retry", "hedge"}
    assert continued


def test_the_unchanged_file_costs_what_the_ledger_says(traffic: Path) -> None:
    found = planned(traffic, (traffic / "routes.yaml").read_text())
    kept = sums(traffic / "gateway.db")
    totals = found["totals"]
    assert totals["requests"]["after"] == kept.requests == ROWS
    assert nano(totals["cost_usd"]["after"]) == kept.cost_nano == kept.attempts_cost_nano
    assert nano(totals["baseline_usd"]["after"]) == kept.baseline_nano
    assert found["changed_requests"] == 0
    assert unchanged(found)


def test_a_change_that_decides_nothing_changes_nothing(traffic: Path) -> None:
    """Every request that a budget touches is lived through again, and comes out to the nano-dollar as it was."""
    text = (traffic / "routes.yaml").read_text().replace("name: company", "name: firm")
    found = planned(traffic, text)
    assert found["changed_requests"] > ROWS / 2
    assert unchanged(found)
    assert nano(found["totals"]["cost_usd"]["after"]) == sums(traffic / "gateway.db").cost_nano


def test_weights_are_kept_to(traffic: Path) -> None:
    text = ledgers.routes(growth_usd="100000")  # so that nobody is refused
    text = text.replace("{model: deepseek, weight: 3}, mini]", "{model: qwen, weight: 3}, mini]")
    found = planned(traffic, text)["routes"]["split"]
    requests, models = found["requests"]["after"], found["models"]
    assert requests > ROWS / 10
    # Apart from the few that failed or whose model was tried and answered for another.
    assert models["qwen"]["after"] / requests == pytest.approx(0.75, abs=0.03)
    assert models["mini"]["after"] / requests == pytest.approx(0.25, abs=0.03)


def test_a_budget_that_is_raised_lets_in(traffic: Path) -> None:
    totals = planned(traffic, ledgers.routes(growth_usd="100000"))["totals"]
    assert totals["rejected_by_budget"]["before"] > ROWS / 50
    assert totals["rejected_by_budget"]["after"] == 0
    assert totals["cost_usd"]["change"] > 0


def test_the_gate(traffic: Path) -> None:
    dearer = (traffic / "routes.yaml").read_text().replace("use: [qwen], fallback", "use: [mini], fallback")
    failed = plan(traffic, dearer, "--fail-if", "cost > +10%", "--fail-if", "requests > +0")
    assert failed.returncode == 1
    assert "cost > +10%: cost goes from $" in failed.stderr
    assert "requests > +0" not in failed.stderr
    assert plan(traffic, dearer, "--fail-if", "cost < -1%").returncode == 0
    wrong = plan(traffic, dearer, "--fail-if", "costs > 1")
    assert wrong.returncode == 2
    assert "there is no 'costs'; there are: cost," in wrong.stderr


# By hand

HEAD = """\
version: 1
defaults: {baseline: gpt}
providers: {up: {base_url: "http://127.0.0.1:9/v1", api_key: k}}
models:
  gpt: {provider: up, model: g, price: {input: 2, cached_input: 1, output: 10}}
  cheap: {provider: up, model: c, price: {input: 0.5, cached_input: 0.1, output: 1}, max_output_tokens: 1000}
"""
BEFORE = HEAD + "routes: [{name: all, match: {model: auto}, use: [gpt], fallback: [cheap], retries: 0}]\n"
AFTER = HEAD + "routes: [{name: all, match: {model: auto}, use: [cheap], fallback: [gpt], retries: 0}]\n"
USED = Usage(input=1000, cached_input=200, output=300)
GPT = 1000 * 2000 + 200 * 1000 + 300 * 10_000  # 5,200,000 nano-USD
CHEAP = 1000 * 500 + 200 * 100 + 300 * 1000  # 820,000


def attempt(model: str, nano: int, **fields: Any) -> AttemptRecord:
    made = ATTEMPT._replace(model=model, provider="up", hosting="api", usage=USED, cost_nano=nano, reserved_nano=None)
    return made._replace(**fields)


def request(number: int, *tried: AttemptRecord, **fields: Any) -> Record:
    made = record(f"r{number}", *tried)._replace(
        started=START + number, route="all", task="default", task_why="no rule holds", has=(), tags=(), key="", team=""
    )
    return made._replace(baseline_nano=GPT, stream=False, estimated_input=1200, body_bytes=4000)._replace(**fields)


FAILED = {"result": "server_error", "purpose": "retry", "status": 500}
RECORDED = [
    request(1, attempt("gpt", GPT)),
    # It fell back: `cheap` has answered already, and would do so at once.
    request(2, attempt("gpt", 1_700_000, **FAILED), attempt("cheap", CHEAP, reason="server_error")),
    # Both failed; they fail again, at what they cost.
    request(
        3,
        attempt("gpt", 1_700_000, **FAILED),
        attempt("cheap", 410_000, **FAILED | {"reason": "server_error"}),
        outcome="upstream_error",
        baseline_nano=0,
        baseline_model="",
        usage=Usage(),
    ),
    # The client named the model itself.
    request(4, attempt("gpt", GPT), requested_model="gpt", route="direct"),
    # The request's own fault: so it would have been elsewhere.
    request(
        5,
        attempt("gpt", 0, result="relayed", usage=Usage()),
        outcome="client_error",
        baseline_nano=0,
        baseline_model="",
        usage=Usage(),
    ),
]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "routes.yaml").write_text(BEFORE)
    keep(RECORDED, tmp_path / "gateway.db")
    return tmp_path


def test_one_route_changed_by_hand(small: Path) -> None:
    found = planned(small, AFTER)
    before = GPT + (1_700_000 + CHEAP) + (1_700_000 + 410_000) + GPT
    after = CHEAP + CHEAP + (410_000 + 1_700_000) + GPT
    totals = found["totals"]
    assert (nano(totals["cost_usd"]["before"]), nano(totals["cost_usd"]["after"])) == (before, after)
    assert nano(totals["cost_usd"]["change"]) == after - before
    assert totals["cost_usd"]["change_percent"] == round((after - before) * 100 / before, 3)
    assert (totals["failed"]["before"], totals["failed"]["after"]) == (1, 1)
    assert nano(totals["savings_usd"]["before"]) == GPT - 1_700_000 - CHEAP
    assert nano(totals["savings_usd"]["after"]) == 2 * (GPT - CHEAP)
    assert found["routes"]["all"]["models"] == {"cheap": {"before": 1, "after": 2}, "gpt": {"before": 1, "after": 0}}
    assert found["routes"]["direct"]["cost_usd"]["change"] == 0
    assert {each["what"]: each["requests"] for each in found["unknown"]}["other_model"] == 2  # 1, and 5 in vain
    text = plan(small, AFTER).stdout
    assert "What this cannot know" in text
    assert "Unchanged: direct" in text


def test_a_new_price(small: Path) -> None:
    dearer = BEFORE.replace("input: 2, cached_input: 1, output: 10", "input: 4, cached_input: 2, output: 20")
    found = planned(small, dearer)
    doubled = 2 * GPT + 1_700_000 + CHEAP + 1_700_000 + 410_000 + 2 * GPT
    # A failed attempt is priced anew as well, by the usage that it was charged for.
    doubled += 2 * (2 * GPT - 1_700_000)
    assert nano(found["totals"]["cost_usd"]["after"]) == doubled


def test_a_budget_is_simulated_in_the_order_of_time(small: Path) -> None:
    """The ceiling of `cheap`: 4,256 bytes and template tokens in at 0.5, 1,000 tokens out at 1 USD a million."""
    ceiling = 4256 * 500 + 1000 * 1000  # 3,128,000

    def budget(limit: int) -> str:
        return f"budgets: [{{name: tight, limit_usd: {limit / 1e9:.9f}, window: day, match: {{model: auto}}}}]\n"

    only = AFTER.replace("fallback: [gpt], ", "")
    totals = planned(small, only + budget(ceiling + CHEAP))["totals"]  # room for two answers, not for a third
    # 1 and 2 are let in; 3, 5 are not any more; 4 is none of its business.
    assert totals["rejected_by_budget"]["after"] == 2
    assert nano(totals["cost_usd"]["after"]) == 2 * CHEAP + GPT
    assert planned(small, only + budget(ceiling + CHEAP - 1))["totals"]["rejected_by_budget"]["after"] == 3


def test_what_was_spent_before_the_period_counts(small: Path) -> None:
    old = [request(-number, attempt("gpt", 10**9)) for number in (10, 20)]  # 2 USD, on the last day of before
    keep([each._replace(started=START - 86_400 * 3 + number) for number, each in enumerate(old)], small / "gateway.db")
    text = BEFORE + "budgets: [{name: monthly, limit_usd: 2, window: total}]\n"
    ended = plan(small, text, "--json", "--since", "2026-11-02")
    totals = json.loads(ended.stdout)["totals"]
    assert totals["requests"]["before"] == len(RECORDED)
    assert totals["rejected_by_budget"]["after"] == len(RECORDED)


def test_tasks_that_are_still_known_are_told_anew(small: Path) -> None:
    tasks = 'tasks: {big: {when: [{min_input_tokens: 1000}]}, talk: {when: [{last_message: "hello"}]}}\n'
    routes = "routes: [{name: big, match: {task: big}, use: [cheap]}, {name: all, match: {model: auto}, use: [gpt]}]\n"
    found = planned(small, HEAD + tasks + routes)
    assert found["routes"]["big"]["requests"]["after"] == 4
    assert not any(each["what"] == "task" for each in found["unknown"])
    # Nobody can say whether it was "hello".
    tasks = tasks.replace("big: {when: [{min_input_tokens: 1000}]}, ", "")
    turned = planned(small, HEAD + tasks + routes.replace("task: big", "task: talk"))
    assert next(each["requests"] for each in turned["unknown"] if each["what"] == "task") == len(RECORDED)


def test_a_ledger_of_an_older_release_is_read(small: Path) -> None:
    with closing(sqlite3.connect(small / "gateway.db")) as db:
        for table in ("requests", "attempts"):
            late = {"n", "no_fallback", "max_cost_nano", "timeout", "asked_task", "body_bytes", "retry_after"}
            late |= {"usage_more", "cache", "cache_saved_nano"}
            there = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
            for name in there & late:
                db.execute(f"ALTER TABLE {table} DROP COLUMN {name}")
    found = planned(small, AFTER)
    assert nano(found["totals"]["cost_usd"]["after"]) == 2 * CHEAP + 410_000 + 1_700_000 + GPT
    assert next(each["requests"] for each in found["unknown"] if each["what"] == "old_rows") == len(RECORDED)


KEPT = ", cache: {ttl: 10m}}]"
HIT = {"cache": "hit", "cost_nano": 0, "baseline_nano": 0, "baseline_model": "", "usage": Usage()}
FREE = [
    # Given again twice: it had cost what the first of them did.
    *(request(number, **HIT, model="gpt", cache_saved_nano=GPT) for number in (6, 7)),
    # A dry run asks nobody; a server that counts tokens makes no answer.
    request(8, **HIT | {"cache": "", "model": ""}),
    request(9, attempt("gpt", 0, usage=Usage()), **HIT | {"cache": ""}, endpoint="/messages/count_tokens"),
]


def test_who_asked_for_no_answer_is_charged_for_none(tmp_path: Path) -> None:
    cached = BEFORE.replace("}]", KEPT)
    (tmp_path / "routes.yaml").write_text(cached)
    keep([RECORDED[0]._replace(cache="miss"), *FREE], tmp_path / "gateway.db")

    def cost(changed: str) -> int:
        found = planned(tmp_path, changed)
        assert nano(found["totals"]["cost_usd"]["before"]) == GPT
        assert found["totals"]["requests"]["after"] == 5
        return nano(found["totals"]["cost_usd"]["after"])

    assert cost(AFTER.replace("}]", KEPT)) == CHEAP  # the one answer that was made
    # A cache stands before the budgets: one that has nothing left refuses the other.
    assert cost(cached + "budgets: [{name: none, limit_usd: 0.000001, window: day}]\n") == 0
    # Without it each of the two costs once more what it had cost.
    assert cost(BEFORE) == 3 * GPT
    dearer = planned(tmp_path, BEFORE)["totals"]  # as was asked for: nothing is saved, and nothing is lost
    assert nano(dearer["baseline_usd"]["after"]) == nano(dearer["cost_usd"]["after"])
    (tmp_path / "routes.yaml").write_text(BEFORE)
    given = planned(tmp_path, cached)
    assert nano(given["totals"]["cost_usd"]["after"]) == GPT
    assert {each["what"]: each["requests"] for each in given["unknown"]}["cached"] == 1
    assert given["totals"]["models"] == {"gpt": {"before": 4, "after": 4}}  # nobody ran dry


def test_a_picture_has_no_price_at_a_model_that_is_sold_by_the_token(tmp_path: Path) -> None:
    drawn = Usage(more=More(images=2))
    head = HEAD.replace("price: {input: 2, cached_input: 1, output: 10}", "price: {per_image: 0.04}")
    (tmp_path / "routes.yaml").write_text(BEFORE.replace(HEAD, head))
    made = request(1, attempt("gpt", 80_000_000, usage=drawn), usage=drawn, endpoint="/images/generations", n=2)
    keep([made._replace(baseline_nano=80_000_000)], tmp_path / "gateway.db")
    totals = planned(tmp_path, AFTER.replace(HEAD, head))["totals"]
    assert (totals["unpriced"]["before"], totals["unpriced"]["after"]) == (0, 1)
    assert (nano(totals["cost_usd"]["after"]), nano(totals["savings_usd"]["after"])) == (0, 0)


def test_what_makes_no_sense(small: Path) -> None:
    assert plan(small, AFTER, "--until", "2026-10-01").returncode == 2
    assert plan(small, AFTER, "--since", "yesterday").returncode == 2
    missing = plan(small, AFTER, "--ledger", "elsewhere.db")
    assert missing.returncode == 1
    assert "there is no ledger at" in missing.stderr
    broken = plan(small, AFTER.replace("use: [cheap]", "use: [cheep]"))
    assert broken.returncode == 1
    assert "new.yaml" in broken.stderr


def test_progress_only_where_it_is_wanted(small: Path) -> None:
    assert plan(small, AFTER).stderr == ""
    assert "re-deciding: 100%" in plan(small, AFTER, "--progress").stderr
