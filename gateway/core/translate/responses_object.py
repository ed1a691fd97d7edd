"""The response object: what an answer of a chat is called in OpenAI's responses.

developers.openai.com/api/reference/resources/responses and the types of the SDK, openai 3.54 (2026-11): members that
the SDK's `Response` does not call optional are always there.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from re import sub
from typing import Any

from gateway.core.call import Call
from gateway.core.translate.chat import word
from gateway.core.usage import read_usage

_LONGEST_ID = 64  # characters of an upstream's id that are kept
_REASONS: Mapping[str, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
# Members of a request that are repeated, and what they are where it does not have them.
_REPEATED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "parallel_tool_calls": True,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": None,
    "top_p": None,
}
_SPECIAL_INPUT = ("audio_tokens", "image_tokens", "cached_tokens_details")
_SPECIAL_OUTPUT = ("audio_tokens", "image_tokens")
_PRICED = ("cache_creation", "server_tool_use")


def identity(answer: Mapping[str, Any], body: bytes) -> str:
    """What the ids of a response and its items are made of: the upstream's id, else a digest of what it said."""
    given = sub(r"[^A-Za-z0-9_-]", "", word(answer.get("id")).removeprefix("chatcmpl-"))[:_LONGEST_ID]
    return given or blake2b(body, digest_size=16).hexdigest()


def opening(call: Call, answer: Mapping[str, Any], base: str) -> dict[str, Any]:
    """A response that is under way. `answer`: the chat's, or its first chunk; `base`: see `identity`."""
    created = answer.get("created")
    text, reasoning = (_object(call.decoded(name)) for name in ("text", "reasoning"))
    repeated = {name: call.decoded(name) for name in _REPEATED}
    return {
        "id": f"resp_{base}",
        "object": "response",
        "created_at": created if isinstance(created, int) else 0,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": word(answer.get("model")) or call.model,
        "output": [],
        "previous_response_id": None,
        "reasoning": {"effort": reasoning.get("effort"), "summary": None},
        "service_tier": "auto",
        "store": False,  # nobody keeps it
        "text": {"format": text.get("format") or {"type": "text"}},
        "truncation": "disabled",
        "usage": None,
        "user": call.decoded("user"),
        "metadata": _metadata(call),
        **{name: default if repeated[name] is None else repeated[name] for name, default in _REPEATED.items()},
        "tools": [_tool(tool) for tool in repeated["tools"] or ()],
    }


def ending(
    opened: Mapping[str, Any], output: list[dict[str, Any]], finish: str, reported: Mapping[str, Any]
) -> dict[str, Any]:
    """The same response at its end. `finish`: the chat's reason; `reported`: its usage, with its service tier."""
    reason = _REASONS.get(finish)
    return {
        **opened,
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "service_tier": word(reported.get("service_tier")) or "default",
        "usage": usage_object(reported),
    }


def usage_object(reported: Mapping[str, Any]) -> dict[str, Any] | None:
    """A usage as responses count it; None where none was reported.

    What has a price of its own is kept: `read_usage` makes the same of what comes out as of `reported`.
    """
    usage = read_usage(reported)
    if usage is None:
        return None
    into = _object(reported.get("prompt_tokens_details")) or _object(reported.get("input_tokens_details"))
    out = _object(reported.get("completion_tokens_details")) or _object(reported.get("output_tokens_details"))
    read = {"cached_tokens": usage.cached_input, "cache_write_tokens": usage.cache_write}
    written = {"reasoning_tokens": usage.reasoning}
    return {
        "input_tokens": usage.total_input,
        "input_tokens_details": read | {name: into[name] for name in _SPECIAL_INPUT if name in into},
        "output_tokens": usage.total_output,
        "output_tokens_details": written | {name: out[name] for name in _SPECIAL_OUTPUT if name in out},
        "total_tokens": usage.total_input + usage.total_output,
        **{name: reported[name] for name in _PRICED if reported.get(name) is not None},
    }


def failed(
    opened: Mapping[str, Any], output: list[dict[str, Any]], message: str, reported: Mapping[str, Any]
) -> dict[str, Any]:
    """A response that its server gave up. What it used until then is billed."""
    error = {"code": "server_error", "message": message}
    return {**opened, "status": "failed", "error": error, "output": output, "usage": usage_object(reported)}


def error_event(error: object) -> dict[str, Any]:
    """The members of an `error` event, which stand beside its type."""
    said = error if isinstance(error, dict) else {"message": word(error)}
    code = said.get("code") if isinstance(said.get("code"), str) else said.get("type")
    message = word(said.get("message")) or "the upstream failed"
    return {"code": word(code) or "server_error", "message": message, "param": said.get("param")}


def _tool(tool: Any) -> Any:  # noqa: ANN401 - JSON can be anything
    """A tool as it was declared, with the members that a function always has."""
    is_function = isinstance(tool, dict) and tool.get("type") == "function"
    return {"description": None, "parameters": None, "strict": None, **tool} if is_function else tool


def _metadata(call: Call) -> Any:  # noqa: ANN401 - JSON can be anything
    """Without what was for the gateway alone."""
    ours = call.hints.strip_metadata
    if ours is not None:
        return call.codec.loads(ours) if ours else {}
    given = call.decoded("metadata")
    return {} if given is None else given


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
