"""A slow first attempt gets company; an answer that broke off is continued elsewhere."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import replies
from tests.servers import Gateway, until
from tests.upstream import CUT, STALL, Gate, Upstream

from .test_slow_clients import Flood, connect, request

ROUTES = """
version: 1
providers: {up: {base_url: "@BASE@"}}
defaults: {retries: 0, timeout: {idle: 1500ms, first_token: 5s, total: 20s}}
models:
  slow: {provider: up, model: slow-up, price: {input: 1, output: 2}, supports: [prefill, tools, json_schema]}
  quick: {provider: up, model: quick-up, price: {input: 3, output: 6}, supports: [prefill, tools, json_schema]}
  unable: {provider: up, model: unable-up, price: {input: 3, output: 6}, supports: [tools]}
routes:
  - {name: hedged, match: {model: hedged}, use: [slow], fallback: [quick], hedge: {after: 200ms}}
  - name: cheap
    match: {model: cheap}
    use: [slow]
    fallback: [quick]
    hedge: {after: 200ms, max_extra_cost_usd: 0.000001}
  - {name: by-p95, match: {model: by-p95}, use: [slow], fallback: [quick], hedge: {after: p95}}
  - {name: goes-on, match: {model: goes-on}, use: [slow], fallback: [unable, quick], mid_stream: continue}
  - {name: stuck, match: {model: stuck}, use: [slow], fallback: [unable], mid_stream: continue}
  - {name: ends, match: {model: ends}, use: [slow], fallback: [quick]}
"""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok()) as server:
        yield server


@pytest.fixture
def gateway(tmp_path: Path, upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(tmp_path, ROUTES.replace("@BASE@", upstream.base_url)) as started:
        yield started


def save_up(gateway: Gateway, route: str, *, stream: bool) -> None:
    """At most 5% of a route's requests are hedged: twenty quick ones earn one."""
    for _ in range(21):
        assert gateway.chat(route, stream=stream).headers["x-gateway-model"] == "slow"


@pytest.mark.parametrize("stream", [False, True])
def test_the_second_answers_and_the_first_is_ended_and_charged(
    gateway: Gateway, upstream: Upstream, stream: bool
) -> None:
    save_up(gateway, "hedged", stream=stream)
    upstream.forget()
    upstream.script("slow-up", replies.hang())
    answer = gateway.chat("hedged", stream=stream)
    assert (answer.status_code, answer.headers["x-gateway-model"]) == (200, "quick")
    assert "x-gateway-fallback-reason" not in answer.headers
    assert answer.headers["x-gateway-attempts"] == "2"
    (given_up,) = upstream.seen("slow-up")
    assert given_up.gone.wait(60), "the loser's upstream is closed"
    row = gateway.wait_rows(22)[-1]
    loser, winner = gateway.rows("SELECT * FROM attempts WHERE request_id = ? ORDER BY started", row["id"])
    assert (loser["model"], loser["result"], loser["purpose"]) == ("slow", "cancelled", "hedge")
    assert (winner["model"], winner["result"], winner["purpose"]) == ("quick", "ok", "answer")
    assert loser["cost_nano"] > 0
    assert row["cost_nano"] == loser["cost_nano"] + winner["cost_nano"]
    assert gateway.metric("gateway_hedges_total", route="hedged", won="true") == 1
    assert gateway.metric("gateway_hedges_total", route="hedged", won="false") == 0
    until("nothing is in flight", lambda: gateway.metric("gateway_requests_in_flight") == 0)


def test_the_first_may_still_win(gateway: Gateway, upstream: Upstream) -> None:
    save_up(gateway, "hedged", stream=True)
    upstream.script("slow-up", replies.after(0.4, replies.ok("slow but first")))
    upstream.script("quick-up", replies.hang())
    answer = gateway.chat("hedged", stream=True)
    assert answer.headers["x-gateway-model"] == "slow"
    assert upstream.seen("quick-up")[-1].gone.wait(60)
    until("the count", lambda: gateway.metric("gateway_hedges_total", route="hedged", won="false") == 1)


def test_both_fail(gateway: Gateway, upstream: Upstream) -> None:
    save_up(gateway, "hedged", stream=False)
    upstream.script("slow-up", replies.after(0.4, replies.status(500)))
    upstream.script("quick-up", replies.after(0.4, replies.status(500)))
    answer = gateway.chat("hedged")
    assert answer.status_code == 502
    assert answer.json()["error"]["message"].count("made-up 500") == 2


@pytest.mark.parametrize(("route", "headers"), [("cheap", {}), ("hedged", {"x-gateway-no-fallback": "true"})])
def test_no_company(gateway: Gateway, upstream: Upstream, route: str, headers: dict[str, str]) -> None:
    save_up(gateway, route, stream=False)
    upstream.script("slow-up", replies.after(0.5, replies.ok()))
    assert gateway.chat(route, headers=headers).headers["x-gateway-model"] == "slow"
    assert upstream.seen("quick-up") == []


def test_the_share_is_kept(gateway: Gateway, upstream: Upstream) -> None:
    save_up(gateway, "hedged", stream=False)
    upstream.script("slow-up", *[replies.after(1.0, replies.ok())] * 3)
    models = [gateway.chat("hedged").headers["x-gateway-model"] for _ in range(3)]
    assert models == ["quick", "slow", "slow"]


def test_p95_is_observed_first(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("slow-up", replies.after(0.3, replies.ok()))
    assert gateway.chat("by-p95", stream=True).headers["x-gateway-model"] == "slow"
    for _ in range(205):
        gateway.chat("by-p95", stream=True)
    upstream.script("slow-up", replies.after(1, replies.ok()))
    assert gateway.chat("by-p95", stream=True).headers["x-gateway-model"] == "quick"


def chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line.startswith("data: ")]
    return [json.loads(event) for event in events if event != "[DONE]"]


def test_a_target_that_was_too_busy_to_hedge_is_still_the_fallback(tmp_path: Path, upstream: Upstream) -> None:
    routes = ROUTES.replace("@BASE@", upstream.base_url).replace("quick-up,", "quick-up, max_in_flight: 1,")
    with Gateway(tmp_path, routes) as gateway, ThreadPoolExecutor() as clients:
        save_up(gateway, "hedged", stream=False)
        gate = Gate()
        upstream.script("quick-up", replies.ok(gate=gate))
        occupying = clients.submit(gateway.chat, "quick")
        assert gate.reached.wait(60)
        upstream.script("slow-up", replies.after(0.6, replies.status(500)))
        asked = clients.submit(gateway.chat, "hedged")
        time.sleep(0.4)  # the hedge, due after 0.2 s, has found no place
        gate.open()
        assert occupying.result().status_code == 200
        answer = asked.result()
        assert (answer.status_code, answer.headers["x-gateway-model"]) == (200, "quick")
        assert gateway.metric("gateway_hedges_total", route="hedged") == 0


def test_a_client_that_never_reads_is_cut_off_in_a_race_too(gateway: Gateway, upstream: Upstream) -> None:
    flood = Flood()
    upstream.always("slow-up", flood.reply())
    with connect(gateway, receive_buffer=4096) as client:
        client.sendall(request("hedged", stream=True))
        (row,) = gateway.wait_rows(1)
        assert row["outcome"] == "cancelled"
        assert upstream.seen("slow-up")[0].gone.wait(60)
        with contextlib.suppress(ConnectionResetError):
            while client.recv(1 << 20):
                pass  # what was in the sockets, and then the end


def text(answer: httpx.Response) -> str:
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks(answer) for choice in chunk.get("choices", ())
    )


@pytest.mark.parametrize("ending", ["cut", "stall", "error event"])
def test_another_goes_on_under_the_same_id(gateway: Gateway, upstream: Upstream, ending: str) -> None:
    broken = {
        "cut": replies.cut_after(2),
        "stall": replies.words_then([STALL]),
        "error event": replies.error_after(2),
    }
    upstream.script("slow-up", broken[ending])
    upstream.script("quick-up", replies.ok("and the rest."))
    answer = gateway.chat("goes-on", stream=True, max_tokens=50, stream_options={"include_usage": True})
    assert text(answer) == "word0 word1 and the rest."
    assert answer.text.count("[DONE]") == 1
    assert "error" not in answer.text
    assert {(chunk["id"], chunk["model"]) for chunk in chunks(answer)} == {("cmpl-1", "slow-up-2026")}
    assert sum("role" in choice["delta"] for chunk in chunks(answer) for choice in chunk["choices"]) == 1
    (asked,) = upstream.seen("quick-up")
    assert asked.json["messages"][-1] == {"role": "assistant", "content": "word0 word1 "}
    assert asked.json["continue_final_message"] is True
    assert asked.json["max_tokens"] == 48
    assert upstream.seen("unable-up") == []
    (row,) = gateway.wait_rows(1)
    first, second = gateway.rows("SELECT * FROM attempts ORDER BY started")
    assert (row["outcome"], row["status"], row["model"]) == ("ok", 200, "quick")
    assert [first["result"], second["result"]] == ["timeout" if ending == "stall" else "stream_cut", "ok"]
    assert first["cost_nano"] > 0
    assert row["cost_nano"] == first["cost_nano"] + second["cost_nano"]
    assert chunks(answer)[-1]["usage"]["cost"] == pytest.approx(row["cost_nano"] / 1e9, rel=1e-12)


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
    ],
)
def test_what_cannot_be_continued_ends_in_an_error(gateway: Gateway, upstream: Upstream, more: dict[str, Any]) -> None:
    upstream.script("slow-up", replies.cut_after(2))
    answer = gateway.chat("goes-on", stream=True, **more)
    assert "[DONE]" not in answer.text
    assert chunks(answer)[-1]["error"]["type"] == "upstream_error"
    assert upstream.seen("quick-up") == []


def test_unfinished_reasoning_is_not_continued_and_told_once(gateway: Gateway, upstream: Upstream) -> None:
    thought = {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}]}
    upstream.script("slow-up", lambda _: [replies.stream_head(), replies.event(thought), 0.05, CUT])
    answer = gateway.chat("goes-on", stream=True)
    assert chunks(answer)[-1]["error"]["message"].count("stream_cut") == 1
    assert upstream.seen("quick-up") == []


@pytest.mark.parametrize("route", ["stuck", "ends"])
def test_nobody_to_go_on(gateway: Gateway, upstream: Upstream, route: str) -> None:
    upstream.script("slow-up", replies.cut_after(2))
    answer = gateway.chat(route, stream=True)
    assert "[DONE]" not in answer.text
    assert "broke off" in chunks(answer)[-1]["error"]["message"]
    assert [request.model for request in upstream.requests] == ["slow-up"]
    (row,) = gateway.wait_rows(1)
    assert (row["outcome"], row["status"]) == ("upstream_error", 200)


def test_the_second_breaks_off_too(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("slow-up", replies.cut_after(2))
    upstream.script("quick-up", replies.cut_after(1))
    answer = gateway.chat("goes-on", stream=True)
    assert text(answer) == "word0 word1 word0 "
    assert "[DONE]" not in answer.text
    assert chunks(answer)[-1]["error"]["message"].count("stream_cut") == 2
