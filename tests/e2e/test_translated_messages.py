"""/v1/messages on servers that only speak chat: translated both ways, billed and bounded as any other call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests import replies
from tests.e2e.test_native_apis import answers as native
from tests.replies import Tokens
from tests.servers import Gateway, until
from tests.upstream import CUT, STALL, Received, Reply, Step, Upstream

ROUTES = """
version: 1
providers:
  chat: {base_url: "@BASE@"}
  both: {base_url: "@BASE@", apis: [chat, messages]}
models:
  a: {provider: chat, model: a-up, price: {input: 1, cached_input: 0.1, output: 2, reasoning: 4}}
  b: {provider: chat, model: b-up, price: {input: 3, output: 6}}
  n: {provider: both, model: n-up, price: {input: 3, output: 6}}
@FAILS@
  begun: {provider: chat, model: begun-up, price: unmetered, supports: [prefill, tools, reasoning]}
  tuned: {provider: chat, model: tuned-up, price: {input: 1, output: 1}, set: {max_completion_tokens: 500}}
routes:
  - {name: pair, match: {model: pair}, use: [a], fallback: [b], retries: 0, timeout: {idle: 1s, total: 10s}}
@TRIES@
  - {name: mixed, match: {model: mixed}, use: [n], fallback: [a], retries: 0}
  - {name: mixed-back, match: {model: mixed-back}, use: [a], fallback: [n], retries: 0}
budgets:
  - {name: bound, match: {model: tuned}, limit_usd: 0.000600, window: total}
"""  # fmt: skip
BODY: dict[str, Any] = {"max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}


STREAMS_ONLY = "cut before content"
FAILS: dict[str, Callable[[], Reply]] = {
    "status": lambda: replies.status(500),
    "reset": replies.reset,
    "empty": replies.empty,
    "error in a 200": replies.error_in_200,
    "html in a 200": replies.html_in_200,
    STREAMS_ONLY: lambda: replies.words_then([CUT], 0),
    "no choices": replies.no_choices,
}
# Each has a model of its own: five failures in a row would open a breaker.
COUNT = len(FAILS) + 3
MODELS = [f"  fails-{i}: {{provider: chat, model: fails-{i}-up, price: unmetered}}" for i in range(COUNT)]
QUICK = "retries: 0, timeout: {idle: 1s, total: 10s}"
TRIES = [
    f"  - {{name: t-{i}, match: {{model: try-{i}}}, use: [fails-{i}], fallback: [b], {QUICK}}}" for i in range(COUNT)
]


def any_api(received: Received) -> Iterator[Step]:
    reply = native() if received.path == "/v1/messages" else replies.ok()
    yield from reply(received)


@pytest.fixture(scope="module")
def shared() -> Iterator[Upstream]:
    with Upstream(any_api) as server:
        yield server


@pytest.fixture
def upstream(shared: Upstream) -> Upstream:
    shared.forget()
    return shared


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, shared: Upstream) -> Iterator[Gateway]:
    routes = ROUTES.replace("@FAILS@", "\n".join(MODELS)).replace("@TRIES@", "\n".join(TRIES))
    with Gateway(tmp_path_factory.mktemp("gateway"), routes.replace("@BASE@", shared.base_url)) as running:
        yield running


def ask(gateway: Gateway, model: str, **more: Any) -> httpx.Response:
    return gateway.client.post("/v1/messages", json={"model": model, **BODY, **more})


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = [dict(line.split(": ", 1) for line in event.split("\n")) for event in answer.text.strip().split("\n\n")]
    data: list[dict[str, Any]] = [json.loads(event["data"]) for event in found]
    assert [event["event"] for event in found] == [each["type"] for each in data]
    return data


def row_of(gateway: Gateway, answer: httpx.Response) -> dict[str, Any]:
    query = "SELECT * FROM requests WHERE client_request_id = ?1 OR id = ?1"
    return until("the row", lambda: gateway.rows(query, answer.headers["x-request-id"]))[0]


TOKENS = Tokens(100, 20, 30, 40)
COST = (100 * 1000 + 20 * 100 + 30 * 2000 + 40 * 4000) / 1e9  # USD, at the prices of `a`
USAGE = {
    "input_tokens": 100,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 20,
    "output_tokens": 70,
    "output_tokens_details": {"thinking_tokens": 40},
}


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_and_what_it_costs(gateway: Gateway, upstream: Upstream, stream: bool) -> None:
    """What the upstream billed is what the client is told and the ledger keeps, reasoning and cached tokens too."""
    upstream.script("a-up", replies.ok(tokens=TOKENS, extra={"reasoning_content": "Hm."}))
    answer = ask(gateway, "a", stream=stream, system="Be brief.", metadata={"user_id": "u-1", "tags": ["x"]})
    assert answer.status_code == 200
    sent = upstream.requests[-1]
    assert sent.path == "/v1/chat/completions"
    messages = [{"role": "system", "content": "Be brief."}, *BODY["messages"]]
    options = {"stream_options": {"include_usage": True}} if stream else {}
    body = {"model": "a-up", "max_tokens": 20, "messages": messages, "user": "u-1", "stream": stream, **options}
    assert sent.json == body
    if stream:
        got = events(answer)
        assert got[0]["type"] == "message_start"
        assert [event["type"] for event in got[-2:]] == ["message_delta", "message_stop"]
        text = "".join(event["delta"].get("text", "") for event in got if event["type"] == "content_block_delta")
        last = got[-2]
        assert last["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    else:
        last = answer.json()
        assert (last["type"], last["role"], last["stop_reason"]) == ("message", "assistant", "end_turn")
        text = last["content"][1]["text"]
        assert last["content"][0] == {"type": "thinking", "thinking": "Hm.", "signature": ""}
        assert float(answer.headers["x-gateway-cost-usd"]) == pytest.approx(COST)
    assert text == "Hello there."
    assert last["usage"] == {**USAGE, "cost": pytest.approx(COST)}
    row = row_of(gateway, answer)
    assert (row["endpoint"], row["outcome"], row["user"]) == ("/messages", "ok", "u-1")
    tokens = [row[f"{kind}_tokens"] for kind in ("input", "cached_input", "output", "reasoning")]
    assert tokens == list(TOKENS)
    assert row["cost_nano"] == round(COST * 1e9)
    assert row["usage_estimated"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_tools(gateway: Gateway, upstream: Upstream, stream: bool) -> None:
    upstream.script("a-up", replies.tool_call())
    tool = {"name": "look", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}
    answer = ask(gateway, "a", stream=stream, tools=[tool], tool_choice={"type": "any"})
    assert answer.headers["x-gateway-dropped"] == "cache_control"
    assert upstream.requests[-1].json["tool_choice"] == "required"
    if stream:
        got = events(answer)
        block = next(event["content_block"] for event in got if event["type"] == "content_block_start")
        block["input"] = json.loads(
            "".join(e["delta"]["partial_json"] for e in got if "partial_json" in e.get("delta", {}))
        )
        stop = got[-2]["delta"]["stop_reason"]
    else:
        (block,) = answer.json()["content"]
        stop = answer.json()["stop_reason"]
    assert block == {"type": "tool_use", "id": "call_1", "name": "look", "input": {"a": 1}}
    assert stop == "tool_use"


def test_usage_that_is_missing_is_estimated_for_client_and_ledger(gateway: Gateway, upstream: Upstream) -> None:
    for stream in (False, True):
        upstream.script("a-up", replies.ok("word " * 40, usage="absent"))
        answer = ask(gateway, "a", stream=stream)
        usage = events(answer)[-2]["usage"] if stream else answer.json()["usage"]
        row = row_of(gateway, answer)
        assert usage["estimated"] is True
        assert row["usage_estimated"] == 1
        assert (usage["input_tokens"], usage["output_tokens"]) == (row["input_tokens"], row["output_tokens"])


@pytest.mark.parametrize(
    ("name", "stream"), [(name, stream) for name in FAILS for stream in (False, True) if stream or name != STREAMS_ONLY]
)
def test_what_fails_before_content_falls_back(gateway: Gateway, upstream: Upstream, name: str, stream: bool) -> None:
    number = list(FAILS).index(name)
    upstream.script(f"fails-{number}-up", FAILS[name]())
    answer = ask(gateway, f"try-{number}", stream=stream)
    assert answer.status_code == 200
    assert answer.headers["x-gateway-model"] == "b"
    assert answer.headers["x-gateway-fallback-reason"]
    if stream:
        assert [event["type"] for event in events(answer)].count("message_start") == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "first", "second"), [("mixed", "n", "a"), ("mixed-back", "a", "n")])
def test_native_and_translated_targets_stand_in_for_each_other(
    gateway: Gateway, upstream: Upstream, model: str, first: str, second: str, stream: bool
) -> None:
    upstream.script(f"{first}-up", replies.status(503))
    answer = ask(gateway, model, stream=stream, top_k=3)
    assert answer.headers["x-gateway-model"] == second
    paths = [request.path for request in upstream.calls]
    assert paths == [f"/v1{'/messages' if each == 'n' else '/chat/completions'}" for each in (first, second)]
    if stream:
        assert events(answer)[-1] == {"type": "message_stop"}
    else:
        assert answer.json()["content"][0]["text"] == "Hello there."


ENDINGS: list[list[Step]] = [[CUT], [replies.event(replies.ERROR) + replies.END], [STALL]]


@pytest.mark.parametrize("number", range(3), ids=["cut", "error", "stall"])
def test_what_breaks_after_content_ends_in_anthropics_error_event(
    gateway: Gateway, upstream: Upstream, number: int
) -> None:
    upstream.script(f"fails-{len(FAILS) + number}-up", replies.words_then(ENDINGS[number]))
    answer = ask(gateway, f"try-{len(FAILS) + number}", stream=True)
    got = events(answer)
    assert got[-1]["type"] == "error"
    assert got[-1]["error"]["type"] in ("api_error", "timeout_error")
    assert got[-1]["error"]["message"]
    assert "message_stop" not in [event["type"] for event in got]
    assert row_of(gateway, answer)["outcome"] == "upstream_error"


def test_a_finish_without_an_end_is_whole(gateway: Gateway, upstream: Upstream) -> None:
    def stalls(received: Received) -> Iterator[Step]:
        yield replies.stream_head() + replies.chunk(received, {"content": "Hi"}) + replies.chunk(received, {}, "stop")
        yield STALL

    upstream.script("a-up", stalls)
    answer = ask(gateway, "pair", stream=True)
    assert events(answer)[-1] == {"type": "message_stop"}
    assert row_of(gateway, answer)["outcome"] == "ok"


def test_an_upstreams_own_400_is_relayed_in_anthropics_shape(gateway: Gateway, upstream: Upstream) -> None:
    error = {"message": "temperature must be below 2", "type": "invalid_request_error", "code": "bad_temperature"}
    upstream.script("a-up", replies.status(400, {"error": error}), replies.context_too_long())
    answer = ask(gateway, "a")
    assert answer.status_code == 400
    assert answer.json() == {"type": "error", "error": error}
    too_long = ask(gateway, "a")
    assert (too_long.status_code, too_long.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_what_cannot_be_carried_is_refused_by_name_or_goes_where_it_can(gateway: Gateway, upstream: Upstream) -> None:
    server_tool = [{"type": "web_search_20250305", "name": "web_search"}]
    refused = ask(gateway, "pair", tools=server_tool)
    assert refused.status_code == 400
    said = refused.json()["error"]
    assert said["type"] == "invalid_request_error"
    assert "cannot carry tools: web_search_20250305" in said["message"]
    assert not upstream.requests
    assert ask(gateway, "mixed-back", tools=server_tool).headers["x-gateway-model"] == "n"
    dry = ask(gateway, "mixed-back", speed="fast", headers=None, stream=False)
    assert dry.headers["x-gateway-dropped"] == "speed"


def test_the_decision_says_what_is_translated(gateway: Gateway) -> None:
    body = {"model": "mixed", **BODY, "speed": "fast"}
    said = gateway.client.post("/v1/messages", json=body, headers={"x-gateway-dry-run": "true"}).json()
    shown = [(each["model"], each["translated_to"], each["dropped"]) for each in said["targets"]]
    assert shown == [("n", None, []), ("a", "/chat/completions", ["speed"])]


def test_a_begun_answer_is_gone_on_with(gateway: Gateway, upstream: Upstream) -> None:
    begun = [*BODY["messages"], {"role": "assistant", "content": "Hello"}]
    assert ask(gateway, "begun", messages=begun).status_code == 200
    assert upstream.requests[-1].json["continue_final_message"] is True
    assert ask(gateway, "a", messages=begun).status_code == 400


def test_a_budget_bounds_what_really_goes_upstream(gateway: Gateway, upstream: Upstream) -> None:
    """The model's own `set` raises the client's cap of 20 to 500 under chat's other name; 0.6 m$ hold one such call."""
    upstream.always("tuned-up", replies.ok(tokens=Tokens(50, 0, 500, 0)))
    answer = ask(gateway, "tuned", top_p=0.5)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "insufficient_quota")
    assert not upstream.seen("tuned-up"), "its ceiling, input and template included, is above the limit"
