"""Attempts under budgets: what retries, fallbacks, hedges and continuations hold and are charged; a failing store."""

from __future__ import annotations

import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import replies
from tests.replies import Tokens
from tests.servers import BIN, Gateway, until
from tests.upstream import CUT, Gate, Upstream

USD = 10**9
ROUTES = """
version: 1
providers: {up: {base_url: "@BASE@"}}
defaults: {retries: 0, timeout: {attempt: 1500ms, first_token: 5s, idle: 60s, total: 120s}}
models:
  a: {provider: up, model: a-up, price: {input: 100, output: 100000}, supports: [prefill]}
  b: {provider: up, model: b-up, price: {input: 200, output: 200000}, supports: [prefill]}
routes:
  - {name: again, match: {model: again}, use: [a], retries: 1}
  - {name: pair, match: {model: pair}, use: [a], fallback: [b]}
  - {name: hedged, match: {model: hedged}, use: [a], fallback: [b], hedge: {after: 100ms}, timeout: {attempt: 10s}}
  - {name: goes-on, match: {model: goes-on}, use: [a], fallback: [b], mid_stream: continue}
budgets:
  - {name: b, limit_usd: @LIMIT@, window: total}
  - {name: each, per: model, limit_usd: @LIMIT@, window: total}
stores: {counters: "sqlite:///counters.db"}
"""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok(tokens=Tokens(input=10, output=10))) as server:
        yield server


def routes(upstream: Upstream, limit: int) -> str:
    return ROUTES.replace("@BASE@", upstream.base_url).replace("@LIMIT@", str(limit))


def ask(gateway: Gateway, model: str, **more: Any) -> httpx.Response:
    return gateway.chat(model, max_tokens=10, **more)


def settled(gateway: Gateway, budget: str) -> int:
    with closing(sqlite3.connect(gateway.directory / "counters.db")) as db:
        query = "SELECT coalesce(sum(settled_nano), 0) FROM budget_accounts WHERE budget = ?"
        return int(db.execute(query, [budget]).fetchone()[0])


def held(gateway: Gateway) -> int:
    with closing(sqlite3.connect(gateway.directory / "counters.db")) as db:
        return int(db.execute("SELECT coalesce(sum(nano), 0) FROM budget_holds").fetchone()[0])


def test_every_attempt_holds_anew_and_is_charged_what_the_ledger_says(tmp_path: Path, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes(upstream, 200)) as gateway:
        upstream.script("a-up", replies.status(500))
        assert ask(gateway, "again").status_code == 200  # refused, and asked again
        upstream.script("a-up", replies.hang())
        assert ask(gateway, "pair").headers["x-gateway-model"] == "b"  # timed out, and handed on
        upstream.script("a-up", replies.words_then([CUT]))
        upstream.script("b-up", replies.ok(tokens=Tokens(input=10, output=6)))  # its cap is what is left of ten
        assert "[DONE]" in ask(gateway, "goes-on", stream=True).text  # broken off, and continued
        for _ in range(21):  # a hedge is earned
            assert ask(gateway, "hedged").status_code == 200
        upstream.script("a-up", replies.hang())
        assert ask(gateway, "hedged").headers["x-gateway-model"] == "b"  # both at once
        gateway.wait_rows(25)
        attempts = gateway.rows("SELECT * FROM attempts ORDER BY started")
        assert len(attempts) == 21 + 4 * 2
        assert {row["budgets"] for row in attempts} == {'["b","each"]'}
        assert all(row["reserved_nano"] >= row["cost_nano"] for row in attempts)
        assert all(row["reserved_nano"] > USD for row in attempts), "ten tokens of output are a dollar, of b two"
        kinds = {(row["reason"], row["result"]) for row in attempts}
        assert {("first", "server_error"), ("first", "timeout"), ("first", "stream_cut")} <= kinds
        charged = sum(row["cost_nano"] for row in attempts)
        assert charged == sum(row["cost_nano"] for row in gateway.rows())
        until("all is settled", lambda: settled(gateway, "b") == charged)
        assert settled(gateway, "each") == charged
        by_result = {row["result"]: row["cost_nano"] for row in attempts if row["model"] == "a"}
        assert by_result["server_error"] == 0, "refused before any output: nothing"
        assert 0 < by_result["timeout"] < USD, "the estimated input"
        assert 0 < by_result["cancelled"] < USD, "the hedge that lost: its estimated input"
        assert 0 < by_result["stream_cut"] < USD, "the estimated input, and the output seen"
        assert gateway.metric("gateway_budget_overrun_usd_total") == 0


def test_while_the_store_cannot_be_written_leases_go_on_and_the_rest_is_refused(
    tmp_path: Path, upstream: Upstream
) -> None:
    with Gateway(tmp_path, routes(upstream, 100_000)) as gateway:
        assert ask(gateway, "a").status_code == 200
        until("it is settled", lambda: settled(gateway, "b") > USD)
        before = settled(gateway, "b")
        with closing(sqlite3.connect(tmp_path / "counters.db", isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")  # nobody else writes
            assert ask(gateway, "a").status_code == 200, "the process has a lease for it"
            refused = ask(gateway, "b")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
            assert refused.headers["retry-after"]
            db.execute("ROLLBACK")
        until("what was spent meanwhile is told", lambda: settled(gateway, "b") > before)
        assert settled(gateway, "b") < 2 * before + USD
        until("it is back", lambda: ask(gateway, "b").status_code == 200)


def test_a_lease_is_given_back_when_nobody_asks_any_more(tmp_path: Path, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes(upstream, 100_000)) as gateway:
        assert ask(gateway, "a").status_code == 200
        until("a lease is held", lambda: held(gateway) > 0)
        until("and given back", lambda: held(gateway) == 0)


def test_a_request_id_that_is_used_again_changes_nothing(tmp_path: Path, upstream: Upstream) -> None:
    """Clients reuse their ids, over retries and by mistake."""
    with Gateway(tmp_path, routes(upstream, 3)) as gateway:
        headers = {"x-request-id": "always-the-same"}
        codes = [ask(gateway, "a", headers=headers).status_code for _ in range(4)]
        assert codes == [200, 200, 429, 429]
        rows = gateway.wait_rows(4)
        assert {row["client_request_id"] for row in rows} == {"always-the-same"}
        until("both are settled", lambda: settled(gateway, "b") == sum(row["cost_nano"] for row in gateway.rows()))


def test_a_reset_forgets_what_is_settled_and_not_what_is_held(tmp_path: Path, upstream: Upstream) -> None:
    gate = Gate()
    with Gateway(tmp_path, routes(upstream, 3)) as gateway:
        assert ask(gateway, "a").status_code == 200
        until("it is settled", lambda: settled(gateway, "b") > USD)
        upstream.script("a-up", replies.ok(tokens=Tokens(input=10, output=10), gate=gate))
        under_way = threading.Thread(target=ask, args=(gateway, "goes-on"), kwargs={"stream": True})
        under_way.start()
        assert gate.reached.wait(60)
        held_before = held(gateway)
        assert held_before > 2 * USD  # in both budgets
        command = [str(BIN), "budgets", "reset", "b", "--reason", "a test", "--config", str(gateway.routes)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        assert (settled(gateway, "b"), held(gateway)) == (0, held_before)
        gate.open()
        under_way.join()
        until("the call is settled", lambda: held(gateway) == 0)
        assert settled(gateway, "b") > USD
