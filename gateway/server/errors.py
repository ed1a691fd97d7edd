"""Errors in the client's dialect: the one place where a GatewayError becomes bytes (contract section 1, "Errors")."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gateway.core.forms import Endpoint
from gateway.core.translate import anthropic
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


def _anthropic(error: GatewayError) -> bytes:
    return _dumps(anthropic.error(error.status, error.message, error.code))


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
