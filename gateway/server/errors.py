"""Errors in the client's dialect: the one place where a GatewayError becomes bytes (contract section 1, "Errors")."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gateway.core.forms import Endpoint
from gateway.core.translate import anthropic
from gateway.errors import GatewayError

Render = Callable[[GatewayError], bytes]
RenderEvent = Callable[[GatewayError, bytes], bytes]  # takes what went out before it, too


_NUMBER = re.compile(rb'(?<!\\)"sequence_number": ?([0-9]{1,15})')  # inside of a text its quotes are escaped


class Errors(NamedTuple):
    """How one dialect says an error."""

    whole: Render  # the body of an answer
    event: RenderEvent  # the last event of a stream that has begun; nothing that ends it properly follows


def envelope(error: GatewayError) -> bytes:
    """OpenAI's error envelope; fields that do not apply are null."""
    return _dumps({"error": _openai(error)})


def _openai(error: GatewayError) -> dict[str, Any]:
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}


def _openai_event(error: GatewayError, _before: bytes) -> bytes:
    return b"data: " + envelope(error) + b"\n\n"


def _response_event(error: GatewayError, before: bytes) -> bytes:
    """developers.openai.com/api/reference/resources/responses/streaming-events: the members stand beside the type."""
    numbers = _NUMBER.findall(before)
    members = {
        "type": "error",
        "sequence_number": int(numbers[-1]) + 1 if numbers else 0,
        "code": error.code or error.type,
        "message": error.message,
        "param": error.param,
    }
    return b"event: error\ndata: " + _dumps(members) + b"\n\n"


def _anthropic(error: GatewayError) -> bytes:
    return _dumps(anthropic.error(error.status, error.message, error.code))


def _anthropic_event(error: GatewayError, _before: bytes) -> bytes:
    return b"event: error\ndata: " + _anthropic(error) + b"\n\n"


OPENAI = Errors(envelope, _openai_event)

ANTHROPIC = Errors(_anthropic, _anthropic_event)

ERRORS: Mapping[Endpoint, Errors] = {
    Endpoint.COUNT_TOKENS: ANTHROPIC,
    Endpoint.MESSAGES: ANTHROPIC,
    Endpoint.RESPONSES: Errors(envelope, _response_event),
}
"""Of endpoints that do not say it as OpenAI's chat does."""


def _dumps(value: object) -> bytes:
    return json.dumps(value).encode()
