"""Errors in the client's dialect: the one place where a GatewayError becomes bytes (contract section 1, "Errors")."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gateway.core.forms import Endpoint
from gateway.errors import GatewayError

Render = Callable[[GatewayError], bytes]


class Errors(NamedTuple):
    """How one dialect says an error."""

    whole: Render  # the body of an answer
    event: Render  # the last event of a stream that has begun; nothing that ends it properly follows


def envelope(error: GatewayError) -> bytes:
    """OpenAI's error envelope; fields that do not apply are null."""
    return _dumps({"error": _openai(error)})


def _openai(error: GatewayError) -> dict[str, Any]:
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}


def _openai_event(error: GatewayError) -> bytes:
    return b"data: " + envelope(error) + b"\n\n"


def _response_event(error: GatewayError) -> bytes:
    """platform.openai.com/docs/api-reference/responses-streaming/error: the members stand beside the type."""
    members = {"type": "error", "code": error.code or error.type, "message": error.message, "param": error.param}
    return b"event: error\ndata: " + _dumps(members) + b"\n\n"


# docs.anthropic.com/en/api/errors: the words for a status; those of 5xx but 529 are `api_error`.
_ANTHROPIC_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def _anthropic(error: GatewayError) -> bytes:
    """Anthropic's shape. Our `code` stands beside its members: programs that know it need not read the message."""
    kind = _ANTHROPIC_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return _dumps({"type": "error", "error": {"type": kind, "message": error.message, "code": error.code}})


def _anthropic_event(error: GatewayError) -> bytes:
    return b"event: error\ndata: " + _anthropic(error) + b"\n\n"


OPENAI = Errors(envelope, _openai_event)

ERRORS: Mapping[Endpoint, Errors] = {
    Endpoint.MESSAGES: Errors(_anthropic, _anthropic_event),
    Endpoint.RESPONSES: Errors(envelope, _response_event),
}
"""Of endpoints that do not say it as OpenAI's chat does."""


def _dumps(value: object) -> bytes:
    return json.dumps(value).encode()
