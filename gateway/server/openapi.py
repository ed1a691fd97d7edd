"""The client-facing API's description (OpenAPI 3.1), made of the tables that serve it.

Endpoints and what the gateway itself needs of a body come from `core.forms.FORMS`, bounds from `core.call` and
`core.hints`, the dialect of errors from `server.errors`. What is only here are words, examples and the table of errors,
which `tests/server/test_openapi.py` holds against the code. A constraint in a schema is one that the gateway checks;
whatever else a body has goes upstream untouched, and is the upstream's to judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway import __version__
from gateway.core.call import MAX_CHOICES, MAX_MODEL_NAME, MAX_TOKENS
from gateway.core.forms import FORMS, Endpoint, Form
from gateway.core.hints import DECIMAL, MAX_ID, MAX_LABEL, MAX_TAGS
from gateway.core.passing import POSTPONED
from gateway.server.app import ENDPOINTS, MODELS
from gateway.server.errors import ANTHROPIC, ERRORS, OPENAI, Errors
from gateway.server.openapi_words import ABOUT, ANSWER_HEADERS, REFUSALS, Refusal
from gateway.server.uploads import NAME

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_FLAG: Json = {"type": ["boolean", "null"]}
_SIGN = r"[\p{L}\p{M}\p{N}\p{P}\p{S} ]"  # what `str.isprintable` says, in the words of ECMA 262
_NAME = rf"\s*{_SIGN}{{0,{MAX_LABEL}}}\s*"
_LABEL: Json = {"type": "string", "pattern": f"^{_NAME}$"}
_LABELS: Json = {"type": "string", "pattern": f"^{_NAME}(,{_NAME}){{0,{MAX_TAGS - 1}}}$"}
_DECIMAL: Json = {"type": "string", "pattern": f"^{DECIMAL}$"}
_TRUE_OR_FALSE: Json = {"type": "string", "enum": ["false", "true"]}
_ID: Json = {"type": "string", "maxLength": MAX_ID, "pattern": "^[ -~]*$"}
_EVENTS = "text/event-stream"
STATUSES = tuple(sorted({each.status for each in REFUSALS}))

REQUEST_HEADERS: Mapping[str, tuple[Json, str]] = {
    "x-gateway-task": (_LABEL, "The task, instead of the rules."),
    "x-gateway-tags": (_LABELS, "Tags, by commas."),
    "x-gateway-max-cost-usd": (_DECIMAL, "Leaves out models that may cost more."),
    "x-gateway-timeout": (_DECIMAL, "Seconds over all attempts, above zero; only shortens."),
    "x-gateway-no-fallback": (_TRUE_OR_FALSE, "Only the first model, retries included."),
    "x-gateway-dry-run": (_TRUE_OR_FALSE, "Answers with the decision as JSON, and calls nobody."),
    "x-session-id": (_ID, "The conversation, for `sticky: session`."),
    "x-request-id": (_ID, "Echoed, logged and in the ledger."),
}

ERROR: Json = {
    "type": "object",
    "description": "OpenAI's envelope.",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
            "properties": {
                "message": {"type": "string", "minLength": 1},
                "type": {"enum": sorted({each.type for each in REFUSALS})},
                "param": {"type": ["string", "null"], "description": "The member or header that is wrong."},
                "code": {"enum": [None, *sorted({code for each in REFUSALS for code in each.codes if code})]},
            },
        }
    },
}
_ANTHROPIC_ERROR: Json = {
    "type": "object",
    "description": "Anthropic's shape: docs.anthropic.com/en/api/errors. `code` is ours, as in OpenAI's envelope.",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message", "code"],
            "properties": {"type": _TEXT, "message": {"type": "string", "minLength": 1}, "code": {}},
        },
    },
}
SCHEMAS: Json = {
    "Model": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_MODEL_NAME,
        "pattern": f"^{_SIGN}*$",
        "description": "A name under `models:`, or any that a route matches. "
        f"`GET {MODELS}` lists those that the key may use.",
    },
    "Error": ERROR,
    "AnthropicError": _ANTHROPIC_ERROR,
    "Relayed": {"description": "An upstream's own 400 or 422 about the request comes back as it is."},
    "Metadata": {
        "type": ["object", "null"],
        "description": "`task` and `tags` are the gateway's and do not go upstream; the rest does.",
        "properties": {
            "task": {"anyOf": [_LABEL, {"type": "null"}]},
            "tags": {"anyOf": [_LABELS, {"type": "array", "items": _LABEL, "maxItems": MAX_TAGS}, {"type": "null"}]},
        },
    },
    "ModelObject": {
        "type": "object",
        "required": ["id", "object", "created", "owned_by"],
        "properties": {
            "id": _TEXT,
            "object": {"const": "model"},
            "created": {"type": "integer"},
            "owned_by": {"type": "string", "description": "The provider; of a route's name the gateway."},
        },
    },
    "ModelList": {
        "type": "object",
        "required": ["object", "data"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/ModelObject"}},
        },
    },
}


def document() -> Json:
    """The whole description, as JSON."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Open Model Gateway", "version": __version__, "description": _introduction()},
        "servers": [{"url": "http://127.0.0.1:4000"}],
        "security": [{"bearer": []}, {"x-api-key": []}, {}],
        "paths": {
            **{path: {"post": _call(endpoint)} for path, endpoint in sorted(ENDPOINTS.items())},
            **_models(),
            "/healthz": {"get": _healthz()},
        },
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key of `keys:`, or a created one."},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": SCHEMAS,
            "responses": {**_responses(OPENAI), **_responses(ANTHROPIC)},
            "parameters": {name: _parameter(name) for name in REQUEST_HEADERS},
            "headers": {
                name: {"description": words, "schema": schema} for name, (schema, words) in ANSWER_HEADERS.items()
            },
        },
    }


def _introduction() -> str:
    postponed = ", ".join(f"`/v1/{path}`" for path in sorted(POSTPONED))
    return (
        "Every call goes through keys, tasks, routes, budgets and fallbacks. A constraint in a schema is one that the "
        "gateway checks; other members go upstream untouched, and their types are the upstream's to judge. Where "
        "neither `keys:` nor created keys are in use no key is needed. "
        f"404, with the reason: {postponed}. Other paths of a provider: its `passthrough:` list."
    )


def _call(endpoint: Endpoint) -> Json:
    form, about = FORMS[endpoint], ABOUT[endpoint]
    shape = body_schema(endpoint)
    example = {"model": "auto", **about.example}
    content: Json = {"application/json": {"schema": shape, **({} if form.multipart else {"example": example})}}
    if form.multipart:
        content["multipart/form-data"] = {"schema": _form(form, about.content, about.files), "example": example}
    return {
        "operationId": endpoint.value.strip("/").replace("/", "_"),
        "summary": about.summary,
        "externalDocs": {"url": about.source},
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in REQUEST_HEADERS],
        "requestBody": {"required": True, "content": content},
        "responses": {"200": _answer(form), **_refusals(endpoint)},
    }


def body_schema(endpoint: Endpoint) -> Json:
    """What the gateway needs of a JSON body; refers to `SCHEMAS`."""
    form, content = FORMS[endpoint], ABOUT[endpoint].content
    model: Json = {"$ref": "#/components/schemas/Model"}
    if form.model:
        model = {"anyOf": [model, {"type": "null"}], "description": f"Without one `{form.model}` is meant."}
    members: Json = {"model": model}
    members[form.content] = {"description": content, "not": {"type": "null"}}
    if form.messages:
        members[form.content] = {
            "description": content,
            "type": "array",
            "minItems": 1,
            "items": {"type": "object"},
        }
    count: Json = {"type": ["integer", "null"], "minimum": 1}
    for cap in form.caps:
        words = f"Caps the output; `{form.caps[0]}` wins." if len(form.caps) > 1 else "Caps the output."
        members[cap] = {**count, "maximum": MAX_TOKENS, "description": words}
    if form.caps or form.sold:
        members["tools"] = {"type": ["array", "null"]}
    if _answers_in_events(form):
        name, wanted = form.streams
        members[name] = _FLAG if wanted is True else {"description": f"`{wanted}`: the answer comes in events."}
    if form.asks_usage:
        members["stream_options"] = {"type": ["object", "null"], "properties": {"include_usage": _FLAG}}
    if form.choices:
        members |= {name: {**count, "maximum": MAX_CHOICES} for name in ("n", "best_of")}
    for name, why in form.refused.items():
        members[name] = {"enum": [False, None], "description": f"`true` {why}."}
    members["metadata"] = {"$ref": "#/components/schemas/Metadata"}
    required = [form.content] if form.model else ["model", form.content]
    return {"type": "object", "required": required, "properties": members}


def _form(form: Form, content: str, files: tuple[str, ...]) -> Json:
    """The same of a form with files. Texts that are no number or flag are not looked at there."""
    names = {"pattern": f"^{NAME}$"}
    binary: Json = {"type": "string", "format": "binary"}
    members: Json = {"model": {"$ref": "#/components/schemas/Model"}}
    members[form.content] = {**(binary if form.content in files else _TEXT), "description": content}
    members |= {name: binary for name in files if name != form.content}
    members[form.streams[0]] = {"type": "string", "enum": ["true", "false"]}
    if form.choices:
        members["n"] = {"type": "integer", "minimum": 1, "maximum": MAX_CHOICES}
    return {"type": "object", "required": ["model", form.content], "properties": members, "propertyNames": names}


def _answer(form: Form) -> Json:
    """The upstream's own, with `usage.cost` (USD) in its usage where there is one."""
    shown: Json = {}
    if form.binary:
        shown["*/*"] = {}
    else:
        shown["application/json"] = {"schema": {"type": "object"}}
    if form.speaks_text:
        shown["text/*"] = {}
    if _answers_in_events(form):
        shown[_EVENTS] = {"schema": {"description": "Server-sent events, as the API has them."}}
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in ANSWER_HEADERS}
    return {"description": "The answer.", "headers": headers, "content": shown}


def _answers_in_events(form: Form) -> bool:
    return bool((form.caps or form.sold) and form.streams[0])


def _refusals(endpoint: Endpoint, statuses: Iterable[int] = STATUSES) -> Json:
    prefix = _prefix(ERRORS.get(endpoint, OPENAI))
    return {str(status): {"$ref": f"#/components/responses/{prefix}{status}"} for status in statuses}


def _prefix(errors: Errors) -> str:
    return "Anthropic" if errors is ANTHROPIC else ""


def _responses(errors: Errors) -> Json:
    """Every refusal in one dialect, by status."""
    prefix = _prefix(errors)
    schema: Json = {"$ref": f"#/components/schemas/{prefix}Error"}
    relayed = {"anyOf": [schema, {"$ref": "#/components/schemas/Relayed"}]}
    answers: Json = {}
    for status in STATUSES:
        rows = [each for each in REFUSALS if each.status == status]
        shown = relayed if any(each.relayed for each in rows) else schema
        answers[f"{prefix}{status}"] = {
            "description": " ".join(map(_in_words, rows)),
            "content": {"application/json": {"schema": shown}},
        }
        if headers := {name: {"schema": _TEXT} for each in rows for name in each.headers}:
            answers[f"{prefix}{status}"]["headers"] = headers
    return answers


def _in_words(row: Refusal) -> str:
    codes = " | ".join(f"`{code}`" for code in row.codes if code)
    return f"{row.why} (`{row.type}`{', ' + codes if codes else ''})."


def _models() -> Json:
    """What may be asked for without a body, so most refusals do not apply."""
    kept = _refusals(Endpoint.CHAT, (401, 404, 405, 503))

    headers = {"x-request-id": {"$ref": "#/components/headers/x-request-id"}}

    def shown(name: str) -> Json:
        content = _json(f"#/components/schemas/{name}")
        return {"description": "What the key may use.", "headers": headers, "content": content}

    name = {"name": "model", "in": "path", "required": True, "schema": _TEXT}
    one = {"summary": "One model.", "operationId": "model", "responses": {"200": shown("ModelObject"), **kept}}
    every = {"summary": "The models that the key may use.", "operationId": "models"}
    return {
        MODELS: {"get": {**every, "responses": {"200": shown("ModelList"), **kept}}},
        MODELS + "/{model}": {"get": {**one, "parameters": [name]}},
    }


def _healthz() -> Json:
    return {
        "summary": "Whether the process serves.",
        "operationId": "healthz",
        "security": [],
        "responses": {"200": {"description": "It does.", "content": {"application/json": {"schema": {}}}}},
    }


def _json(ref: str) -> Json:
    return {"application/json": {"schema": {"$ref": ref}}}


def _parameter(name: str) -> Json:
    schema, words = REQUEST_HEADERS[name]
    return {"name": name, "in": "header", "schema": schema, "description": words}
