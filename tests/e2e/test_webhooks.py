"""Whoever is to be told is told, once, signed, and again where the first try failed."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import replies
from tests.receiver import Receiver
from tests.replies import Tokens
from tests.servers import Gateway, until
from tests.upstream import Upstream

KEY = b"0123456789abcdef0123456789abcdef"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
ROUTES = """
version: 1
providers:
  up: {base_url: "@BASE@"}
models:
  m: {provider: up, model: m-up, price: {input: 0, output: 100000}}
  bad: {provider: up, model: bad-up, price: unmetered}
budgets:
  - {name: b, limit_usd: 4, window: total, at: {50%: alert, 75%: prefer_self_hosted}}
webhooks:
  - {url: "${HOOK}", secret: "${SECRET}"}
  - {url: "${HOOK}/quiet?token=t0ken", events: [config_rejected]}
"""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok(tokens=Tokens(output=10))) as server:
        yield server


@pytest.mark.parametrize("workers", ["1", "4"])
def test_a_threshold_is_told_once(tmp_path: Path, upstream: Upstream, workers: str) -> None:
    with (
        Receiver() as receiver,
        Gateway(
            tmp_path,
            ROUTES.replace("@BASE@", upstream.base_url),
            args=["--workers", workers],
            env={"HOOK": receiver.url, "SECRET": SECRET},
        ) as gateway,
    ):
        for _ in range(8):
            gateway.chat("m", max_tokens=10)
        until("all thresholds", lambda: len(receiver.of("budget_threshold")) >= 3)
        gateway.restart()
        gateway.chat("m", max_tokens=10)
        told = [each.told["data"] for each in receiver.of("budget_threshold")]
        assert sorted((each["percent"], each["action"]) for each in told) == [
            (50, "alert"),
            (75, "prefer_self_hosted"),
            (100, "reject"),
        ]
        assert {(each["budget"], each["scope"], each["window"], each["limit_usd"]) for each in told} == {
            ("b", "all", "total", 4.0)
        }
        settled = {"budget": "b", "scope": "all"}
        until("the balance", lambda: gateway.metric("gateway_budget_settled_usd", **settled) == 4.0)
        assert gateway.metric("gateway_budget_limit_usd", budget="b", scope="all") == 4.0
        assert gateway.metric("gateway_budget_reserved_usd", budget="b", scope="all") == 0.0
        assert '"event":"budget_threshold"' in gateway.log
        for each in receiver.deliveries:
            begun = f"{each.headers['webhook-id']}.{each.headers['webhook-timestamp']}."
            signed = begun.encode() + each.body
            expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
            assert each.headers["webhook-signature"] == f"v1,{expected}"


def test_what_fails_is_told_again_under_the_same_id(tmp_path: Path, upstream: Upstream) -> None:
    upstream.always("bad-up", replies.status(500))
    with (
        Receiver([500]) as receiver,
        Gateway(
            tmp_path,
            ROUTES.replace("@BASE@", upstream.base_url),
            env={"HOOK": receiver.url, "SECRET": "plain-words-0123"},
        ) as gateway,
    ):
        for _ in range(3):
            gateway.chat("bad")
        until("the second try", lambda: len(receiver.of("breaker_opened")) == 2)
        first, second = receiver.of("breaker_opened")
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.told["data"]["model"] == "bad"
        gateway.routes.write_text("version: 2")
        until("both are told", lambda: len(receiver.of("config_rejected")) == 2)
        quiet = next(each for each in receiver.deliveries if each.path == "/hook/quiet?token=t0ken")
        assert "webhook-signature" not in quiet.headers
        assert receiver.url not in gateway.log, "an address may hold a secret"
        assert "t0ken" not in gateway.log
