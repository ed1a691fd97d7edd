"""How a test reads answers of chats, messages and responses, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import httpx


def read(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream but for `[DONE]`."""
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(each) for each in data if each != "[DONE]"]


def told(endpoint: str, events: list[dict[str, Any]]) -> tuple[str, list[list[Any]], dict[str, Any]]:
    """(text, calls of tools, usage) of a message or a response; of a stream, by its pieces."""
    return _message(events) if endpoint == "/messages" else _response(events)


def _response(events: list[dict[str, Any]]) -> tuple[str, list[list[Any]], dict[str, Any]]:
    response = events[-1].get("response", events[-1])
    deltas = [event["delta"] for event in events if event.get("type") == "response.output_text.delta"]
    said = [part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"]]
    calls = [item for item in response["output"] if item["type"] == "function_call"]
    text = "".join(deltas if len(events) > 1 else said)
    return text, [[call["name"], json.loads(call["arguments"])] for call in calls], response["usage"]


def _message(events: list[dict[str, Any]]) -> tuple[str, list[list[Any]], dict[str, Any]]:
    if len(events) == 1:
        blocks, usage = events[0]["content"], events[0]["usage"]
    else:
        blocks = [event["content_block"] for event in events if event["type"] == "content_block_start"]
        usage = next(event["usage"] for event in events if event["type"] == "message_delta")
    for event in events:
        if event["type"] == "content_block_delta":
            block = blocks[event["index"]]
            for member in event["delta"].keys() - {"type"}:
                block[member] = block.get(member, "") + event["delta"][member]
    uses = [block for block in blocks if block["type"] == "tool_use"]
    calls = [[use["name"], json.loads(use.get("partial_json", "null")) or use["input"]] for use in uses]
    return "".join(block.get("text", "") for block in blocks), calls, usage
