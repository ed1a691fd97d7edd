"""What fails is left alone by all workers, looked after by probes, and comes back little by little."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.core.breaker import PAUSE
from tests import replies
from tests.servers import Gateway, free_port, until
from tests.upstream import Reply, Upstream

ROUTES = """
version: 1
providers:
  up: {base_url: "@BASE@"}
  lost: {base_url: "http://127.0.0.1:@LOST@/v1"}
models:
  lost: {provider: lost, model: lost-up, price: unmetered}
  spare: {provider: up, model: spare-up, price: unmetered}
  slow: {provider: up, model: slow-up, price: unmetered}
  limited: {provider: up, model: limited-up, price: unmetered}
routes:
  - {name: fragile, match: {model: fragile}, use: [lost], fallback: [spare], retries: 0}
  - {name: hurried, match: {model: hurried}, use: [limited], fallback: [spare]}
  - {name: quick, match: {model: quick}, use: [slow], fallback: [spare], retries: 0}
  - {name: patient, match: {model: patient}, use: [slow], fallback: [spare], retries: 1}
"""
CLOSED, OPEN = 0, 2
# llama.cpp's word for what it cannot read of a request.
UNREAD = {"error": {"code": 500, "message": "Failed to parse tools: Missing tool function", "type": "server_error"}}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok()) as server:
        yield server


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def gateway(request: pytest.FixtureRequest, tmp_path: Path, upstream: Upstream) -> Iterator[Gateway]:
    upstream.forget()
    routes = ROUTES.replace("@BASE@", upstream.base_url).replace("@LOST@", str(free_port()))
    with Gateway(tmp_path, routes, args=["--workers", str(request.param)]) as started:
        yield started


def state(gateway: Gateway, model: str) -> int | None:
    """None: there is no such series."""
    labels = {"model": model, "endpoint": "default"}
    samples = [each for each in gateway.samples() if each.name == "gateway_breaker_state"]
    return next((int(each.value) for each in samples if each.labels == labels), None)


def chat(gateway: Gateway, model: str = "fragile", **headers: str) -> httpx.Response:
    """Over a connection of its own, so that any worker may get it."""
    body = {"model": model, "messages": [{"role": "user", "content": "Say hello."}]}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, trust_env=False, timeout=60)


def served(answer: httpx.Response) -> tuple[str, str]:
    assert answer.status_code == 200, answer.text
    return answer.headers["x-gateway-model"], answer.headers["x-gateway-attempts"]


def lost_port(gateway: Gateway) -> int:
    found = re.search(r"lost: \{base_url: .*:(\d+)/", gateway.routes.read_text())
    assert found is not None
    return int(found[1])


def test_from_failure_to_recovery(gateway: Gateway) -> None:
    assert [state(gateway, model) for model in ("lost", "spare", "slow", "limited")] == [CLOSED] * 4
    assert [served(chat(gateway)) for _ in range(5)] == [("spare", "2")] * 5
    soon = time.monotonic() + PAUSE / 2
    until("the breaker to open", lambda: state(gateway, "lost") == OPEN)
    left_alone = [served(chat(gateway))]
    while len(left_alone) < 20 and time.monotonic() < soon:
        left_alone.append(served(chat(gateway)))
    assert set(left_alone) == {("spare", "1")}

    with Upstream(replies.status(503), lost_port(gateway)) as lost:
        lost.wait_for(lambda _: len(lost.probes) >= 2)
        assert served(chat(gateway))[0] == "spare"  # once its time is up, a live request may try it first
        assert {(each.method, each.path) for each in lost.probes} == {("GET", "/v1/models")}
        assert state(gateway, "lost") != CLOSED

        lost.default = replies.ok()
        until("a live request to try it", lambda: served(chat(gateway)) == ("lost", "1"))
        until("the breaker to close", lambda: state(gateway, "lost") == CLOSED)
        who: Counter[tuple[str, str]] = Counter()
        soon = time.monotonic() + 2
        while who.total() < 30 and (time.monotonic() < soon or who.total() < 10):
            who[served(chat(gateway))] += 1
        # The slow start: 10% at first, 28% after two of its ten seconds. Without it, all would go there.
        assert who["lost", "1"] < 0.7 * who.total()
        plan = chat(gateway, **{"x-gateway-dry-run": "true"}).json()
        assert any("starting slowly after a failure" in target["health"] for target in plan["targets"])

    lines = [json.loads(line) for line in gateway.log.splitlines() if '"event":"breaker"' in line]
    assert {(line["model"], line["endpoint"]) for line in lines} == {("lost", "default")}
    changes = " ".join(line["state"] for line in lines)  # tried too early where all this takes longer than the pause
    assert re.fullmatch("open (half_open open )*half_open closed", changes), changes
    assert (lines[0]["level"], lines[0]["reason"]) == ("warning", "5 failures in a row, last connect")


def test_a_model_without_a_fallback_says_when_to_come_back(gateway: Gateway) -> None:
    for _ in range(5):
        chat(gateway, "lost", **{"x-gateway-no-fallback": "true"})
    until("the breaker to open", lambda: state(gateway, "lost") == OPEN)
    for name, headers in (("lost", {}), ("fragile", {"x-gateway-no-fallback": "true"})):
        answer = chat(gateway, name, **headers)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "no_healthy_upstream"
        assert "lost: breaker open: " in answer.json()["error"]["message"]
        assert 1 <= int(answer.headers["retry-after"]) <= 10


def test_clients_that_hang_up_open_nothing(gateway: Gateway, upstream: Upstream) -> None:
    upstream.always("slow-up", replies.hang())
    body = {"model": "slow", "messages": [{"role": "user", "content": "hi"}]}
    patience = httpx.Timeout(30, read=0.5)
    for _ in range(10):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{gateway.url}/v1/chat/completions", json=body, trust_env=False, timeout=patience)
    rows = gateway.wait_rows(10)
    assert {row["outcome"] for row in rows} == {"cancelled"}
    upstream.always("slow-up", replies.ok())
    assert served(chat(gateway, "slow")) == ("slow", "1")
    assert state(gateway, "slow") == CLOSED


def test_a_rate_limit_is_a_rest(gateway: Gateway, upstream: Upstream) -> None:
    upstream.always("limited-up", replies.rate_limited("30"))
    assert served(chat(gateway, "hurried")) == ("spare", "2")
    until("all workers to know", lambda: served(chat(gateway, "hurried")) == ("spare", "1"))
    until("the rest in the plan", lambda: chat(gateway, "hurried", **{"x-gateway-dry-run": "true"}).json()["skipped"])
    asked = len(upstream.seen("limited-up"))
    assert [served(chat(gateway, "hurried")) for _ in range(10)] == [("spare", "1")] * 10
    plan = chat(gateway, "hurried", **{"x-gateway-dry-run": "true"}).json()
    assert plan["skipped"] == [{"what": "limited", "why": "rests for 30 s: rate limited (429)"}]
    refused = chat(gateway, "limited")
    assert refused.status_code == 503
    assert 20 <= int(refused.headers["retry-after"]) <= 30
    assert len(upstream.seen("limited-up")) == asked
    assert state(gateway, "limited") == CLOSED


@pytest.mark.parametrize(
    ("path", "members", "nothing"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "Say nothing."}]}, replies.empty()),
        ("chat/completions", {"messages": [{"role": "user", "content": "Say nothing."}]}, replies.no_choices()),
        ("embeddings", {"input": []}, replies.ok(extra={"data": []})),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "x"}], "tools": [{}]},
            replies.status(500, UNREAD),
        ),
    ],
)
def test_a_client_that_asks_for_nothing_or_nonsense_shuts_out_nobody(
    gateway: Gateway, upstream: Upstream, path: str, members: dict[str, object], nothing: Reply
) -> None:
    upstream.script("spare-up", *[nothing] * 16)
    for _ in range(8):
        assert gateway.post(f"/v1/{path}", json={"model": "spare", **members}).status_code == 502
    assert len(upstream.seen("spare-up")) == 16
    assert chat(gateway, "spare").status_code == 200
    assert state(gateway, "spare") == CLOSED


def test_who_opens_a_breaker_does_not_wait_for_a_retry_that_is_not_to_be_made(
    tmp_path: Path, upstream: Upstream
) -> None:
    """The upstream asks for two seconds' patience, with which any other failure is met."""
    upstream.forget()
    upstream.always("slow-up", replies.status(503, headers={"retry-after": "2"}))
    with Gateway(tmp_path, ROUTES.replace("@BASE@", upstream.base_url).replace("@LOST@", "9")) as gateway:
        assert chat(gateway, "patient").headers["x-gateway-model"] == "spare"  # two failures, and a wait between them
        for _ in range(2):
            assert chat(gateway, "quick").headers["x-gateway-model"] == "spare"
        opened = chat(gateway, "patient")  # with the fifth
        assert opened.headers["x-gateway-model"] == "spare"
        assert state(gateway, "slow") == OPEN
        waited, *_, last = (row["duration"] for row in gateway.wait_rows(4))
        assert waited > 2.0 > last
        assert sum(asked.json["model"] == "slow-up" for asked in upstream.requests) == 5
