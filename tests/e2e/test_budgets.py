"""Budgets through the front door: what is let in, what is refused and how, over workers, restarts and deaths."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import replies
from tests.replies import Tokens
from tests.servers import Gateway, until
from tests.upstream import Upstream

# One dollar a call: ten tokens of output at 0.1 USD each, and input for nothing.
PRICE = "{input: 0, output: 100000}"
TEN = Tokens(output=10)
BODY = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 10}
ROUTES = """
version: 1
providers:
  up: {base_url: "@BASE@"}
models:
  dear: {provider: up, model: dear-up, price: @PRICE@}
  dearer: {provider: up, model: dearer-up, price: {input: 0, output: 1000000}}
  own: {provider: up, model: own-up, hosting: self, price: @PRICE@}
  long: {provider: up, model: long-up, price: {input: 0, output: 1000}, max_output_tokens: 100000}
  reads: {provider: up, model: reads-up, price: {input: 1, output: 1}}
  unknown: {provider: up, model: nobody-knows-this-one, hosting: self}
tasks:
  team: {when: [{header: {x-team: a}}]}
routes:
  - {name: pair, match: {model: pair}, use: [dear], fallback: [own], retries: 0}
  - {name: cheap-first, match: {model: cheap-first}, use: [dear], fallback: [dearer], retries: 0}
  - {name: dear-first, match: {model: dear-first}, use: [dearer], fallback: [dear], retries: 0}
  - {name: strict, match: {model: strict}, use: [long], clamp: false}
budgets:
@BUDGETS@
"""


def routes(upstream: Upstream, *budgets: str) -> str:
    filled = ROUTES.replace("@BASE@", upstream.base_url).replace("@PRICE@", PRICE)
    return filled.replace("@BUDGETS@", "\n".join(f"  - {{{budget}, window: total}}" for budget in budgets))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok(tokens=TEN)) as server:
        yield server


def ask(gateway: Gateway, model: str = "dear", **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    return gateway.post(json={"model": model, **BODY, **more}, headers=headers)


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


def settled(gateway: Gateway, budget: str = "b") -> int:
    query = "SELECT coalesce(sum(settled_nano), 0) FROM budget_accounts WHERE budget = ?"
    with sqlite3.connect(gateway.directory / "gateway.db") as db:
        return int(db.execute(query, [budget]).fetchone()[0])


def has_settled(gateway: Gateway, nano: int) -> bool:
    return settled(gateway) == nano


def refusal(gateway: Gateway) -> httpx.Response | None:
    answer = ask(gateway)
    return answer if answer.status_code == 429 else None


def moved(gateway: Gateway) -> httpx.Response | None:
    answer = ask(gateway, "pair")
    return answer if answer.headers["x-gateway-model"] == "own" else None


def held(gateway: Gateway) -> int:
    with sqlite3.connect(gateway.directory / "gateway.db") as db:
        return int(db.execute("SELECT coalesce(sum(nano), 0) FROM budget_holds").fetchone()[0])


async def many(gateway: Gateway, clients: int, **more: Any) -> list[httpx.Response]:
    """All at once, each asking again as long as it is told that it may."""
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=30, limits=limits) as client:

        async def one() -> httpx.Response:
            while True:
                answer = await client.post("/v1/chat/completions", json={"model": "dear", **BODY, **more})
                if answer.status_code != 429 or answer.headers.get("x-should-retry") == "false":
                    return answer

        return await asyncio.gather(*(one() for _ in range(clients)))


@pytest.mark.parametrize("workers", [1, 4])
def test_exactly_what_fits_is_served(tmp_path: Path, upstream: Upstream, workers: int) -> None:
    text = routes(
        upstream, "name: b, limit_usd: 25", "name: wide, limit_usd: 1000000", "name: k, per: model, limit_usd: 25"
    )
    with Gateway(tmp_path, text, args=["--workers", str(workers)]) as gateway:
        answers = asyncio.run(many(gateway, 200))
        codes = Counter(answer.status_code for answer in answers)
        assert codes == {200: 25, 429: 175}
        assert {code(answer) for answer in answers if answer.status_code == 429} == {"insufficient_quota"}
        assert len(upstream.requests) == 25
        until("all is settled", lambda: settled(gateway) == 25 * 10**9)
        assert settled(gateway, "wide") == 25 * 10**9


def test_worst_case_holds_do_not_use_a_budget_up(tmp_path: Path, upstream: Upstream) -> None:
    """A limit of 100 ceilings, each ten times what a call costs: at least 95% of it is spent before the last word."""
    upstream.always("dear-up", replies.ok(tokens=Tokens(output=1)))
    with Gateway(tmp_path, routes(upstream, "name: b, limit_usd: 100"), args=["--workers", "4"]) as gateway:

        async def clients() -> int:
            served = 0
            async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=30) as client:

                async def one() -> None:
                    nonlocal served
                    while True:
                        answer = await client.post("/v1/chat/completions", json={"model": "dear", **BODY})
                        served += answer.status_code == 200
                        if answer.headers.get("x-should-retry") == "false":
                            return

                await asyncio.gather(*(one() for _ in range(40)))
            return served

        served = asyncio.run(clients())
        until("all is settled", lambda: settled(gateway) == served * 10**8)
        assert 95 * 10**9 <= settled(gateway) <= 100 * 10**9


def test_a_spent_budget_says_so_once(tmp_path: Path, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes(upstream, "name: b, limit_usd: 1")) as gateway:
        assert ask(gateway).status_code == 200
        refused = until("it is spent", lambda: refusal(gateway))
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
        assert refused.headers["x-should-retry"] == "false"
        assert "budget b" in error["message"]
        row = gateway.wait_rows(2)[-1]
        assert (row["outcome"], row["rejection"], row["budget"], row["status"]) == ("rejected", "budget", "b", 429)


def test_the_price_of_each_target_counts(tmp_path: Path, upstream: Upstream) -> None:
    """A cheap call is not refused because its fallback is dear; a dear one goes to the cheap fallback, and says why."""
    with Gateway(tmp_path, routes(upstream, "name: b, limit_usd: 5")) as gateway:
        assert ask(gateway, "cheap-first").headers["x-gateway-model"] == "dear"
        other = ask(gateway, "dear-first")
        assert (other.status_code, other.headers["x-gateway-model"]) == (200, "dear")
        gateway.wait_rows(2)
        attempts = gateway.rows("SELECT * FROM attempts")
        assert {(row["model"], row["reason"]) for row in attempts} == {("dear", "first"), ("dear", "budget")}
        assert {(row["budgets"], row["reserved_nano"]) for row in attempts} == {('["b"]', 10**9)}
        assert ask(gateway, "dearer").status_code == 429


def test_a_failed_attempt_gives_back_what_it_held(tmp_path: Path, upstream: Upstream) -> None:
    upstream.always("dear-up", replies.status(500))
    with Gateway(tmp_path, routes(upstream, "name: b, limit_usd: 1")) as gateway:
        for _ in range(2):  # a retry each: one failure short of the breaker
            assert ask(gateway).status_code == 502
        until("nothing is held", lambda: held(gateway) == 0)
        assert settled(gateway) == 0
        upstream.always("dear-up", replies.ok(tokens=TEN))
        assert ask(gateway).status_code == 200


def test_an_overrun_is_settled_in_full(tmp_path: Path, upstream: Upstream) -> None:
    upstream.always("dear-up", replies.ok(tokens=Tokens(output=35)))
    with Gateway(tmp_path, routes(upstream, "name: b, limit_usd: 3")) as gateway:
        assert ask(gateway).status_code == 200
        until("all is settled", lambda: settled(gateway) == 35 * 10**8)
        assert ask(gateway).status_code == 429


def test_thresholds_move_a_route_to_its_own_machines(tmp_path: Path, upstream: Upstream) -> None:
    steps = "at: {20%: alert, 40%: prefer_self_hosted, 80%: self_hosted_only, 100%: self_hosted_only}"
    with Gateway(tmp_path, routes(upstream, f"name: b, limit_usd: 5, {steps}")) as gateway:
        for spent in range(2):
            assert ask(gateway, "pair").headers["x-gateway-model"] == "dear"
            until("it is settled", partial(has_settled, gateway, (spent + 1) * 10**9))
        preferred = until("it moves", lambda: moved(gateway))
        assert "self-hosted models first" in preferred.headers["x-gateway-budget"]
        dry = ask(gateway, "pair", headers={"x-gateway-dry-run": "true"}).json()
        assert dry["budgets"]["verdict"] == "prefer_self_hosted"
        assert [target["model"] for target in dry["targets"]] == ["own", "dear"]
        assert dry["budgets"]["touched"][0]["limit_usd"] is None, "what a company may spend is not a client's to know"
        for _ in range(2):
            assert ask(gateway, "dear").status_code == 200  # a client that names a model gets it while there is money
        only = until("it is strict", lambda: refusal(gateway))
        assert code(only) == "insufficient_quota"
        assert "self-hosted models only" in only.json()["error"]["message"]
        assert ask(gateway, "pair").headers["x-gateway-model"] == "own"


def test_an_answer_without_a_cap_gets_one_where_the_budget_is_small(tmp_path: Path, upstream: Upstream) -> None:
    body = {"messages": BODY["messages"]}
    with Gateway(tmp_path, routes(upstream, "name: b, limit_usd: 50")) as gateway:
        capped = gateway.post(json={"model": "long", **body})
        assert (capped.status_code, capped.headers["x-gateway-max-tokens"]) == (200, "4096")
        assert upstream.requests[-1].json["max_tokens"] == 4096
        refused = gateway.post(json={"model": "strict", **body})
        assert (refused.status_code, code(refused)) == (429, "insufficient_quota")
        own = gateway.post(json={"model": "long", **body, "max_tokens": 7})
        assert "x-gateway-max-tokens" not in own.headers
        assert upstream.requests[-1].json["max_tokens"] == 7


def test_what_cannot_be_priced_is_refused_and_says_how(tmp_path: Path, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes(upstream, "name: b, limit_usd: 50, counts: all")) as gateway:
        unpriced = ask(gateway, "unknown")
        assert (unpriced.status_code, code(unpriced)) == (400, "unpriced_model")
        assert "price: {input" in unpriced.json()["error"]["message"]
        picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
        remote = ask(gateway, "reads", messages=[{"role": "user", "content": [picture]}])
        assert remote.status_code == 429
        assert "max_extra_usd" in remote.json()["error"]["message"]
        assert upstream.requests == []


def test_a_spent_budget_stays_spent(tmp_path: Path, upstream: Upstream) -> None:
    text = routes(upstream, "name: b, limit_usd: 2")
    with Gateway(tmp_path, text) as gateway:
        assert [ask(gateway).status_code for _ in range(2)] == [200, 200]
        assert gateway.stop() == 0
    with Gateway(tmp_path, text) as again:
        assert held(again) == 0
        assert ask(again).status_code == 429


def test_a_reload_changes_the_limit_and_not_what_is_spent(tmp_path: Path, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes(upstream, "name: b, limit_usd: 1")) as gateway:
        assert ask(gateway).status_code == 200
        assert until("it is spent", lambda: ask(gateway).status_code == 429)
        gateway.routes.write_text(routes(upstream, "name: b, limit_usd: 2"))
        gateway.signal(signal.SIGHUP)
        until("there is room for one more", lambda: ask(gateway).status_code == 200)
        assert until("and for no more", lambda: ask(gateway).status_code == 429)
        assert len(upstream.requests) == 2


def test_streams_are_charged_too(tmp_path: Path, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes(upstream, "name: b, limit_usd: 2")) as gateway:
        for _ in range(2):
            assert "[DONE]" in ask(gateway, stream=True).text
        until("it is settled", lambda: settled(gateway) == 2 * 10**9)
        refused = ask(gateway, stream=True)
        assert (refused.status_code, code(refused)) == (429, "insufficient_quota")
