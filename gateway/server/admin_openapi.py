"""The admin API's description (OpenAPI 3.1), as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway import __version__

_TEXT = {"type": "string"}
_USD = {"type": "number", "description": "USD"}
_REASON = {"type": "string", "description": "Kept in the audit trail."}
_ERROR = {"description": '`{"error": {"message", "type"}}` says what is wrong.'}
_LIMIT = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}}


def _body(required: list[str], **properties: Mapping[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": True}
    return {"required": bool(required), "content": {"application/json": {"schema": schema}}}


def _operation(summary: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - a piece of a JSON document
    answers = {"200": {"description": "Done."}, "401": _ERROR, "4XX": _ERROR, "503": _ERROR}
    return {"summary": summary, "responses": answers, **more}


_NAME = [{"name": "name", "in": "path", "required": True, "schema": _TEXT}]

DOCUMENT: Mapping[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Open Model Gateway: admin API",
        "version": __version__,
        "description": "Every change is a row of the audit trail: who, when, what before, what after, and why.",
    },
    "servers": [{"url": "/admin"}],
    "security": [{"token": []}],
    "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    "paths": {
        "/openapi.json": {"get": _operation("This document.")},
        "/keys": {
            "get": _operation(
                "The keys of the file and the created ones, never their values.",
                parameters=[{"name": "all", "in": "query", "schema": {"type": "boolean"}}],
            ),
            "post": _operation(
                "Makes a key; its value is in the answer (201), and nowhere else.",
                requestBody=_body(
                    ["name"],
                    name=_TEXT,
                    team=_TEXT,
                    user=_TEXT,
                    allow={"type": "array", "items": _TEXT},
                    tags={"type": "array", "items": _TEXT},
                    expires=_TEXT,
                    budget={"type": "object"},
                    limits={"type": "object"},
                    reason=_REASON,
                ),
            ),
        },
        "/keys/{name}/rotate": {
            "parameters": _NAME,
            "post": _operation(
                "A new value; the old one opens for `overlap_seconds` more.",
                requestBody=_body([], overlap_seconds={"type": "number", "minimum": 0}, reason=_REASON),
            ),
        },
        "/keys/{name}/revoke": {
            "parameters": _NAME,
            "post": _operation("Ends a key within a second.", requestBody=_body([], reason=_REASON)),
        },
        "/budgets": {"get": _operation("What is spent, held and left in the windows in force.")},
        "/budgets/{name}/adjust": {
            "parameters": _NAME,
            "post": _operation(
                "Corrects what counts as spent.",
                requestBody=_body(["by_usd", "reason"], by_usd=_USD, scope=_TEXT, reason=_REASON),
            ),
        },
        "/budgets/{name}/reset": {
            "parameters": _NAME,
            "post": _operation(
                "What counts as spent begins at nothing again.",
                requestBody=_body(["reason"], scope=_TEXT, reason=_REASON),
            ),
        },
        "/breakers": {
            "get": _operation("Every model's endpoints, and whether requests may go there."),
            "post": _operation(
                "Keeps requests away from an endpoint (open), or lets them in again (closed).",
                requestBody=_body(
                    ["model", "state"],
                    model=_TEXT,
                    endpoint={"type": "string", "description": "May be left out where the model has only one."},
                    state={"enum": ["open", "closed"]},
                    reason=_REASON,
                ),
            ),
        },
        "/config": {"get": _operation("The configuration in force: its hash, models, routes, prices' origins.")},
        "/config/reload": {"post": _operation("Reads the file again; 409 where it is rejected.")},
        "/requests": {
            "get": _operation(
                "The newest requests of the ledger; its columns (route, team, outcome, ...) pick.",
                parameters=[_LIMIT],
            )
        },
        "/audit": {"get": _operation("The newest changes.", parameters=[_LIMIT])},
        "/explain": {
            "post": _operation(
                "What a request would lead to, and why. The body is the request; x-gateway-* headers count.",
                parameters=[{"name": "key", "in": "query", "schema": _TEXT, "description": "Whose request it is."}],
            )
        },
    },
}
