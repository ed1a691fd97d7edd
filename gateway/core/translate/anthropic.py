"""Anthropic's words: errors, usage, events (docs.anthropic.com/en/api/errors, /en/api/messages-streaming; 2026-11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.call import Json
from gateway.core.usage import Usage

# The words for a status; those of 5xx but 503, 504 and 529 are `api_error`.
ERROR_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error(status: int, message: str, code: str | None) -> dict[str, Any]:
    """Anthropic's shape. A `code` stands beside its members: programs that know it need not read the message."""
    kind = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message, "code": code}}


def event(kind: str, members: Mapping[str, Any], json: Json) -> bytes:
    """One event of a stream, named as its `type`."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **members}))


def usage_object(usage: Usage, reported: Mapping[str, Any]) -> dict[str, Any]:
    """A usage as Anthropic counts: input without what came from the cache or went into it, output with thinking.

    `reported`: the upstream's own object, of which what has a price of its own is kept. `read_usage` makes the same
    `usage` of what comes out (tests/core/test_translate.py).
    """
    said: dict[str, Any] = {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached_input,
        "output_tokens": usage.total_output,
    }
    out: dict[str, Any] = {"thinking_tokens": usage.reasoning} if usage.reasoning else {}
    if (more := usage.more) is not None:
        details = _object(reported.get("prompt_tokens_details")) or _object(reported.get("input_tokens_details"))
        into = {name: details[name] for name in _SPECIAL_INPUT if name in details}
        if into:
            said["input_tokens_details"] = into
        spoken = {"audio_tokens": more.audio_output, "image_tokens": more.image_output}
        out |= {name: count for name, count in spoken.items() if count}
        kept = ("service_tier", "server_tool_use", "cache_creation")
        said |= {name: reported[name] for name in kept if reported.get(name) is not None}
    if out:
        said["output_tokens_details"] = {"thinking_tokens": 0, **out}
    return said


def estimated_usage(input_tokens: int, output_tokens: int) -> dict[str, Any]:
    """Where the upstream reports none, and clients cannot do without. `estimated` says so, to `gateway.views` too."""
    return {"input_tokens": input_tokens, "output_tokens": output_tokens, "estimated": True}


_SPECIAL_INPUT = ("audio_tokens", "image_tokens", "cached_tokens_details")


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
