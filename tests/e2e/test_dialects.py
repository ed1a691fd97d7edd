"""Exchanges as each server documents them (`tests/data/dialects`), replayed through a real gateway, whole and streamed.

Each folder's `about.json` says where the exchange stands and on what day it was noted. None was recorded from the
service itself: `verified` is `documentation`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.core.dialects import BY_NAME
from tests.answers import read, told
from tests.dialects import ABOUT, CALLS, DATA, KEY, NAMES, models, providers, replay
from tests.replies import content_filtered, http
from tests.servers import Gateway, until
from tests.upstream import Upstream

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with Upstream(replay) as running:
        yield running


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory, server: Upstream) -> Iterator[Gateway]:
    written = f"version: 1\nproviders:\n{providers(server.port)}\nmodels:\n{models()}\n"
    with Gateway(tmp_path_factory.mktemp("dialects"), written) as started:
        yield started


class Answer:
    """What a client makes of an answer, whole or streamed."""

    def __init__(self, response: httpx.Response, *, stream: bool) -> None:
        if stream:
            datas = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
            assert datas.pop() == "[DONE]"
            self.events = [json.loads(data) for data in datas]
        else:
            self.events = [response.json()]
        self.text = self.reasoning = self.finish = ""
        self.tools: list[list[str]] = []
        self.usage: dict[str, Any] = {}
        for event in self.events:
            self.usage = event.get("usage") or self.usage
            for choice in event["choices"]:
                self._take(choice)

    def _take(self, choice: dict[str, Any]) -> None:
        said = choice.get("message") or choice.get("delta") or {}
        self.text += said.get("content") or ""
        self.reasoning += said.get("reasoning_content") or said.get("reasoning") or ""
        self.finish = choice.get("finish_reason") or self.finish
        self.usage = choice.get("usage") or self.usage
        for call in said.get("tool_calls") or ():
            if call.get("id"):
                self.tools.append([call["function"]["name"], ""])
            self.tools[-1][1] += call["function"].get("arguments") or ""


def exchanges(endpoint: str) -> list[Any]:
    """Each, with what the compatibility page may say of it: also of its calls, where it has some."""
    of_tools = pytest.mark.compatible(endpoint=endpoint, system="{name}", how="tools")
    return [pytest.param(name, marks=of_tools if name in CALLS else ()) for name in NAMES]


@pytest.mark.compatible(endpoint="/chat/completions", system="{name}")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", exchanges("/chat/completions"))
def test_as_documented(name: str, stream: bool, replayed: Gateway, server: Upstream) -> None:
    told = ABOUT[name]
    expect = told["expect"]
    asked = {"messages": HELLO, **told["request"], **({"stream_options": {"include_usage": True}} if stream else {})}
    before = len(replayed.rows())
    response = replayed.post(json={"model": name, "stream": stream, **asked})
    assert response.status_code == 200, response.text
    answer = Answer(response, stream=stream)
    assert (answer.text, answer.reasoning) == (expect["text"], expect["reasoning"])
    assert (answer.finish, answer.tools) == (expect["finish"], expect["tool_calls"])
    assert response.headers.get("x-gateway-dropped", "") == told["dropped"]

    usage = expect["usage"]
    dollars = (usage["input"] + usage["cached_input"] * 0.1 + (usage["output"] + usage["reasoning"]) * 2) / 1e6
    assert answer.usage["cost"] == pytest.approx(dollars)
    row = until("its row", lambda: replayed.rows()[before:])[-1]
    assert (row["input_tokens"], row["cached_input_tokens"]) == (usage["input"], usage["cached_input"])
    assert (row["output_tokens"], row["reasoning_tokens"]) == (usage["output"], usage["reasoning"])
    assert (row["cost_nano"], row["usage_estimated"]) == (round(dollars * 1e9), 0)

    sent = server.calls[-1]
    assert {member: sent.json.get(member) for member in told["sent"]} == told["sent"]
    assert sent.json["model"] == told["model"]


TOOL: dict[str, dict[str, Any]] = {
    "/messages": {"name": "look", "input_schema": {"type": "object"}},
    "/responses": {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False},
}
TRANSLATED: dict[str, dict[str, Any]] = {
    "/messages": {"messages": HELLO, "max_tokens": 500},
    "/responses": {"input": "Hello"},
}


@pytest.mark.compatible(endpoint="{endpoint}", system="{name}")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("endpoint", TRANSLATED)
@pytest.mark.parametrize("name", exchanges("{endpoint}"))
def test_translated(name: str, endpoint: str, stream: bool, replayed: Gateway) -> None:
    """Text, tool calls, usage and its price come through the translations of every dialect."""
    expect = ABOUT[name]["expect"]
    tools = {"tools": [TOOL[endpoint]]} if name in CALLS else {}
    body = {"model": name, "stream": stream, **TRANSLATED[endpoint], **tools}
    response = replayed.post(f"/v1{endpoint}", json=body)
    assert response.status_code == 200, response.text
    text, calls, usage = told(endpoint, read(response) if stream else [response.json()])
    assert (text, calls) == (expect["text"], [[called, json.loads(given)] for called, given in expect["tool_calls"]])
    counted = expect["usage"]
    assert usage["output_tokens"] == counted["output"] + counted["reasoning"]
    dollars = (counted["input"] + counted["cached_input"] * 0.1 + usage["output_tokens"] * 2) / 1e6
    assert usage["cost"] == pytest.approx(dollars)


def test_azure_by_deployment(replayed: Gateway, server: Upstream) -> None:
    replayed.post(json={"model": "azure", "messages": HELLO})
    sent = server.calls[-1]
    assert sent.path == "/azure/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"
    assert (sent.header("api-key"), sent.header("authorization")) == (KEY, None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["azure", "openai"])
def test_what_azures_filter_refuses_is_charged_and_others_is_not(
    name: str, stream: bool, replayed: Gateway, server: Upstream
) -> None:
    server.script(ABOUT[name]["model"], content_filtered())
    answer = replayed.post(json={"model": name, "messages": HELLO, "stream": stream})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_filter")
    one = "SELECT r.estimated_input, a.* FROM attempts a JOIN requests r ON r.id = a.request_id WHERE r.id = ?"
    row = until("the row", lambda: replayed.rows(one, answer.headers["x-request-id"]))[0]
    charged = row["estimated_input"] if name == "azure" else 0
    assert (row["result"], row["input_tokens"], row["output_tokens"]) == ("content_filter", charged, 0)
    assert row["cost_nano"] == charged * 1000  # at 1 $ a million
    assert row["estimated_input"] > 0


def test_a_dry_run_names_what_is_changed(replayed: Gateway, server: Upstream) -> None:
    calls = len(server.calls)
    asked = {"model": "openai", "messages": HELLO, "max_tokens": 9, "temperature": 0.5}
    target = replayed.post(json=asked, headers={"x-gateway-dry-run": "true"}).json()["targets"][0]
    assert (target["dropped"], target["mapped"]) == (["temperature"], ["max_tokens -> max_completion_tokens"])
    assert len(server.calls) == calls


def test_who_is_not_known_gets_the_clients_own_bytes(tmp_path: Path) -> None:
    body = (
        b'{"model": "m",  "messages": [{"role":"developer","content":"x"}], "enable_thinking": true, "max_tokens" : 5}'
    )
    with Upstream(lambda _: iter([http(200, (DATA / "openai" / "whole.json").read_bytes())])) as upstream:
        written = (
            f'version: 1\nproviders: {{up: {{base_url: "{upstream.base_url}"}}}}\nmodels: {{m: {{provider: up}}}}\n'
        )
        with Gateway(tmp_path, written) as gateway:
            assert gateway.post(content=body).status_code == 200
        assert upstream.calls[0].body == body


@pytest.mark.parametrize("name", NAMES)
def test_every_exchange_says_where_it_is_from(name: str) -> None:
    told = ABOUT[name]
    assert told["dialect"] in BY_NAME
    assert told["verified"] == "documentation"
    assert told["source"].startswith("https://")
    assert told["shows"]
    assert told["noted"] <= told.get("read", told["noted"])


def test_every_dialect_has_an_exchange() -> None:
    assert {ABOUT[name]["dialect"] for name in NAMES} == set(BY_NAME)
