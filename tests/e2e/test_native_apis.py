"""/v1/messages and /v1/responses on servers that have them: the same engine, the same bytes, errors in that dialect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.replies import END, chunked, http, stream_head
from tests.servers import Gateway
from tests.upstream import CUT, Billed, Received, Reply, Step, Upstream

ROUTES = """
version: 1
providers:
  up: {base_url: "@BASE@", apis: [chat, messages, responses]}
  plain: {base_url: "@BASE@"}
models:
  a: {provider: up, model: a-up, price: {input: 1, output: 10}}
  b: {provider: up, model: b-up, price: {input: 3, output: 30}}
  old: {provider: plain, price: {input: 1, output: 1}}
routes:
  - {name: pair, match: {model: auto}, use: [a], fallback: [b], retries: 0}
"""
HELLO = [{"role": "user", "content": "Hello"}]
BODIES: dict[str, dict[str, Any]] = {
    "/messages": {"model": "auto", "messages": HELLO, "max_tokens": 20, "system": "Be brief."},
    "/responses": {"model": "auto", "input": "Hello", "max_output_tokens": 20},
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "a-up",
    "content": [{"type": "text", "text": "Hello there."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 7, "output_tokens": 5, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0},
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "error": None,
    "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello there."}]}],
    "usage": {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12},
}
WHOLE: dict[str, dict[str, Any]] = {"/messages": MESSAGE, "/responses": RESPONSE}


def text(path: str, piece: str) -> dict[str, Any]:
    if path == "/messages":
        return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
    return {"type": "response.output_text.delta", "item_id": "msg_1", "delta": piece}


def opening(path: str) -> dict[str, Any]:
    if path == "/messages":
        start = {**MESSAGE, "content": [], "stop_reason": None, "usage": {"input_tokens": 7, "output_tokens": 1}}
        return {"type": "message_start", "message": start}
    return {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "usage": None}}


def ending(path: str) -> list[dict[str, Any]]:
    if path == "/messages":
        last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
        return [last, {"type": "message_stop"}]
    return [{"type": "response.completed", "response": RESPONSE}]


def named(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode())


def answers(*, stop: Step | None = None) -> Reply:
    """Whole, or streamed where asked; `stop`: what happens after the first text instead of the rest."""

    def reply(received: Received) -> Iterator[Step]:
        path = received.path.removeprefix("/v1")
        if not received.json.get("stream"):
            yield http(200, json.dumps(WHOLE[path]).encode())
        else:
            yield stream_head()
            for event in (opening(path), text(path, "Hello")):
                yield chunked(named(event))
            if stop is not None:
                yield stop
                return
            for event in (text(path, " there."), *ending(path)):
                yield chunked(named(event))
            yield END
        yield Billed(received.model, input=7, output=5)

    return reply


NATIVE = [
    pytest.param(path, marks=pytest.mark.compatible(endpoint=path, system=system))
    for path, system in (("/messages", "anthropic"), ("/responses", "openai-native"))
]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(answers()) as server:
        yield server


@pytest.fixture
def gateway(tmp_path: Path, upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(tmp_path, ROUTES.replace("@BASE@", upstream.base_url)) as running:
        yield running


def ask(gateway: Gateway, path: str, **more: Any) -> httpx.Response:
    return gateway.client.post(f"/v1{path}", json={**BODIES[path], **more})


@pytest.mark.parametrize("path", NATIVE)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer(gateway: Gateway, upstream: Upstream, path: str, stream: bool) -> None:
    answer = ask(gateway, path, stream=stream)
    assert answer.status_code == 200
    assert answer.headers["x-gateway-model"] == "a"
    sent = upstream.requests[-1]
    assert sent.path == f"/v1{path}"
    assert sent.json == {**BODIES[path], "stream": stream, "model": "a-up"}, "no stream_options here"
    cost = 7e-6 + 5e-5
    if not stream:
        assert answer.json().pop("usage") == {**WHOLE[path]["usage"], "cost": pytest.approx(cost)}
    else:
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        kinds = [opening(path)["type"], text(path, "")["type"], text(path, "")["type"]]
        assert [event["type"] for event in events] == kinds + [event["type"] for event in ending(path)]
        last = next(event for event in reversed(events) if event.get("usage") or event.get("response"))
        usage = last.get("usage") or last["response"]["usage"]
        assert usage["cost"] == pytest.approx(cost)
    row = gateway.wait_rows(1)[0]
    assert (row["endpoint"], row["outcome"], row["cost_nano"]) == (path, "ok", 57_000)
    assert (row["input_tokens"], row["output_tokens"], row["usage_estimated"]) == (7, 5, 0)


@pytest.mark.parametrize("path", BODIES)
def test_what_breaks_before_content_is_answered_by_the_fallback(
    gateway: Gateway, upstream: Upstream, path: str
) -> None:
    def breaks(_: Received) -> Iterator[Step]:
        yield stream_head() + chunked(named(opening(path)))
        yield CUT

    upstream.script("a-up", breaks)
    answer = ask(gateway, path, stream=True)
    assert answer.headers["x-gateway-model"] == "b"
    assert answer.headers["x-gateway-fallback-reason"] == "stream_cut"
    assert answer.text.count(opening(path)["type"]) == 2, "once as the event's name and once in its data"


@pytest.mark.parametrize("path", BODIES)
def test_what_breaks_after_content_ends_in_an_error_of_the_dialect(
    gateway: Gateway, upstream: Upstream, path: str
) -> None:
    upstream.script("a-up", answers(stop=CUT))
    answer = ask(gateway, path, stream=True)
    name, data = answer.text.strip().split("\n\n")[-1].split("\n")
    assert name == "event: error"
    error = json.loads(data.removeprefix("data: "))
    assert error["type"] == "error"
    said = error["error"] if path == "/messages" else error
    assert "the answer broke off" in said["message"]
    assert gateway.wait_rows(1)[0]["outcome"] == "upstream_error"


def test_errors_are_in_the_dialect(gateway: Gateway) -> None:
    unknown = ask(gateway, "/messages", model="nobody").json()
    assert unknown["type"] == "error"
    assert unknown["error"]["type"] == "not_found_error"
    assert ask(gateway, "/responses", model="nobody").json()["error"]["code"] == "model_not_found"
    malformed = ask(gateway, "/messages", messages="Hello")
    assert (malformed.status_code, malformed.json()["error"]["type"]) == (400, "invalid_request_error")
