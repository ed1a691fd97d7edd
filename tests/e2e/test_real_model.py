"""Every endpoint of text on the real model, asked over HTTP: translated to its chat, and by llama.cpp's own APIs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.answers import read
from tests.real import HELLO, TALK, calls_a_tool, talks
from tests.servers import Gateway, until
from tests.tool_model import tool_model

ROUTES = """
version: 1
providers:
  embedded: {dialect: local, threads: 1, parallel: 1}
  chat: {base_url: "@BASE@", server: llamacpp, apis: [chat]}
  native: {base_url: "@OWN@", server: llamacpp, apis: [chat, messages, responses]}
models:
  smol: {provider: embedded, hosting: self, price: {usd_per_hour: 0.05, tokens_per_second: {input: 300, output: 90}}}
  tools: {provider: chat, hosting: self, price: unmetered}
  native: {provider: native, model: own, hosting: self, price: unmetered}
keys:
  - {name: all, value: "@KEY@"}
"""
KEY = "sk-real-model-0123456789"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with tool_model() as tools, tool_model("own") as own:
        routes = ROUTES.replace("@BASE@", tools).replace("@OWN@", own).replace("@KEY@", KEY)
        with Gateway(tmp_path_factory.mktemp("real"), routes) as running:
            running.client.headers["authorization"] = f"Bearer {KEY}"
            until("the embedded model", lambda: running.chat("smol", max_tokens=1).is_success, 60)
            yield running


@pytest.mark.compatible(endpoint="{endpoint}", system="smollm2")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("endpoint", TALK)
def test_text(gateway: Gateway, endpoint: str, stream: bool) -> None:
    talks(gateway, "smol", endpoint, stream=stream)


@pytest.mark.compatible(endpoint="{endpoint}", system="smollm2-native")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("endpoint", ["/messages", "/responses"])
def test_text_by_its_own_api(gateway: Gateway, endpoint: str, stream: bool) -> None:
    talks(gateway, "native", endpoint, stream=stream)


@pytest.mark.compatible(endpoint="{endpoint}", system="smollm2", how="tools")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("endpoint", ["/chat/completions", "/messages"])
def test_a_tool_is_called(gateway: Gateway, endpoint: str, stream: bool) -> None:
    """For /responses: tests/e2e/test_real_tool_calls.py."""
    calls_a_tool(gateway, "tools", endpoint, stream=stream)


@pytest.mark.compatible(endpoint="/embeddings", system="smollm2", how="whole")
def test_the_embedded_models_server_is_known(gateway: Gateway) -> None:
    """It is llama.cpp, whose rules hold for it."""
    tools = [{"type": "function", "function": {"name": name}} for name in ("one", "two")]
    body = {"model": "smol", "messages": HELLO, "tools": tools, "tool_choice": tools[1]}
    told = gateway.post(json=body, headers={"x-gateway-dry-run": "true"}).json()["targets"][0]
    assert told["mapped"] == ["tool_choice -> required", "tools -> the chosen one alone"]


def test_embeddings(gateway: Gateway) -> None:
    answer = gateway.post("/v1/embeddings", json={"model": "smol", "input": ["a cat", "a dog"]})
    assert [len(row["embedding"]) for row in answer.json()["data"]] == [576] * 2


@pytest.mark.compatible(endpoint="/messages/count_tokens", system="smollm2", how="whole")
@pytest.mark.parametrize("model", ["smol", "native"])
def test_counted_tokens(gateway: Gateway, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Say hello."}]}
    counted = gateway.post("/v1/messages/count_tokens", json=body)
    assert "x-gateway-usage" not in counted.headers, "not an estimate"
    usage = gateway.post("/v1/messages", json={**body, "max_tokens": 1}).json()["usage"]
    read = usage["input_tokens"] + (usage.get("cache_read_input_tokens") or 0)
    assert counted.json()["input_tokens"] == read


# What clients ask that cannot be installed here: by their sources, which the guides in docs/clients name.


@pytest.mark.compatible(endpoint="/chat/completions", client="HTTP as Open WebUI", system="smollm2")
@pytest.mark.parametrize("stream", [False, True], ids=["its title", "a chat"])
def test_as_open_webui_asks(gateway: Gateway, stream: bool) -> None:
    who = {f"X-OpenWebUI-User-{what}": "x" for what in ("Name", "Id", "Email", "Role")}
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **who}
    listed = gateway.client.get("/v1/models", headers=headers).json()["data"]
    (name,) = [model["id"] for model in listed if model["id"] == "smol"]
    asked: dict[str, Any] = {"model": name, "messages": HELLO, "stream": stream}
    asked |= {"stream_options": {"include_usage": True}} if stream else {"max_completion_tokens": 8}  # it says 1000
    answer = gateway.post(json={**asked, "max_tokens": 8} if stream else asked, headers=headers)
    assert answer.status_code == 200, answer.text
    if not stream:
        assert answer.json()["choices"][0]["message"]["content"]
    else:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert read(answer)[-1]["usage"]["completion_tokens"] <= 8


@pytest.mark.compatible(endpoint="{endpoint}", client="HTTP as Continue", system="smollm2", how="streamed")
@pytest.mark.parametrize("endpoint", ["/chat/completions", "/completions"], ids=["chat", "autocomplete"])
def test_as_continue_asks(gateway: Gateway, endpoint: str) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}", "api-key": KEY}
    content = {"messages": HELLO} if "chat" in endpoint else {"prompt": "def add(a, b):", "stop": ["\n\n"]}
    body = {"model": "smol", "max_tokens": 8, "temperature": 0.01, "stream": True, **content}
    answer = gateway.post(f"/v1{endpoint}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    choices = [choice for event in read(answer) for choice in event["choices"]]
    assert "".join(each["delta"].get("content") or "" if "delta" in each else each["text"] for each in choices)
