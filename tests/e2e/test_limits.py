"""Limits on traffic through the front door, whatever the number of workers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import replies
from tests.replies import Tokens
from tests.servers import Gateway, until
from tests.upstream import Gate, Upstream

ROUTES = """
version: 1
providers:
  up: {base_url: "@BASE@"}
models:
  m: {provider: up, model: m-up, price: unmetered}
limits:
@LIMITS@
"""
HELLO = [{"role": "user", "content": "Say hello."}]


def routes(upstream: Upstream, *limits: str) -> str:
    written = "\n".join(f"  - {{{limit}}}" for limit in limits)
    return ROUTES.replace("@BASE@", upstream.base_url).replace("@LIMITS@", written)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok(tokens=Tokens(input=12, output=8))) as server:
        yield server


@pytest.mark.parametrize("workers", ["1", "4"])
def test_exactly_the_limit_is_let_in(tmp_path: Path, upstream: Upstream, workers: str) -> None:
    with Gateway(tmp_path, routes(upstream, "requests_per_minute: 25"), args=["--workers", workers]) as gateway:

        async def crowd() -> list[httpx.Response]:
            async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=30) as client:
                body = {"model": "m", "messages": HELLO}
                asked = [client.post("/v1/chat/completions", json=body) for _ in range(100)]
                return await asyncio.gather(*asked)

        began = time.monotonic()
        answers = asyncio.run(crowd())
        took = time.monotonic() - began
        assert Counter(answer.status_code for answer in answers) == {200: 25, 429: 75}
        assert len(upstream.requests) == 25
        left = sorted(int(answer.headers["x-ratelimit-remaining-requests"]) for answer in answers)
        assert left == [0] * 75 + list(range(25))
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert 59 - took <= int(refused.headers["retry-after"]) <= 61
        gateway.wait_rows(100)
        rows = Counter((row["outcome"], row["rejection"]) for row in gateway.rows())
        assert rows == {("ok", None): 25, ("rejected", "rate_limit"): 75}
        until("the workers have told", lambda: gateway.metric("gateway_rejections_total", reason="rate_limit") == 75)


def test_tokens_count_as_billed(tmp_path: Path, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes(upstream, "tokens_per_minute: 50")) as gateway:
        first = gateway.chat("m")
        assert first.headers["x-ratelimit-limit-tokens"] == "50"
        until("it is counted", lambda: gateway.chat("m").headers["x-ratelimit-remaining-tokens"] == "7")
        refused = until("it is full", lambda: refusal(gateway))
        assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
        assert refused.headers["x-ratelimit-reset-tokens"].startswith(("1m", "5"))
        long = gateway.chat("m", messages=[{"role": "user", "content": "word " * 1000}])
        assert long.headers["x-should-retry"] == "false"


def refusal(gateway: Gateway) -> httpx.Response | None:
    answer = gateway.chat("m")
    return answer if answer.status_code == 429 else None


def test_in_flight_ends_with_the_answer_or_the_hang_up(tmp_path: Path, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("m-up", replies.ok(gate=gate))
    with Gateway(tmp_path, routes(upstream, "max_in_flight: 1")) as gateway:
        first = threading.Thread(target=gateway.chat, args=("m",))
        first.start()
        assert gate.reached.wait(60)
        refused = gateway.chat("m")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "1 requests in flight" in refused.json()["error"]["message"]
        gate.open()
        first.join()
        until("its place is free", lambda: gateway.chat("m").status_code == 200)
        upstream.script("m-up", replies.hang())
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{gateway.url}/v1/chat/completions",
                json={"model": "m", "messages": HELLO},
                timeout=httpx.Timeout(30, read=1),
                trust_env=False,
            )
        until("its place is free", lambda: gateway.chat("m").status_code == 200)


def test_each_has_its_own(tmp_path: Path, upstream: Upstream) -> None:
    keys = """
keys:
  - {name: ada, value: "ada-0123456789abcdef", team: a, limits: {requests_per_minute: 1}}
  - {name: bob, value: "bob-0123456789abcdef", team: a}
"""
    limits = routes(upstream, "per: user, requests_per_minute: 2", "match: {team: a}, requests_per_minute: 4")
    with Gateway(tmp_path, limits + keys) as gateway:

        def ask(key: str, user: str) -> tuple[int, str]:
            answer = gateway.chat("m", user=user, headers={"authorization": f"Bearer {key}-0123456789abcdef"})
            return answer.status_code, answer.json()["error"]["message"] if answer.status_code != 200 else ""

        assert ask("ada", "x") == (200, "")
        assert "limit key:ada is" in ask("ada", "x")[1]
        assert ask("bob", "x") == (200, "")
        assert "limits[0] (user x)" in ask("bob", "x")[1]
        assert ask("bob", "y") == (200, "")
        assert ask("bob", "z") == (200, "")
        assert "limits[1]" in ask("bob", "w")[1]


def test_a_dry_run_is_a_request_without_tokens(tmp_path: Path, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes(upstream, "requests_per_minute: 3, tokens_per_minute: 1000")) as gateway:
        left = []
        for _ in range(3):
            answer = gateway.chat("m", headers={"x-gateway-dry-run": "true"})
            assert (answer.status_code, answer.json()["targets"][0]["model"]) == (200, "m")
            left.append(tuple(answer.headers[f"x-ratelimit-remaining-{kind}"] for kind in ("requests", "tokens")))
        assert left == [("2", "1000"), ("1", "1000"), ("0", "1000")]
        for headers in ({"x-gateway-dry-run": "true"}, {}):
            refused = gateway.chat("m", headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert upstream.requests == []


def test_a_reload_keeps_the_count(tmp_path: Path, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes(upstream, "requests_per_minute: 2")) as gateway:
        assert gateway.chat("m").headers["x-ratelimit-remaining-requests"] == "1"
        gateway.reload(routes(upstream, "requests_per_minute: 3"))
        until("the reload", lambda: gateway.chat("m").headers["x-ratelimit-limit-requests"] == "3")
        until("the third was the last", lambda: gateway.chat("m").status_code == 429)
        assert len(upstream.requests) == 3
