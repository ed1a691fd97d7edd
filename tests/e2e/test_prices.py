"""Which price a request was charged: by the service tier that was answered, the hour, the date, the kind of token."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.config import load
from gateway.core.pricing import cost, price_at, source_of
from gateway.stores.reader import read_requests
from tests import replies
from tests.replies import DONE, END, Tokens
from tests.servers import Gateway
from tests.upstream import Received, Reply, Step, Upstream

ROUTES = """
version: 1
providers: {up: {base_url: "@BASE@"}}
models:
  served:
    provider: up
    price: {input: 8, output: 80, tiers: [{above: 1000, input: 16, output: 160}],
            service_tiers: {flex: {input: 4, output: 40}, priority: {input: 20, output: 200}}}
  always: {provider: up, price: {input: 8, output: 80, hours: [{days: [mon, tue, wed, thu, fri, sat, sun], input: 1}]}}
  dated:
    provider: up
    price: [{input: 8, output: 80}, {from: 2020-01-01, input: 2, output: 20}, {from: 2999-01-01, input: 1, output: 1}]
  to-come: {provider: up, price: {from: 2999-01-01, input: 1, output: 1}}
  spoken: {provider: up, price: {input: 8, output: 80, audio_input: 32, audio_output: 64}}
routes:
  - {name: cheapest, match: {model: cheapest}, use: [served, always], order: cheapest, baseline: served}
  - {name: unpriced, match: {model: unpriced}, use: [served], baseline: to-come}
"""
TOKENS = Tokens(100, 0, 10)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok(tokens=TOKENS)) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("prices"), ROUTES.replace("@BASE@", upstream.base_url)) as started:
        yield started


def answers(tokens: Tokens, service_tier: str | None, more: Mapping[str, Any]) -> Reply:
    """As OpenAI says it: the tier beside the usage, in each chunk of a stream."""

    def reply(received: Received) -> Iterator[Step]:
        yield tokens.billed(received.model)
        usage = tokens.reported()
        for name, details in more.items():
            usage[name].update(details)
        top: dict[str, Any] = {} if service_tier is None else {"service_tier": service_tier}
        if not received.stream:
            yield replies.http(200, json.dumps(replies.body_of(received, "Hello.", usage, {}) | top).encode())
            return
        yield replies.stream_head()
        yield replies.chunk(received, {"content": "Hello."}, **top)
        yield replies.chunk(received, {}, "stop", **top)
        yield replies.event({"id": "1", "object": "chat.completion.chunk", "choices": [], "usage": usage, **top})
        yield DONE + END

    return reply


class Case(NamedTuple):
    model: str
    service_tier: str | None
    nano: int
    source: str | None
    tokens: Tokens = TOKENS
    more: Mapping[str, Any] = {}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "case",
    [
        Case("served", "flex", 800_000, "routes.yaml, flex"),
        Case("served", "priority", 4_000_000, "routes.yaml, priority"),
        Case("served", "default", 1_600_000, "routes.yaml"),
        Case("served", None, 17_616_000, "routes.yaml, above 1000 input tokens", Tokens(1001, 0, 10)),
        Case("served", "no such tier", 1_600_000, "routes.yaml"),
        Case("always", None, 900_000, "routes.yaml, 00:00-24:00 UTC"),
        Case("dated", None, 400_000, "routes.yaml, from 2020-01-01"),
        Case("to-come", None, 0, None),
        Case(
            "spoken",
            None,
            40 * 8_000 + 60 * 32_000 + 6 * 80_000 + 4 * 64_000,
            "routes.yaml",
            more={"prompt_tokens_details": {"audio_tokens": 60}, "completion_tokens_details": {"audio_tokens": 4}},
        ),
    ],
    ids=lambda case: f"{case.model}-{case.service_tier}-{case.nano}",
)
def test_what_was_charged_and_why(gateway: Gateway, upstream: Upstream, case: Case, stream: bool) -> None:
    upstream.forget()
    upstream.script(case.model, answers(case.tokens, case.service_tier, case.more))
    before = len(gateway.rows())
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    answer = gateway.chat(case.model, **options)
    told = f'"cost":{case.nano / 1e9:.9f}'.rstrip("0") if case.nano else ""
    assert told in answer.text.replace(" ", "")
    row = gateway.wait_rows(before + 1)[-1]
    attempt = gateway.rows("SELECT * FROM attempts WHERE request_id = ?", row["id"])[0]
    assert (row["cost_nano"], attempt["cost_nano"], attempt["price_source"]) == (case.nano, case.nano, case.source)
    kinds = ("input", "cached_input", "cache_write", "output", "reasoning")
    assert sum(attempt[f"{kind}_tokens"] for kind in kinds) == case.tokens.input + case.tokens.output


def test_the_order_follows_the_price_in_force(gateway: Gateway, upstream: Upstream) -> None:
    upstream.forget()
    before = len(gateway.rows())
    answer = gateway.chat("cheapest")
    assert answer.headers["x-gateway-model"] == "always"
    row = gateway.wait_rows(before + 1)[-1]
    assert (row["cost_nano"], row["baseline_nano"], row["baseline_model"]) == (900_000, 1_600_000, "served")


def test_a_baseline_whose_price_is_to_come_is_none(gateway: Gateway, upstream: Upstream) -> None:
    upstream.forget()
    before = len(gateway.rows())
    gateway.chat("unpriced")
    row = gateway.wait_rows(before + 1)[-1]
    assert (row["cost_nano"], row["baseline_nano"], row["baseline_model"]) == (1_600_000, 0, None)


def test_the_ledger_can_be_priced_anew(gateway: Gateway, upstream: Upstream, tmp_path: Path) -> None:
    """Each row's usage at the price in force at its time comes to what was charged, and says the same source."""
    upstream.forget()
    upstream.script("served", answers(TOKENS, "flex", {}))
    before = len(gateway.rows())
    for model in ("served", "always", "dated", "served"):
        gateway.chat(model)
    gateway.wait_rows(before + 4)
    (tmp_path / "routes.yaml").write_text(ROUTES.replace("@BASE@", upstream.base_url))
    models = load(tmp_path / "routes.yaml", {}).rules.models
    records = list(read_requests(gateway.directory / "gateway.db", attempts=True))
    tiers = set()
    for record in records:
        for attempt in record.attempts:
            price = price_at(models[attempt.model].price, record.started)
            if price is not None:
                assert cost(attempt.usage, price) == attempt.cost_nano
                assert source_of(attempt.usage, price) == attempt.price_source
                tiers.add(attempt.usage.more.service_tier if attempt.usage.more else "")
    assert {"flex", ""} <= tiers
