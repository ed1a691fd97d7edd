"""/v1/responses on servers that only have chat: translated both ways, billed and bounded as any other call."""

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
from tests.upstream import CUT, STALL, Gate, Received, Reply, Step, Upstream

ROUTES = """
version: 1
providers:
  chat: {base_url: "@BASE@"}
  both: {base_url: "@BASE@", apis: [chat, responses]}
models:
  a: {provider: chat, model: a-up, price: {input: 1, cached_input: 0.1, output: 2, reasoning: 4}}
  b: {provider: chat, model: b-up, price: {input: 3, output: 6}}
  n: {provider: both, model: n-up, price: {input: 3, output: 6}}
@FAILS@
  tuned: {provider: chat, model: tuned-up, price: {input: 1, output: 1}, set: {max_completion_tokens: 500}}
  capped: {provider: chat, model: capped-up, price: {input: 0, output: 1000}, max_output_tokens: 100000}
routes:
  - {name: pair, match: {model: pair}, use: [a], fallback: [b], retries: 0, timeout: {idle: 1s, total: 10s}}
@TRIES@
  - {name: mixed, match: {model: mixed}, use: [n], fallback: [a], retries: 0}
  - {name: mixed-back, match: {model: mixed-back}, use: [a], fallback: [n], retries: 0}
budgets:
  - {name: bound, match: {model: tuned}, limit_usd: 0.000600, window: total}
  - {name: wide, match: {model: capped}, limit_usd: 50, window: total}
"""  # fmt: skip
BODY: dict[str, Any] = {"max_output_tokens": 20, "input": "Hello"}

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
    reply = native() if received.path == "/v1/responses" else replies.ok()
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
    return gateway.client.post("/v1/responses", json={"model": model, **BODY, **more})


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = [dict(line.split(": ", 1) for line in event.split("\n")) for event in answer.text.strip().split("\n\n")]
    data: list[dict[str, Any]] = [json.loads(event["data"]) for event in found]
    assert [event["event"] for event in found] == [each["type"] for each in data]
    return data


def numbered(got: list[dict[str, Any]]) -> bool:
    return [event["sequence_number"] for event in got] == list(range(len(got)))


def row_of(gateway: Gateway, answer: httpx.Response) -> dict[str, Any]:
    query = "SELECT * FROM requests WHERE client_request_id = ?1 OR id = ?1"
    return until("the row", lambda: gateway.rows(query, answer.headers["x-request-id"]))[0]


TOKENS = Tokens(100, 20, 30, 40)
COST = (100 * 1000 + 20 * 100 + 30 * 2000 + 40 * 4000) / 1e9  # USD, at the prices of `a`
USAGE = {
    "input_tokens": 120,
    "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 0},
    "output_tokens": 70,
    "output_tokens_details": {"reasoning_tokens": 40},
    "total_tokens": 190,
}


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_and_what_it_costs(gateway: Gateway, upstream: Upstream, stream: bool) -> None:
    """What the upstream billed is what the client is told and the ledger keeps, reasoning and cached tokens too."""
    upstream.script("a-up", replies.ok(tokens=TOKENS, extra={"reasoning_content": "Hm."}))
    metadata = {"tags": ["x"], "mine": "y"}
    answer = ask(gateway, "a", stream=stream, instructions="Be brief.", user="u-1", metadata=metadata)
    assert answer.status_code == 200
    sent = upstream.requests[-1]
    assert sent.path == "/v1/chat/completions"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    options = {"stream_options": {"include_usage": True}} if stream else {}
    assert sent.json == {
        "model": "a-up", "max_tokens": 20, "messages": messages, "user": "u-1", "stream": stream, **options
    }  # fmt: skip
    if stream:
        got = events(answer)
        assert numbered(got)
        kinds = [event["type"] for event in got]
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert kinds[-1] == "response.completed"
        last = got[-1]["response"]
        said = [event["delta"] for event in got if event["type"] == "response.output_text.delta"]
        assert "".join(said) == "Hello there."
    else:
        last = answer.json()
        thought, message = last["output"]
        assert thought["content"] == [{"type": "reasoning_text", "text": "Hm."}]
        assert message["content"][0]["text"] == "Hello there."
        assert float(answer.headers["x-gateway-cost-usd"]) == pytest.approx(COST)
    assert (last["object"], last["status"], last["instructions"]) == ("response", "completed", "Be brief.")
    assert last["metadata"] == {"mine": "y"}
    assert last["usage"] == {**USAGE, "cost": pytest.approx(COST)}
    row = row_of(gateway, answer)
    assert (row["endpoint"], row["outcome"], row["user"]) == ("/responses", "ok", "u-1")
    tokens = [row[f"{kind}_tokens"] for kind in ("input", "cached_input", "output", "reasoning")]
    assert tokens == list(TOKENS)
    assert row["cost_nano"] == round(COST * 1e9)
    assert row["usage_estimated"] == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["function", "custom"])
def test_tools(gateway: Gateway, upstream: Upstream, kind: str, stream: bool) -> None:
    upstream.script("a-up", replies.tool_call())
    answer = ask(gateway, "a", stream=stream, tools=[{"type": kind, "name": "look"}], tool_choice="required")
    assert "x-gateway-dropped" not in answer.headers
    assert upstream.requests[-1].json["tool_choice"] == "required"
    output = (events(answer)[-1]["response"] if stream else answer.json())["output"]
    (call,) = output
    assert (call["call_id"], call["name"], call["status"]) == ("call_1", "look", "completed")
    if kind == "function":
        assert (call["type"], json.loads(call["arguments"])) == ("function_call", {"a": 1})
    else:
        assert (call["type"], json.loads(call["input"])) == ("custom_tool_call", {"a": 1})


def test_usage_that_is_missing_is_estimated_in_the_ledger(gateway: Gateway, upstream: Upstream) -> None:
    for stream in (False, True):
        upstream.script("a-up", replies.ok("word " * 40, usage="absent"))
        answer = ask(gateway, "a", stream=stream)
        assert (events(answer)[-1]["response"] if stream else answer.json())["usage"] is None
        row = row_of(gateway, answer)
        assert row["usage_estimated"] == 1
        assert row["output_tokens"] > 0


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
        assert [event["type"] for event in events(answer)].count("response.created") == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "first", "second"), [("mixed", "n", "a"), ("mixed-back", "a", "n")])
def test_native_and_translated_targets_stand_in_for_each_other(
    gateway: Gateway, upstream: Upstream, model: str, first: str, second: str, stream: bool
) -> None:
    upstream.script(f"{first}-up", replies.status(503))
    answer = ask(gateway, model, stream=stream, temperature=0.5)
    assert answer.headers["x-gateway-model"] == second
    paths = [request.path for request in upstream.calls]
    assert paths == [f"/v1{'/responses' if each == 'n' else '/chat/completions'}" for each in (first, second)]
    last = events(answer)[-1]["response"] if stream else answer.json()
    assert last["status"] == "completed"
    assert last["output"][0]["content"][0]["text"] == "Hello there."


ENDINGS: list[list[Step]] = [[CUT], [replies.event(replies.ERROR) + replies.END], [STALL]]


@pytest.mark.parametrize("number", range(3), ids=["cut", "error", "stall"])
def test_what_breaks_after_content_ends_in_an_error_event(gateway: Gateway, upstream: Upstream, number: int) -> None:
    upstream.script(f"fails-{len(FAILS) + number}-up", replies.words_then(ENDINGS[number]))
    answer = ask(gateway, f"try-{len(FAILS) + number}", stream=True)
    got = events(answer)
    assert numbered(got), "ours goes on with the numbers"
    assert got[-1]["type"] == "error"
    assert got[-1]["message"]
    assert got[-1]["code"]
    assert "response.completed" not in [event["type"] for event in got]
    assert row_of(gateway, answer)["outcome"] == "upstream_error"


def test_a_finish_without_an_end_is_whole(gateway: Gateway, upstream: Upstream) -> None:
    def stalls(received: Received) -> Iterator[Step]:
        yield replies.stream_head() + replies.chunk(received, {"content": "Hi"}) + replies.chunk(received, {}, "stop")
        yield STALL

    upstream.script("a-up", stalls)
    answer = ask(gateway, "pair", stream=True)
    assert events(answer)[-1]["type"] == "response.completed"
    assert row_of(gateway, answer)["outcome"] == "ok"


def test_a_broken_finish_is_billed_as_reported(gateway: Gateway, upstream: Upstream) -> None:
    def breaks(received: Received) -> Iterator[Step]:
        yield replies.stream_head() + replies.chunk(received, {"content": "Hi"}) + replies.chunk(received, {}, "error")
        usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        yield replies.event({"choices": [], "usage": usage}) + replies.event("[DONE]") + replies.END

    upstream.script("b-up", breaks)
    answer = ask(gateway, "b", stream=True)
    assert events(answer)[-1]["type"] == "response.failed"
    row = row_of(gateway, answer)
    assert (row["outcome"], row["input_tokens"], row["output_tokens"]) == ("upstream_error", 7, 5)


def test_a_client_that_leaves_is_charged_for_what_came(gateway: Gateway, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("b-up", replies.words_then([gate, STALL]))
    body = {"model": "b", **BODY, "stream": True}
    with gateway.client.stream("POST", "/v1/responses", json=body) as answer:
        assert next(answer.iter_bytes())
    upstream.wait_for(lambda seen: seen.requests[-1].gone.is_set())
    row = row_of(gateway, answer)
    assert (row["outcome"], row["usage_estimated"]) == ("cancelled", 1)
    assert row["output_tokens"] > 0
    gate.open()


def test_an_upstreams_own_400_is_relayed(gateway: Gateway, upstream: Upstream) -> None:
    error = {"message": "temperature must be below 2", "type": "invalid_request_error", "code": "bad_temperature"}
    upstream.script("a-up", replies.status(400, {"error": error}), replies.context_too_long())
    answer = ask(gateway, "a")
    assert (answer.status_code, answer.json()) == (400, {"error": error})
    too_long = ask(gateway, "a")
    assert (too_long.status_code, too_long.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_what_cannot_be_carried_is_refused_by_name_or_goes_where_it_can(gateway: Gateway, upstream: Upstream) -> None:
    hosted = [{"type": "web_search"}]
    refused = ask(gateway, "pair", tools=hosted)
    assert refused.status_code == 400
    said = refused.json()["error"]
    assert (said["type"], said["param"]) == ("invalid_request_error", "tools")
    assert "cannot carry tools: web_search" in said["message"]
    assert not upstream.requests
    assert ask(gateway, "mixed-back", tools=hosted).headers["x-gateway-model"] == "n"
    dropped = ask(gateway, "a", truncation="auto", store=True)
    assert dropped.headers["x-gateway-dropped"] == "truncation, store"


def test_the_decision_says_what_is_translated(gateway: Gateway) -> None:
    body = {"model": "mixed", **BODY, "truncation": "auto"}
    said = gateway.client.post("/v1/responses", json=body, headers={"x-gateway-dry-run": "true"}).json()
    shown = [(each["model"], each["translated_to"], each["dropped"]) for each in said["targets"]]
    assert shown == [("n", None, []), ("a", "/chat/completions", ["truncation"])]


def test_a_budget_bounds_what_really_goes_upstream(gateway: Gateway, upstream: Upstream) -> None:
    """The model's own `set` raises the client's cap of 20 to 500 under chat's other name; 0.6 m$ hold one such call."""
    upstream.always("tuned-up", replies.ok(tokens=Tokens(50, 0, 500, 0)))
    answer = ask(gateway, "tuned", top_p=0.5)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "insufficient_quota")
    assert not upstream.seen("tuned-up"), "its ceiling, input and template included, is above the limit"


def test_a_cap_of_ours_goes_by_the_servers_name(gateway: Gateway, upstream: Upstream) -> None:
    """Without a cap of the client's a budget sets one: 100 $ for the longest answer are too much for 50."""
    answer = ask(gateway, "capped", max_output_tokens=None)
    assert answer.status_code == 200
    assert answer.headers["x-gateway-max-tokens"] == "4096"
    assert upstream.requests[-1].json["max_tokens"] == 4096


def test_what_is_never_served(gateway: Gateway, upstream: Upstream) -> None:
    for model in ("a", "n"):
        refused = ask(gateway, model, background=True)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "background")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
        answer = gateway.client.request(method, f"/v1/responses/resp_1{path}")
        assert answer.status_code == 404
        assert "ask the provider" in answer.json()["error"]["message"]
    assert not upstream.requests
