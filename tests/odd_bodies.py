"""Bodies that look like what clients send and are not, as JSON Schema: what nobody checks must break nothing either."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_ANY: dict[str, Any] = {}
_MAYBE = [{"type": "null"}, {"type": "integer"}, {"type": "array", "items": _ANY, "maxItems": 2}]


def _odd(**members: dict[str, Any]) -> dict[str, Any]:
    """An object that has these, each perhaps of another type."""
    return {"type": "object", "properties": {name: {"anyOf": [shape, *_MAYBE]} for name, shape in members.items()}}


def _one_of(*words: str) -> dict[str, Any]:
    return {"enum": list(words)}


_WORD = _one_of("x", "", "call_1", "http://127.0.0.1:9/a.png", "data:image/png;base64,AAAA", "{}", '{"a": 1}')
_SOURCE = _odd(type=_one_of("base64", "url", "text", "content"), url=_WORD, data=_WORD, media_type=_WORD)
_PART = _odd(
    type=_one_of(
        *("text", "image_url", "input_audio", "file", "image", "tool_use", "tool_result", "thinking", "document"),
        *("redacted_thinking", "input_text", "output_text", "input_image", "input_file", "refusal", "search_result"),
    ),
    text=_WORD,
    image_url={"anyOf": [_WORD, _odd(url=_WORD, detail=_WORD)]},
    input_audio=_odd(data=_WORD, format=_WORD),
    source=_SOURCE,
    id=_WORD,
    name=_WORD,
    input=_odd(a=_WORD),
    tool_use_id=_WORD,
    content={"anyOf": [_WORD, {"type": "array", "items": _odd(type=_one_of("text", "image"), text=_WORD)}]},
    thinking=_WORD,
    signature=_WORD,
    cache_control=_odd(type=_one_of("ephemeral")),
)
_CALL = _odd(id=_WORD, type=_one_of("function", "custom"), function=_odd(name=_WORD, arguments=_WORD))
_MESSAGE = _odd(
    role=_one_of("system", "developer", "user", "assistant", "tool", "function"),
    content={"anyOf": [_WORD, {"type": "array", "items": _PART, "maxItems": 3}]},
    tool_calls={"type": "array", "items": _CALL, "maxItems": 2},
    tool_call_id=_WORD,
    reasoning_content=_WORD,
)
_ITEM = _odd(
    type=_one_of(
        *("message", "function_call", "function_call_output", "reasoning", "item_reference", "custom_tool_call"),
        *("web_search_call", "custom_tool_call_output"),
    ),
    role=_one_of("user", "assistant", "system", "developer"),
    content={"anyOf": [_WORD, {"type": "array", "items": _PART, "maxItems": 3}]},
    summary={"type": "array", "items": _PART, "maxItems": 2},
    call_id=_WORD,
    name=_WORD,
    arguments=_WORD,
    output={"anyOf": [_WORD, {"type": "array", "items": _PART, "maxItems": 2}]},
)
_TOOL = _odd(
    type=_one_of("function", "custom", "web_search", "computer_20250124", "mcp"),
    name=_WORD,
    function=_odd(name=_WORD, parameters=_ANY, strict={"type": "boolean"}),
    input_schema=_odd(type=_one_of("object"), properties=_ANY),
    parameters=_ANY,
)
_FORMAT = _odd(
    type=_one_of("json_schema", "json_object", "text"), json_schema=_odd(schema=_ANY, name=_WORD), schema=_ANY
)
ODD: dict[str, dict[str, Any]] = {
    "messages": {"type": "array", "minItems": 1, "maxItems": 4, "items": _MESSAGE},
    "input": {"anyOf": [_WORD, {"type": "array", "items": _ITEM, "maxItems": 4}]},
    "prompt": {"anyOf": [_WORD, {"type": "array", "items": {"anyOf": [_WORD, *_MAYBE]}, "maxItems": 3}]},
    "documents": {"type": "array", "items": {"anyOf": [_WORD, _odd(text=_WORD), *_MAYBE]}, "maxItems": 3},
    "query": {"anyOf": [_WORD, *_MAYBE]},
    "system": {"anyOf": [_WORD, {"type": "array", "items": _PART, "maxItems": 2}, *_MAYBE]},
    "instructions": {"anyOf": [_WORD, *_MAYBE]},
    "tools": {"anyOf": [{"type": "array", "items": _TOOL, "maxItems": 2}, {"type": "null"}]},
    "tool_choice": {"anyOf": [_one_of("auto", "none", "required"), _odd(type=_WORD, name=_WORD), *_MAYBE]},
    "thinking": {"anyOf": [_odd(type=_one_of("enabled", "disabled"), budget_tokens={"type": "integer"}), *_MAYBE]},
    "reasoning": {"anyOf": [_odd(effort=_WORD, summary=_WORD), *_MAYBE]},
    "text": {"anyOf": [_odd(format=_FORMAT, verbosity=_WORD), *_MAYBE]},
    "response_format": {"anyOf": [_FORMAT, *_MAYBE]},
    "output_config": {"anyOf": [_odd(format=_FORMAT, effort=_WORD), *_MAYBE]},
    "stop": {"anyOf": [_WORD, *_MAYBE]},
    "stop_sequences": {"anyOf": [{"type": "array", "items": _WORD, "maxItems": 2}, *_MAYBE]},
    "temperature": {"anyOf": [{"type": "number"}, *_MAYBE]},
    "previous_response_id": {"anyOf": [_WORD, *_MAYBE]},
    "include": {"anyOf": [{"type": "array", "items": _WORD, "maxItems": 2}, *_MAYBE]},
    "store": {"anyOf": [{"type": "boolean"}, *_MAYBE]},
    "parallel_tool_calls": {"anyOf": [{"type": "boolean"}, *_MAYBE]},
    "reasoning_effort": {"anyOf": [_one_of("low", "none"), *_MAYBE]},
    "enable_thinking": {"anyOf": [{"type": "boolean"}, *_MAYBE]},
    "chat_template_kwargs": {"anyOf": [_odd(enable_thinking={"type": "boolean"}), *_MAYBE]},
    "modalities": {"anyOf": [{"type": "array", "items": _one_of("text", "audio"), "maxItems": 2}, *_MAYBE]},
    "images": {"anyOf": [{"type": "array", "items": {"anyOf": [_odd(image_url=_WORD), *_MAYBE]}}, *_MAYBE]},
}
CONTENT = ("messages", "input", "prompt", "documents", "tools")  # given a shape even where a description has one


VALUES: tuple[object, ...] = ([], {"a": []}, -1.5, True, None, "x")


def odd_versions(value: object) -> Iterator[object]:
    """The value with each of what it holds, and itself, as something else."""
    yield from VALUES
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from ({**value, name: other} for other in odd_versions(inner))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from ([*value[:index], other, *value[index + 1 :]] for other in odd_versions(inner))
