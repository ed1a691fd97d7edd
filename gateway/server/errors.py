"""Errors in the client's dialect: the one place where a GatewayError becomes bytes (contract section 1, "Errors")."""

from __future__ import annotations

import json

from gateway.errors import GatewayError


def envelope(error: GatewayError) -> bytes:
    """OpenAI's error envelope; fields that do not apply are null."""
    inner = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return json.dumps({"error": inner}).encode()


def event(error: GatewayError) -> bytes:
    """The same as the last event of a stream that has begun. No `[DONE]` follows."""
    return b"data: " + envelope(error) + b"\n\n"
