"""OpenAI's responses (platform.openai.com/docs/api-reference/responses and responses-streaming; read 2026-11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.answers import Seen
from gateway.core.usage import text_bytes as size_of
from gateway.views.openai import loads

_REASONS: Mapping[str, str] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_SHOWN = frozenset(
    {"output_text", "refusal", "function_call_arguments", "custom_tool_call_input", "mcp_call_arguments"}
)
_THOUGHT = frozenset({"reasoning_text", "reasoning_summary_text"})
_SILENT = ("message", "reasoning")  # items whose beginning shows nothing yet
_ENDS = frozenset({"response.completed", "response.incomplete"})
_NOTHING = Seen()


def read_answer(body: bytes) -> Seen | None:
    """The view of a whole response; None where it is not a JSON object."""
    answer = loads(body)
    if not isinstance(answer, dict):
        return None
    if answer.get("error") or answer.get("status") == "failed":
        return Seen(error=answer.get("error") or "the response failed", usage=_usage(answer))
    items = answer.get("output")
    items = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else None
    if items is None:
        return Seen(usage=_usage(answer))
    shown = sum(_shown(item) for item in items if item.get("type") != "reasoning")
    thought = sum(_shown(item) for item in items if item.get("type") == "reasoning")
    useful = bool(shown or thought) or any(item.get("type") not in _SILENT for item in items)
    finish = _finish(answer)
    return Seen(useful, 1, finish, _usage(answer), False, None, shown, thought, (0,) if finish else (), True)


def read_event(data: bytes) -> Seen | None:
    """The view of one event's data; None where it is not a JSON object."""
    event = loads(data)
    if not isinstance(event, dict):
        return None
    kind = event.get("type")
    if not isinstance(kind, str):
        return Seen(error=event.get("error"))
    what, _, ending = kind.removeprefix("response.").rpartition(".")
    if ending == "delta" and isinstance(event.get("delta"), str):
        size = size_of(event["delta"])
        if what in _SHOWN:
            return Seen(useful=size > 0, choices=1, text_bytes=size)
        if what in _THOUGHT:
            return Seen(useful=size > 0, choices=1, reasoning_bytes=size)
        return Seen(useful=size > 0, choices=1)  # sound, pictures, code
    if kind == "response.output_item.added":
        item = event.get("item")
        return Seen(useful=isinstance(item, dict) and item.get("type") not in _SILENT, choices=1)
    if kind in _ENDS:
        answer = event.get("response")
        answer = answer if isinstance(answer, dict) else {}
        return Seen(choices=1, finish=_finish(answer), usage=_usage(answer), finished=(0,), done=True)
    if kind in ("error", "response.failed"):
        answer = event.get("response")
        return Seen(error=_failure(event), usage=_usage(answer) if isinstance(answer, dict) else None)
    return _NOTHING


def _failure(event: Mapping[str, Any]) -> object:
    answer = event.get("response")
    error = answer.get("error") if isinstance(answer, dict) else event.get("error")
    return error or {"message": event.get("message") or "the response failed", "code": event.get("code")}


def _finish(answer: Mapping[str, Any]) -> str:
    if answer.get("status") != "incomplete":
        return "stop"
    details = answer.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return _REASONS.get(str(reason), "stop")


def _usage(answer: Mapping[str, Any]) -> dict[str, Any] | None:
    usage = answer.get("usage")
    if not isinstance(usage, dict) or not usage:
        return None
    if answer.get("service_tier") is not None:
        usage["service_tier"] = answer["service_tier"]
    return usage


def _shown(item: Mapping[str, Any]) -> int:
    """Bytes of an item's texts, and of a tool call's arguments."""
    held = [item.get(name) for name in ("content", "summary")]
    parts = [part for each in held if isinstance(each, list) for part in each if isinstance(part, dict)]
    texts = [part.get(name) for part in parts for name in ("text", "refusal")]
    texts += [item.get(name) for name in ("name", "arguments", "input")]
    return sum(size_of(text) for text in texts if isinstance(text, str))
