"""/v1/messages/count_tokens: asked of servers that count, estimated for others; free, and outside of every budget."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests import replies
from tests.replies import http
from tests.servers import Gateway, until
from tests.upstream import Received, Step, Upstream

ROUTES = """
version: 1
providers:
  chat: {base_url: "@BASE@"}
  counts: {base_url: "@BASE@", apis: [chat, count_tokens]}
  native: {base_url: "@BASE@", apis: [chat, messages]}
models:
  plain: {provider: chat, model: plain-up, price: {input: 1, output: 1}}
  counts: {provider: counts, model: counts-up, price: {input: 1, output: 1}}
  native: {provider: native, model: native-up, price: {input: 1, output: 1}}
budgets:
  - {name: spent, limit_usd: 0.000001, window: total}
limits:
  - {per: key, tokens_per_minute: 50}
keys:
  - {name: k, value: sk-count-0123456789}
"""
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "word " * 400}], "system": "Be brief."}
HEADERS = {"x-api-key": "sk-count-0123456789"}
ANSWER = b'{"input_tokens" :  413, "context_management": {"original_input_tokens": 413}}'


def counts(received: Received) -> Iterator[Step]:
    assert received.path == "/v1/messages/count_tokens"
    yield http(200, ANSWER)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(counts) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Gateway]:
    routes = ROUTES.replace("@BASE@", upstream.base_url)
    with Gateway(tmp_path_factory.mktemp("gateway"), routes) as running:
        yield running


def ask(gateway: Gateway, model: str, **more: Any) -> httpx.Response:
    return gateway.client.post("/v1/messages/count_tokens", json={"model": model, **BODY, **more}, headers=HEADERS)


def row_of(gateway: Gateway, answer: httpx.Response) -> dict[str, Any]:
    query = "SELECT * FROM requests WHERE id = ?"
    return until("the row", lambda: gateway.rows(query, answer.headers["x-request-id"]))[0]


@pytest.mark.parametrize("model", ["counts", "native"])
def test_a_server_that_counts_is_asked(gateway: Gateway, upstream: Upstream, model: str) -> None:
    """Neither the spent budget nor the small limit on tokens stands in its way: it makes none."""
    answer = ask(gateway, model)
    assert (answer.status_code, answer.content) == (200, ANSWER)
    assert "x-gateway-usage" not in answer.headers
    assert answer.headers["x-gateway-model"] == model
    sent = upstream.requests[-1]
    assert sent.json == {"model": f"{model}-up", **BODY}
    row = row_of(gateway, answer)
    assert (row["endpoint"], row["outcome"], row["model"], row["key"]) == ("/messages/count_tokens", "ok", model, "k")
    assert (row["cost_nano"], row["input_tokens"], row["output_tokens"], row["usage_estimated"]) == (0, 0, 0, 0)


def test_where_no_server_counts_the_answer_says_that_it_is_an_estimate(gateway: Gateway, upstream: Upstream) -> None:
    before = len(upstream.requests)
    answer = ask(gateway, "plain")
    assert answer.json() == {"input_tokens": 503}  # (2,000 + 9 characters) / 4
    assert answer.headers["x-gateway-usage"] == "estimated"
    assert len(upstream.requests) == before
    row = row_of(gateway, answer)
    assert (row["outcome"], row["cost_nano"], row["input_tokens"], row["estimated_input"]) == ("ok", 0, 0, 503)


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_does_not_count_after_all(gateway: Gateway, upstream: Upstream, status: int) -> None:
    upstream.script("native-up", replies.status(status))
    answer = ask(gateway, "native")
    assert answer.json() == {"input_tokens": 503}
    assert answer.headers["x-gateway-usage"] == "estimated"
    assert row_of(gateway, answer)["cost_nano"] == 0


def test_a_stranger_is_refused_in_anthropics_shape(gateway: Gateway) -> None:
    answer = gateway.client.post("/v1/messages/count_tokens", json={"model": "plain", **BODY})
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    unknown = ask(gateway, "nobody")
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "not_found_error")
    malformed = ask(gateway, "plain", messages="x")
    assert (malformed.status_code, malformed.json()["error"]["type"]) == (400, "invalid_request_error")


def test_it_is_counted_and_spends_nothing(gateway: Gateway) -> None:
    before = gateway.metric("gateway_requests_total", outcome="ok")
    ask(gateway, "counts")
    ask(gateway, "plain")
    until("both counted", lambda: gateway.metric("gateway_requests_total", outcome="ok") == before + 2)
    assert gateway.metric("gateway_cost_usd_total") == 0
    assert gateway.metric("gateway_budget_settled_usd") == 0
    refused = gateway.client.post("/v1/messages", json={"model": "plain", "max_tokens": 9, **BODY}, headers=HEADERS)
    assert refused.status_code == 429, "what counts as a request is refused, by limit or budget"


def test_a_dry_run_says_who_would_count(gateway: Gateway) -> None:
    body = json.dumps({"model": "counts", **BODY})
    said = gateway.client.post(
        "/v1/messages/count_tokens", content=body, headers={**HEADERS, "x-gateway-dry-run": "true"}
    ).json()
    assert said["request"]["endpoint"] == "/messages/count_tokens"
    assert [target["model"] for target in said["targets"]] == ["counts"]
