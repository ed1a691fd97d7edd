"""What every real model is asked over HTTP at the endpoints of text, and how the answers are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.answers import read
from tests.servers import Gateway

HELLO = [{"role": "user", "content": "Say hello."}]
TALK: Mapping[str, Mapping[str, Any]] = {
    "/chat/completions": {"messages": HELLO, "max_tokens": 8},
    "/completions": {"prompt": "Once upon a time", "max_tokens": 8},
    "/messages": {"messages": HELLO, "max_tokens": 8},
    "/responses": {"input": "Say hello.", "max_output_tokens": 8},
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
ASKED = [{"role": "user", "content": "What is the weather in Bern?"}]
TOOLS: Mapping[str, Mapping[str, Any]] = {
    "/chat/completions": {
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "strict": True}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    },
    "/messages": {
        "tools": [{"name": "weather", "input_schema": SCHEMA, "strict": True}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    },
}


def talks(gateway: Gateway, model: str, endpoint: str, *, stream: bool) -> None:
    """It says something, and says what that used."""
    body = {"model": model, "temperature": 0, "stream": stream, **TALK[endpoint]}
    if stream and "completions" in endpoint:
        body["stream_options"] = {"include_usage": True}
    answer = gateway.post(f"/v1{endpoint}", json=body)
    assert answer.status_code == 200, answer.text
    events = read(answer) if stream else [answer.json()]
    assert "".join(_text(endpoint, event) for event in events)
    usage = [found for event in events if (found := event.get("usage") or event.get("response", {}).get("usage"))][-1]
    assert 1 <= usage.get("completion_tokens", usage.get("output_tokens")) <= 8
    assert "cost" in usage


def calls_a_tool(gateway: Gateway, model: str, endpoint: str, *, stream: bool) -> None:
    """Its arguments keep to the schema."""
    body = {"model": model, "messages": ASKED, "max_tokens": 100, "temperature": 0, "stream": stream, **TOOLS[endpoint]}
    answer = gateway.post(f"/v1{endpoint}", json=body)
    assert answer.status_code == 200, answer.text
    events = read(answer) if stream else [answer.json()]
    name, arguments = _call(events) if endpoint == "/chat/completions" else _use(events)
    assert name == "weather"
    assert set(json.loads(arguments)) == {"city"}


def _text(endpoint: str, event: Mapping[str, Any]) -> str:
    if "completions" in endpoint:
        choices = event["choices"]
        said = [each.get("message") or each.get("delta") or {"content": each.get("text")} for each in choices]
        return "".join(each.get("content") or "" for each in said)
    if isinstance(delta := event.get("delta"), str):
        return delta
    blocks = event.get("content") or [part for item in event.get("output", ()) for part in item.get("content", ())]
    return "".join(block.get("text") or "" for block in [*blocks, delta or {}])


def _call(events: list[dict[str, Any]]) -> tuple[str, str]:
    said = [choice.get("message") or choice["delta"] for event in events for choice in event["choices"]]
    pieces = [call["function"] for each in said for call in each.get("tool_calls") or ()]
    return "".join(each.get("name") or "" for each in pieces), "".join(each.get("arguments") or "" for each in pieces)


def _use(events: list[dict[str, Any]]) -> tuple[str, str]:
    if len(events) == 1:
        (block,) = [each for each in events[0]["content"] if each["type"] == "tool_use"]
        return block["name"], json.dumps(block["input"])
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    pieces = [event["delta"].get("partial_json", "") for event in events if event["type"] == "content_block_delta"]
    return next(block["name"] for block in starts if block["type"] == "tool_use"), "".join(pieces)
