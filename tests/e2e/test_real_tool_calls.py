"""Tool calls of a real model, through the translation of responses: they keep to their schema, and arrive whole.

What is asked of the model holds for whatever it says, as that hangs on the processor's arithmetic: llama.cpp's grammar
leaves it the names of CITIES. It needs the tools in every request: without them, what happens to begin with a tool's
name is an error to llama.cpp, as no tool was offered.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers import Gateway
from tests.tool_model import tool_model

ROUTES = """
version: 1
providers:
  tools: {base_url: "@BASE@"}
  known: {base_url: "@BASE@", server: llamacpp}
models:
  known: {provider: known, model: tools, hosting: self, price: unmetered}
  tools: {provider: tools, hosting: self, price: {usd_per_hour: 0.05, tokens_per_second: {input: 300, output: 90}}}
"""
CITIES = ["Bern (BE)", "Thun (BE)"]
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "By city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": CITIES}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
CALLING = {
    "model": "tools",
    "tools": [WEATHER],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "max_output_tokens": 100,
    "temperature": 0,
}
QUESTION = {"role": "user", "content": "What is the weather in Bern?"}


NAMES = ("weather", "forecast")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with tool_model() as base, Gateway(tmp_path_factory.mktemp("tools"), ROUTES.replace("@BASE@", base)) as running:
        yield running


def ask(gateway: Gateway, *, stream: bool) -> dict[str, Any]:
    """The call, which is all that the answer holds."""
    body = {**CALLING, "input": [QUESTION], "stream": stream}
    answer = gateway.client.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    if not stream:
        response = answer.json()
    else:
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        response = events[-1]["response"]
        deltas = [event["delta"] for event in events if event["type"].endswith("delta")]
        assert "".join(deltas) == response["output"][-1]["arguments"]
    assert response["usage"]["output_tokens"] > 0
    call: dict[str, Any] = response["output"][-1]
    assert call["call_id"]
    return call


@pytest.mark.compatible(endpoint="/responses", system="smollm2", how="tools")
@pytest.mark.parametrize("stream", [False, True])
def test_a_function(gateway: Gateway, stream: bool) -> None:
    call = ask(gateway, stream=stream)
    assert (call["type"], call["name"], call["status"]) == ("function_call", "weather", "completed")
    assert json.loads(call["arguments"]) in [{"city": city} for city in CITIES]


def named(name: str) -> dict[str, Any]:
    """Tools that differ in name alone, of which one is asked for by name, which llama.cpp by itself reads as `auto`."""
    parameters = WEATHER["parameters"]
    tools = [{"type": "function", "function": {"name": each, "parameters": parameters}} for each in NAMES]
    return {
        "model": "known",
        "messages": [{"role": "user", "content": "What is the weather in Bern?"}],
        "tools": tools,
        "tool_choice": {"type": "function", "function": {"name": name}},
        "parallel_tool_calls": False,
        "max_tokens": 60,
        "temperature": 0,
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_function_that_is_named_is_called(gateway: Gateway, name: str) -> None:
    """Of two that would do, the one that was asked for, whichever it is."""
    answer = gateway.post(json=named(name))
    assert answer.status_code == 200, answer.text
    called = [each["function"]["name"] for each in answer.json()["choices"][0]["message"]["tool_calls"]]
    assert called == [name]


def test_what_a_named_function_becomes_is_told(gateway: Gateway) -> None:
    told = gateway.post(json=named(NAMES[1]), headers={"x-gateway-dry-run": "true"}).json()["targets"][0]
    assert told["mapped"] == ["tool_choice -> required", "tools -> the chosen one alone"]


def test_the_result_goes_back(gateway: Gateway) -> None:
    """The model reads it: by how many tokens more, where it is longer."""
    call = ask(gateway, stream=False)

    def tokens_read(result: str) -> int:
        history = [QUESTION, call, {"type": "function_call_output", "call_id": call["call_id"], "output": result}]
        answer = gateway.client.post("/v1/responses", json={**CALLING, "input": history, "max_output_tokens": 12})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["output"]
        read: int = body["usage"]["input_tokens"]
        return read

    assert tokens_read("Rain." * 20) >= tokens_read("Rain.") + 19
