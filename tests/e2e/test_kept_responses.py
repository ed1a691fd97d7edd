"""`previous_response_id` and its like go to the provider that keeps what they name, and nowhere else."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.replies import END, chunked, http, status, stream_head
from tests.servers import Gateway, until
from tests.upstream import Billed, Received, Step, Upstream

ROUTES = """
version: 1
providers:
  one: {base_url: "@BASE@", apis: [chat, responses]}
  two: {base_url: "@BASE@", apis: [responses]}
  old: {base_url: "@BASE@"}
models:
  a: {provider: one, model: a-up, price: {input: 1, output: 10}, context_window: 1000}
  b: {provider: two, model: b-up, price: {input: 3, output: 30}}
  r:
    provider: two
    model: r-up
    price: unmetered
    endpoints: [{url: "@BASE@"}, {url: "@BASE@/v1/.."}]
  plain: {provider: old, model: plain-up, price: unmetered}
@FAILS@
routes:
  - {name: pair, match: {model: auto}, use: [plain, a], fallback: [b], retries: 0}
@MAY@
  - {name: second, match: {model: second}, use: [b], fallback: [a], retries: 0}
  - {name: bounded, match: {model: bounded}, use: [a], retries: 0}
  - {name: unbounded, match: {model: unbounded}, use: [b], retries: 0}
  - {name: replicas, match: {model: replicas}, use: [r], retries: 0}
budgets:
  - {name: window, match: {model: bounded}, limit_usd: 0.001, window: total}
  - {name: wide, match: {model: unbounded}, limit_usd: 100, window: total}
"""
# Failures of their own for each test: five in a row would open a breaker.
FAILS = [f"  f{i}: {{provider: one, model: f{i}-up, price: unmetered}}" for i in range(5)]
MAY = [
    f"  - {{name: may{i}, match: {{model: may{i}}}, use: [plain, f{i}], fallback: [b], retries: 0}}" for i in range(5)
]
NUMBERS = itertools.count(1)


def responds(received: Received) -> Iterator[Step]:
    answer = {
        "id": f"resp_{received.model.removesuffix('-up')}{next(NUMBERS):06}",
        "object": "response",
        "status": "completed",
        "error": None,
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}],
        "usage": {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12},
    }
    if not received.stream:
        yield http(200, json.dumps(answer).encode())
    else:
        yield stream_head()
        created = {"type": "response.created", "response": {**answer, "status": "in_progress", "output": []}}
        text = {"type": "response.output_text.delta", "delta": "Hi"}
        for event in (created, text, {"type": "response.completed", "response": answer}):
            yield chunked(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()))  # type: ignore[attr-defined]
        yield END
    yield Billed(received.model, input=7, output=5)


@pytest.fixture(scope="module")
def shared() -> Iterator[Upstream]:
    with Upstream(responds) as server:
        yield server


@pytest.fixture
def upstream(shared: Upstream) -> Upstream:
    shared.forget()
    return shared


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, shared: Upstream) -> Iterator[Gateway]:
    routes = (
        ROUTES.replace("@FAILS@", "\n".join(FAILS)).replace("@MAY@", "\n".join(MAY)).replace("@BASE@", shared.base_url)
    )
    with Gateway(tmp_path_factory.mktemp("gateway"), routes, args=["--workers", "2"]) as running:
        yield running


def ask(gateway: Gateway, model: str, **more: Any) -> httpx.Response:
    return gateway.client.post("/v1/responses", json={"model": model, "input": "Hello", **more})


def id_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    if "json" in answer.headers["content-type"]:
        return str(answer.json()["id"])
    first = next(line for line in answer.text.splitlines() if line.startswith("data: "))
    return str(json.loads(first.removeprefix("data: "))["response"]["id"])


@pytest.mark.parametrize("stream", [False, True])
def test_every_worker_knows_the_owner(gateway: Gateway, upstream: Upstream, stream: bool) -> None:
    """The route would ask `a`; whoever made the response is asked instead, by any worker, on connections of its own."""
    made = id_of(ask(gateway, "second", stream=stream))
    assert made.startswith("resp_b")

    def goes_to_b() -> bool:
        answer = httpx.post(
            f"{gateway.url}/v1/responses",
            json={"model": "auto", "input": "More", "previous_response_id": made},
            trust_env=False,
        )
        return answer.headers["x-gateway-model"] == "b"

    until("every worker to have been told", lambda: all(goes_to_b() for _ in range(12)))
    sent = upstream.requests[-1]
    assert (sent.path, sent.json["previous_response_id"]) == ("/v1/responses", made)


def test_nobody_stands_in_for_the_owner(gateway: Gateway, upstream: Upstream) -> None:
    made = id_of(ask(gateway, "f4"))
    until("both workers know", lambda: _knows(gateway, made, "f4"))
    upstream.forget()
    upstream.script("f4-up", status(503))
    assert ask(gateway, "may4", previous_response_id=made).status_code == 502
    assert [request.model for request in upstream.calls] == ["f4-up"]
    missing = ask(gateway, "replicas", previous_response_id=made)
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "previous_response_id")
    assert "kept by the model f4" in missing.json()["error"]["message"]


def _knows(gateway: Gateway, made: str, model: str) -> bool:
    """Whether every worker that was asked knows who keeps a response. Each request is a connection of its own."""
    body = {"model": "replicas", "input": "Hi", "previous_response_id": made}
    answers = [httpx.post(f"{gateway.url}/v1/responses", json=body, trust_env=False) for _ in range(12)]
    return all(f"kept by the model {model}" in answer.text for answer in answers)


STORED: list[dict[str, Any]] = [
    {"previous_response_id": "resp_of_another_time"},
    {"conversation": "conv_123456"},
    {"prompt": {"id": "pmpt_123456"}},
    {"input": [{"type": "item_reference", "id": "msg_123456"}, {"role": "user", "content": "Hi"}]},
]


@pytest.mark.parametrize("number", range(len(STORED)))
def test_what_nobody_knows_is_asked_of_the_first_that_may(gateway: Gateway, upstream: Upstream, number: int) -> None:
    """Not of `plain`, which keeps nothing; and a failure is the end of it."""
    model, more = f"may{number}", STORED[number]
    body = {"model": model, "input": "Hi", **more}
    told = gateway.client.post("/v1/responses", json=body, headers={"x-gateway-dry-run": "true"}).json()
    assert [target["model"] for target in told["targets"]] == [f"f{number}"]
    assert "only one is asked" in told["targets"][0]["why"]
    assert {"plain", "b"} <= {skipped["what"] for skipped in told["skipped"]}
    upstream.script(f"f{number}-up", status(503))
    assert ask(gateway, model, **more).status_code == 502
    assert [request.model for request in upstream.calls] == [f"f{number}-up"]


@pytest.mark.parametrize("code", [400, 404])
def test_a_response_that_its_provider_does_not_know_is_the_requests_own_fault(
    gateway: Gateway, upstream: Upstream, code: int
) -> None:
    """OpenAI says so with 400, vLLM with 404, which elsewhere means that our account has no such model."""
    error = {"message": "Response with id 'resp_unknown1' not found.", "type": "invalid_request_error", "code": None}
    for _ in range(6):  # more than would open a breaker
        upstream.script("a-up", status(code, {"error": error}))
        answer = ask(gateway, "auto", previous_response_id="resp_unknown1")
        assert (answer.status_code, answer.json()) == (code, {"error": error})
    assert ask(gateway, "auto", stream=True).status_code == 200


def test_a_replica_keeps_what_it_made(gateway: Gateway, upstream: Upstream) -> None:
    made = id_of(ask(gateway, "replicas"))
    path = upstream.requests[-1].path
    until(
        "the other worker to know",
        lambda: {_path(gateway, upstream, made) for _ in range(8)} == {path},
    )


def _path(gateway: Gateway, upstream: Upstream, made: str) -> str:
    answer = httpx.post(
        f"{gateway.url}/v1/responses",
        json={"model": "replicas", "input": "More", "previous_response_id": made},
        trust_env=False,
    )
    assert answer.status_code == 200
    return upstream.requests[-1].path


def test_a_kept_context_is_bounded_by_the_window_or_refused(gateway: Gateway) -> None:
    """1,000 tokens of context at 1 $ are 1 m$, which is all there is; a few words alone are not."""
    assert ask(gateway, "bounded", max_output_tokens=10).status_code == 200
    answer = ask(gateway, "bounded", max_output_tokens=10, previous_response_id="resp_123456")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "insufficient_quota")
    for more in ({"previous_response_id": "resp_123456"}, {"prompt": {"id": "pmpt_1"}}):
        refused = ask(gateway, "unbounded", **more)
        assert refused.status_code == 429
        assert "may cost more than can be told beforehand" in refused.json()["error"]["message"]
