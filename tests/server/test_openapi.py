"""The API's description against the code: no error, header or endpoint that it does not have, and none beyond."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.forms import FORMS, Endpoint
from gateway.core.hints import HEADERS
from gateway.errors import GatewayError, Overloaded, QuotaExceeded, RouteExhausted, StoreUnavailable
from gateway.server.admin_openapi import document as admin_document
from gateway.server.app import ENDPOINTS
from gateway.server.openapi import REQUEST_HEADERS, document
from gateway.server.openapi_words import ABOUT, ANSWER_HEADERS, REFUSALS

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
