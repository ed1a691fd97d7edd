"""The API's description against the code: no error, header or endpoint that it does not have, and none beyond."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # publishes no types
import pytest

from gateway.core.call import MAX_CHOICES, MAX_MODEL_NAME, MAX_TOKENS, parse
from gateway.core.forms import FORMS, Endpoint
from gateway.core.hints import HEADERS, MAX_LABEL, MAX_TAGS
from gateway.errors import GatewayError, Overloaded, QuotaExceeded, RequestError, RouteExhausted, StoreUnavailable
from gateway.server.admin_openapi import document as admin_document
from gateway.server.app import ENDPOINTS
from gateway.server.openapi import REQUEST_HEADERS, document
from gateway.server.openapi_words import ABOUT, ANSWER_HEADERS, REFUSALS
from gateway.wire import CODEC

CODE = Path(__file__).parents[2] / "gateway"
# What is raised where no client of /v1 can be: at start, in the admin API, in the process of litellm.
ELSEWHERE = ("cli", "config", "operations.py", "litellm")
DEFAULTS: dict[str, Any] = {"status": 400, "type": "invalid_request_error", "code": None}


def raised() -> Iterator[tuple[str, int, str, str | None]]:
    """Where, status, type and code of every error that the code makes with literal values."""
    for path in sorted(CODE.rglob("*.py")):
        name = str(path.relative_to(CODE))
        if name.startswith(ELSEWHERE[:3]) or ELSEWHERE[3] in name:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RequestError":
                given = {word.arg: word.value for word in node.keywords if word.arg in DEFAULTS}
                if all(isinstance(value, ast.Constant) for value in given.values()):
                    found = {**DEFAULTS, **{name: value.value for name, value in given.items()}}  # type: ignore[attr-defined]
                    yield f"{name}:{node.lineno}", found["status"], found["type"], found["code"]


def test_every_error_of_the_code_is_described() -> None:
    described = {(each.status, each.type, code) for each in REFUSALS for code in each.codes}
    found = list(raised())
    assert len(found) > 50
    assert [each for each in found if each[1:] not in described] == []
    made: list[GatewayError] = [Overloaded("x"), StoreUnavailable("x"), QuotaExceeded("x", budget="b")]
    made += [RouteExhausted("x", status=503, code="no_healthy_upstream")]
    for error in made:
        row = next(each for each in REFUSALS if (each.status, each.type) == (error.status, error.type))
        assert error.code in row.codes
        assert error.headers.keys() <= set(row.headers)


def test_every_described_error_is_in_the_code() -> None:
    """Its code, or its status where it has none, stands somewhere as a literal."""
    source = "\n".join(path.read_text() for path in CODE.rglob("*.py") if path.name != "openapi_words.py")
    for each in REFUSALS:
        for code in each.codes:
            assert f'"{code}"' in source if code else re.search(rf"\b{each.status}\b", source), each


def test_every_header_of_answers_is_described() -> None:
    sources = [CODE / name for name in ("flight.py", "exchange.py", "binary.py", "counting.py", "rates.py")]
    found = set(re.findall(r'b"(x-gateway-[a-z-]+|x-request-id)"', "\n".join(path.read_text() for path in sources)))
    assert found | {name for name in ANSWER_HEADERS if name.startswith("x-ratelimit-")} == ANSWER_HEADERS.keys()


def test_every_header_of_requests_is_described() -> None:
    assert REQUEST_HEADERS.keys() == HEADERS


def test_every_endpoint_is_described() -> None:
    assert ABOUT.keys() == FORMS.keys() - {Endpoint.PASSTHROUGH}
    assert ENDPOINTS.keys() < document()["paths"].keys()


TAGS = [f"t{number}" for number in range(MAX_TAGS + 1)]
# Each stands in the place of every member that a description names, and of the whole body, at every endpoint. What is
# refused and no schema here says is not among them: more than MAX_TAGS in one text.
TRIALS: tuple[object, ...] = (
    *(None, True, False, 0, 1, -1, 1.0, 1.5, "", "x", "a\n", [], ["x"], [{}], [None], {}, {"a": 1}),
    *(MAX_CHOICES, MAX_CHOICES + 1, MAX_TOKENS, MAX_TOKENS + 1, "m" * MAX_MODEL_NAME, "m" * (MAX_MODEL_NAME + 1)),
    *({"tags": ["a"]}, {"tags": [1]}, {"tags": "a,b"}, {"tags": None}, {"task": 1}, {"task": "t" * (MAX_LABEL + 1)}),
    *(
        {"tags": TAGS},
        {"tags": TAGS[1:]},
        {"tags": 1},
        {"tags": ["t" * (MAX_LABEL + 1)]},
        {"tags": "t" * (MAX_LABEL + 1)},
        {"tags": ",".join(TAGS[1:])},
    ),
    *({"include_usage": True}, {"include_usage": 1}),
)


def _pattern(_: Any, pattern: str, value: object, __: Any) -> Iterator[jsonschema.ValidationError]:
    """Python's own expressions know no `\\p{L}`: of ASCII, which the trials are, it leaves what can be printed."""
    here = re.sub(r"\[(?:\\p\{\w\})+ \]", "[ -~]", pattern).replace("$", r"\Z")
    if isinstance(value, str) and re.search(here, value) is None:
        yield jsonschema.ValidationError("pattern")


def accepts(endpoint: Endpoint, body: object) -> bool:
    try:
        parse(endpoint, [], json.dumps(body).encode(), CODEC)
    except RequestError:
        return False
    return True


@pytest.mark.parametrize("path", sorted(ENDPOINTS))
def test_bodies_are_refused_exactly_where_the_description_says_so(path: str) -> None:
    endpoint, described = ENDPOINTS[path], document()
    shape = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    judge = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern})
    judge = judge({**shape, "components": described["components"]})
    good: dict[str, Any] = {"model": "auto", **ABOUT[endpoint].example}
    bodies: list[Any] = [good, *TRIALS]
    for name in shape["properties"]:
        bodies += [{key: value for key, value in good.items() if key != name}]
        bodies += [{**good, name: other} for other in TRIALS]
    assert accepts(endpoint, good)
    assert [body for body in bodies if judge.is_valid(body) != accepts(endpoint, body)] == []


@pytest.mark.parametrize("described", [document(), admin_document()], ids=["public", "admin"])
def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    text = json.dumps(described)
    references = set(re.findall(r'"\$ref": "#/([^"]+)"', text))
    assert references
    for reference in references:
        found: Any = described
        for step in reference.split("/"):
            found = found[step]
    declared = {f"components/{kind}/{name}" for kind, rows in described["components"].items() for name in rows}
    unused = declared - references - {f"components/securitySchemes/{each}" for each in ("bearer", "x-api-key", "token")}
    assert unused == set()
