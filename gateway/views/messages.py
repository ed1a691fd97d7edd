"""Anthropic's messages (docs.anthropic.com/en/api/messages, "Streaming messages"; read 2026-11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.answers import Seen
from gateway.core.usage import text_bytes as size_of
from gateway.views.openai import loads

_FINISH: Mapping[str, str] = {  # stop_reason -> OpenAI's word
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_TEXTS = ("text", "partial_json")
_THOUGHTS = ("thinking", "redacted_thinking")
_EMPTY_BLOCKS = ("text", "thinking")  # blocks whose beginning shows nothing yet
_NOTHING = Seen()


def read_answer(body: bytes) -> Seen | None:
    """The view of a whole message; None where it is not a JSON object."""
    answer = loads(body)
    if not isinstance(answer, dict):
        return None
    if (error := _error(answer)) is not None:
        return Seen(error=error)
    blocks = answer.get("content")
    blocks = [block for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else None
    if blocks is None:
        return Seen(usage=_usage(answer))
    shown = sum(_length(block, ("text",)) + _input_length(block) for block in blocks)
    thought = sum(_length(block, _THOUGHTS) for block in blocks)
    useful = bool(shown or thought) or any(block.get("type") not in _EMPTY_BLOCKS for block in blocks)
    finish = _finish(answer.get("stop_reason"))
    return Seen(useful, 1, finish, _usage(answer), False, None, shown, thought, (0,) if finish else (), True)


def read_event(data: bytes) -> Seen | None:
    """The view of one event's data; None where it is not a JSON object."""
    event = loads(data)
    if not isinstance(event, dict):
        return None
    match event.get("type"):
        case "content_block_delta":
            return _delta(event.get("delta"))
        case "content_block_start":
            block = event.get("content_block")
            kind = block.get("type") if isinstance(block, dict) else "text"
            return Seen(useful=kind not in _EMPTY_BLOCKS, choices=1)
        case "message_start":
            message = event.get("message")
            if not isinstance(message, dict):
                return _NOTHING
            return Seen(choices=1, usage=None if event.get("estimated") else _usage(message))
        case "message_delta":
            delta = event.get("delta")
            finish = _finish(delta.get("stop_reason")) if isinstance(delta, dict) else ""
            return Seen(choices=1, finish=finish, usage=_usage(event), finished=(0,) if finish else ())
        case "message_stop":
            return Seen(done=True)
        case _:
            return Seen(error=_error(event))


def _delta(delta: object) -> Seen:
    if not isinstance(delta, dict):
        return _NOTHING
    shown, thought = _length(delta, _TEXTS), _length(delta, ("thinking",))
    return Seen(useful=bool(shown or thought), choices=1, text_bytes=shown, reasoning_bytes=thought)


def _error(value: Mapping[str, Any]) -> object:
    return value.get("error") or "an error without words" if value.get("type") == "error" else None


def _finish(reason: object) -> str:
    return _FINISH.get(reason, reason) if isinstance(reason, str) else ""


def _usage(value: Mapping[str, Any]) -> dict[str, Any] | None:
    """None where it is an estimate of ours, which translations put in for the client: nothing was reported."""
    usage = value.get("usage")
    return usage if isinstance(usage, dict) and usage and not usage.get("estimated") else None


def _length(block: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return sum(size_of(text) for name in names if isinstance(text := block.get(name), str))


def _input_length(block: Mapping[str, Any]) -> int:
    return size_of(str(block["input"])) if isinstance(block.get("input"), dict) and block["input"] else 0
