"""The same answer again: to whom, how long, byte for byte, and what it counts as."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import replies
from tests.replies import Tokens
from tests.servers import Gateway, until
from tests.upstream import Upstream

KEYS = {name: f"sk-{name}-0123456789abcdef" for name in ("a1", "a2", "b")}
ROUTES = """
version: 1
providers:
  up: {base_url: "@BASE@"}
models:
  m: {provider: up, model: m-up, price: {input: 0, output: 100000}}
  closed: {provider: up, model: closed-up, price: {input: 0, output: 200000}}
routes:
  - {name: kept, match: {model: auto}, use: [m], cache: {ttl: @TTL@}, retries: 0, baseline: closed}
  - {name: other, match: {model: other}, use: [m]}
budgets: [{name: b, limit_usd: 3, window: total}]
keys:
  - {name: a1, value: "@a1@", team: a}
  - {name: a2, value: "@a2@", team: a}
  - {name: b, value: "@b@"}
"""
BODY: dict[str, Any] = {
    "model": "auto",
    "temperature": 0,
    "messages": [{"role": "user", "content": "x"}],
    "max_tokens": 10,
}


def routes(upstream: Upstream, ttl: str = "10m") -> str:
    text = ROUTES.replace("@BASE@", upstream.base_url).replace("@TTL@", ttl)
    for name, value in KEYS.items():
        text = text.replace(f"@{name}@", value)
    return text


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok(tokens=Tokens(output=10))) as server:
        yield server


@pytest.fixture
def gateway(tmp_path: Path, upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(tmp_path, routes(upstream)) as running:
        yield running


def ask(gateway: Gateway, who: str = "a1", headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    return gateway.post(json={**BODY, **more}, headers={"authorization": f"Bearer {KEYS[who]}", **(headers or {})})


def again(gateway: Gateway, who: str = "a1", **more: Any) -> httpx.Response:
    """The same until it comes out of the cache: an answer is kept a moment after it was given."""

    def hit() -> httpx.Response | None:
        answer = ask(gateway, who, **more)
        return answer if answer.headers["x-gateway-cache"] == "hit" else None

    return until("it is kept", hit)


@pytest.mark.parametrize("stream", [False, True])
def test_byte_for_byte(gateway: Gateway, upstream: Upstream, stream: bool) -> None:
    first = ask(gateway, stream=stream)
    assert first.headers["x-gateway-cache"] == "miss"
    hit = again(gateway, stream=stream)
    assert hit.content == first.content
    assert hit.headers["content-type"] == first.headers["content-type"]
    assert (hit.headers["x-gateway-model"], hit.headers["x-gateway-cost-usd"]) == ("m", "0")
    assert "x-gateway-attempts" not in hit.headers
    made = len(upstream.requests)
    assert ask(gateway, stream=stream).content == first.content
    assert len(upstream.requests) == made
    # A first token is that of a stream, also here.
    hits = until("the hits' rows", lambda: [row for row in gateway.rows() if row["cache"] == "hit"])
    assert all((row["first_token"] is not None) is stream for row in hits)


def test_a_hit_is_a_request_that_cost_nothing(gateway: Gateway, upstream: Upstream) -> None:
    ask(gateway)
    again(gateway)
    paid = len(upstream.requests)
    until("all are counted", lambda: gateway.metric("gateway_requests_total") == paid + 1)
    hits = [row for row in gateway.wait_rows(paid + 1) if row["cache"] == "hit"]
    assert {(row["outcome"], row["model"], row["cost_nano"], row["baseline_nano"]) for row in hits} == {
        ("ok", "m", 0, 0)
    }
    assert {row["cache_saved_nano"] for row in hits} == {10**9}
    assert gateway.metric("gateway_cache_saved_usd_total", route="kept") == len(hits)
    assert gateway.metric("gateway_cost_usd_total") == paid
    assert gateway.metric("gateway_baseline_cost_usd_total") == 2 * paid


def test_a_spent_budget_and_a_dead_upstream_are_no_matter(gateway: Gateway, upstream: Upstream) -> None:
    again(gateway)
    upstream.always("m-up", replies.status(500))
    assert ask(gateway, seed=1).status_code == 502
    assert ask(gateway).headers["x-gateway-cache"] == "hit"
    upstream.always("m-up", replies.ok(tokens=Tokens(output=10)))
    until("the budget is spent", lambda: ask(gateway, model="other").status_code == 429)
    assert ask(gateway).status_code == 200


def test_an_error_is_not_kept(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("m-up", replies.status(500))
    assert ask(gateway).status_code == 502
    assert ask(gateway).headers["x-gateway-cache"] == "miss"


def test_tenants_do_not_share(gateway: Gateway) -> None:
    again(gateway, "a1")
    assert ask(gateway, "a2").headers["x-gateway-cache"] == "hit", "the same team"
    assert ask(gateway, "b").headers["x-gateway-cache"] == "miss"


def test_what_clients_may_wish(gateway: Gateway) -> None:
    assert ask(gateway, temperature=0.5).headers["x-gateway-cache"] == "bypass"
    assert "x-gateway-cache" not in ask(gateway, model="other").headers
    again(gateway)
    assert ask(gateway, headers={"cache-control": "no-store"}).headers["x-gateway-cache"] == "bypass"
    fresh = ask(gateway, headers={"cache-control": "no-cache"})
    assert fresh.headers["x-gateway-cache"] == "miss"


def test_its_time_ends(tmp_path: Path, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes(upstream, "1s")) as gateway:
        again(gateway)
        until("it has ended", lambda: ask(gateway).headers.get("x-gateway-cache") == "miss")


def test_workers_and_restarts_share(tmp_path: Path, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes(upstream), args=["--workers", "2"]) as gateway:
        again(gateway)
        made = len(upstream.requests)
        for _ in range(20):
            with httpx.Client(base_url=gateway.url, trust_env=False) as fresh:  # another worker, perhaps
                headers = {"authorization": f"Bearer {KEYS['a1']}"}
                assert (
                    fresh.post("/v1/chat/completions", json=BODY, headers=headers).headers["x-gateway-cache"] == "hit"
                )
        gateway.restart()
        assert ask(gateway).headers["x-gateway-cache"] == "hit"
        assert len(upstream.requests) == made


def test_a_cache_that_fails_is_a_miss(tmp_path: Path, upstream: Upstream) -> None:
    (tmp_path / "gateway-cache.db").mkdir()
    with Gateway(tmp_path, routes(upstream)) as gateway:
        assert ask(gateway).headers["x-gateway-cache"] == "miss"
        until("it is said", lambda: "answered without it" in gateway.log_path.read_text())
        shutil.rmtree(tmp_path / "gateway-cache.db")
        again(gateway)
