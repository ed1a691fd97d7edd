"""The admin API's description (OpenAPI 3.1), as data. A key's settings come from the schema of `routes.yaml`."""

from __future__ import annotations

from typing import Any

from gateway import __version__
from gateway.config.fields import REFERENCE
from gateway.config.schema_spending import KeySettings
from gateway.operations import EXPLAINED, MOST_REASON, MOST_USD
from gateway.server.openapi import SCHEMAS, body_schema

MOST = 1_000  # rows in one answer
LONGEST_OVERLAP = 10**8  # seconds that a replaced key may open for: three years

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_USD: Json = {"type": "number", "minimum": -MOST_USD, "maximum": MOST_USD, "description": "USD"}
_REASON: Json = {"type": "string", "maxLength": MOST_REASON, "description": "Kept in the audit trail."}
_REQUIRED_REASON: Json = {**_REASON, "minLength": 1}
_LIMIT: Json = {
    "name": "limit",
    "in": "query",
    "schema": {"type": "integer", "minimum": 1, "maximum": MOST, "default": 100},
}
_NAME: list[Json] = [{"name": "name", "in": "path", "required": True, "schema": _TEXT}]
_SHARED = ("Error", "Metadata", "Model")
_OR_ONE = r"|\$\{"  # as `config.fields` writes it behind a pattern; beside a number it is `REFERENCE`
_REFUSALS = {
    400: "What was asked makes no sense.",
    401: "Not the admin token.",
    404: "There is no such thing.",
    405: "Another method is meant.",
    409: "It is not in a state in which that can be done.",
    413: "The body is too large.",
    503: "The store cannot be reached.",
}


def document() -> Json:
    """The whole description, as JSON."""
    settings = _without_placeholders(KeySettings.model_json_schema(ref_template="#/components/schemas/{model}"))
    shapes = settings.pop("$defs", {})
    settings["properties"] = {**settings["properties"], "reason": _REASON}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Open Model Gateway: admin API",
            "version": __version__,
            "description": "Every change is a row of the audit trail: who, when, what before, what after, and why.",
        },
        "servers": [{"url": "/admin"}],
        "security": [{"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {**{name: SCHEMAS[name] for name in _SHARED}, "NewKey": settings, **shapes},
        },
        "paths": {**_keys(), **_budgets(), **_rest()},
    }


def _keys() -> Json:
    value: Json = {"type": "object", "required": ["name", "value"], "properties": {"name": _TEXT, "value": _TEXT}}
    overlap: Json = {"type": "number", "minimum": 0, "maximum": LONGEST_OVERLAP}
    return {
        "/keys": {
            "get": _operation(
                "The keys of the file and the created ones, never their values.",
                parameters=[{"name": "all", "in": "query", "schema": {"type": "boolean"}}],
            ),
            "post": _operation(
                "Makes a key; its value is in the answer, and nowhere else.",
                made=value,
                requestBody=_content({"$ref": "#/components/schemas/NewKey"}),
            ),
        },
        "/keys/{name}/rotate": {
            "parameters": _NAME,
            "post": _operation(
                "A new value; the old one opens for `overlap_seconds` more.",
                requestBody=_body([], overlap_seconds=overlap, reason=_REASON),
            ),
        },
        "/keys/{name}/revoke": {
            "parameters": _NAME,
            "post": _operation("Ends a key within a second.", requestBody=_body([], reason=_REASON)),
        },
    }


def _budgets() -> Json:
    return {
        "/budgets": {"get": _operation("What is spent, held and left in the windows in force.")},
        "/budgets/{name}/adjust": {
            "parameters": _NAME,
            "post": _operation(
                "Corrects what counts as spent.",
                requestBody=_body(["by_usd", "reason"], by_usd=_USD, scope=_TEXT, reason=_REQUIRED_REASON),
            ),
        },
        "/budgets/{name}/reset": {
            "parameters": _NAME,
            "post": _operation(
                "What counts as spent begins at nothing again.",
                requestBody=_body(["reason"], scope=_TEXT, reason=_REQUIRED_REASON),
            ),
        },
    }


def _rest() -> Json:
    asked = [body_schema(endpoint) for endpoint in EXPLAINED.values()]
    return {
        "/openapi.json": {"get": _operation("This document.")},
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
        "/config/reload": {
            "post": _operation("Reads the file again; 409 where it is rejected.", requestBody=_body([], reason=_REASON))
        },
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
                requestBody=_content({"anyOf": asked}),
            )
        },
    }


def _without_placeholders(value: Any) -> Any:  # noqa: ANN401 - a piece of a document
    """A file may say `${NAME}` almost anywhere; who asks here may not."""
    if isinstance(value, list):
        return [_without_placeholders(each) for each in value if each != REFERENCE]
    if isinstance(value, dict):
        return {name.removesuffix(_OR_ONE): _without_placeholders(each) for name, each in value.items()}
    return value.removesuffix(_OR_ONE) if isinstance(value, str) else value


def _body(required: list[str], **properties: Json) -> Json:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": True}
    return _content(schema, required=bool(required))


def _content(schema: Json, *, required: bool = True) -> Json:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _operation(summary: str, made: Json | None = None, **more: Any) -> Json:  # noqa: ANN401 - a piece of a document
    """`made`: what a 201 holds; without it the answer is a 200."""
    done = {"description": "Done.", "content": {"application/json": {"schema": made or {"type": "object"}}}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    refusals = {str(status): {"description": why, "content": error} for status, why in _REFUSALS.items()}
    return {"summary": summary, "responses": {"200" if made is None else "201": done, **refusals}, **more}
