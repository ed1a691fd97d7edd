"""Bad input of every kind: a 4xx in OpenAI's envelope that names the field; nothing upstream, no content in the log."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import httpx
import pytest

from gateway.server.options import Sizes
from tests.servers import Gateway, until
from tests.upstream import Upstream

CANARY = "canary-7f3a91"  # stands in every bad request and must not turn up in the log
MESSAGE = {"role": "user", "content": CANARY}
JSON = {"content-type": "application/json"}


def envelope(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-request-id"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    return error


def body(**members: object) -> bytes:
    return json.dumps({"model": "a", "messages": [MESSAGE], **members}).encode()


BAD = {
    "malformed": (b'{"model": "a", "messages": ["' + CANARY.encode() + b"]}", None),
    "empty": (b"", None),
    "cut short": (body()[:-1], None),
    "trailing garbage": (body() + b" {}", None),
    "invalid UTF-8": (
        b'{"model": "a", "messages": [{"role": "user", "content": "\xff\xfe ' + CANARY.encode() + b'"}]}',
        None,
    ),
    "an array": (b'["' + CANARY.encode() + b'"]', None),
    "a string": (b'"' + CANARY.encode() + b'"', None),
    "null": (b"null", None),
    "no model": (json.dumps({"messages": [MESSAGE]}).encode(), "model"),
    "model null": (body(model=None), "model"),
    "model a number": (body(model=7), "model"),
    "model empty": (body(model=""), "model"),
    "no messages": (b'{"model": "a"}', "messages"),
    "messages a string": (body(messages=CANARY), "messages"),
    "messages null": (body(messages=None), "messages"),
    "messages empty": (body(messages=[]), "messages"),
    "a message is a string": (body(messages=[CANARY]), "messages"),
    "a message is null": (body(messages=[MESSAGE, None]), "messages"),
    "stream a string": (body(stream="yes"), "stream"),
    "stream_options a list": (body(stream=True, stream_options=[]), "stream_options"),
    "max_tokens a string": (body(max_tokens="9"), "max_tokens"),
    "max_tokens negative": (body(max_tokens=-1), "max_tokens"),
    "n a string": (body(n="2"), "n"),
    "n zero": (body(n=0), "n"),
    "metadata a list": (body(metadata=[CANARY]), "metadata"),
    "metadata.tags a number": (body(metadata={"tags": 7}), "metadata.tags"),
    "20,000 brackets": (b'{"model": "a", "messages": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", None),
    "20,000 objects": (b'{"model": "a", "messages": [], "x": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}", None),
    "a repeated model": (b'{"model": "a", "messages": [' + json.dumps(MESSAGE).encode() + b'], "model": "b"}', "model"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_body(gateway: Gateway, upstream: Upstream, what: str) -> None:
    content, param = BAD[what]
    answer = gateway.post(content=content, headers=JSON)
    assert answer.status_code == 400
    error = envelope(answer)
    assert error["type"] == "invalid_request_error"
    if param:
        assert error["param"] == param
    assert CANARY not in answer.text
    assert upstream.requests == []


BAD_HEADERS = {
    "x-gateway-timeout": "soon",
    "x-gateway-max-cost-usd": "much",
    "x-gateway-no-fallback": "perhaps",
    "x-gateway-dry-run": "perhaps",
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_bad_header(gateway: Gateway, upstream: Upstream, name: str) -> None:
    answer = gateway.chat("a", headers={name: BAD_HEADERS[name]})
    assert answer.status_code == 400
    assert envelope(answer)["param"] == name
    assert upstream.requests == []


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
def test_a_bad_body_elsewhere(gateway: Gateway, upstream: Upstream, path: str) -> None:
    answer = gateway.post(path, content=b'{"model": 5}', headers=JSON)
    assert answer.status_code == 400
    assert envelope(answer)["param"] == "model"
    assert upstream.requests == []


TOO_LATE = {  # found where it is first asked for, when the request has long begun
    "/v1/embeddings": (b'{"model": "a", "input": [1e999]}', "input"),
    "/v1/completions": (b'{"model": "a", "prompt": 1e999}', "prompt"),
    "/v1/rerank": (b'{"model": "a", "query": "x", "documents": [1e999]}', "documents"),
    "/v1/chat/completions": (body(response_format={"a": 7}).replace(b"7", b"1e999"), "response_format"),
    "/v1/responses": (b'{"model": "a", "input": [{"role": [], "content": "x"}]}', "input"),
}


@pytest.mark.parametrize("path", TOO_LATE)
def test_what_is_found_late_is_on_record_too(gateway: Gateway, upstream: Upstream, path: str) -> None:
    content, param = TOO_LATE[path]
    answer = gateway.post(path, content=content, headers={**JSON, "x-request-id": f"late{path}"})
    assert answer.status_code == 400
    assert envelope(answer)["param"] == param
    assert upstream.requests == []
    query = "SELECT outcome, status FROM requests WHERE client_request_id = ?"
    found = until("its row", lambda: gateway.rows(query, f"late{path}"))
    assert found == [{"outcome": "rejected", "status": 400}]
    assert "a defect" not in gateway.log


def test_an_unknown_model(gateway: Gateway, upstream: Upstream) -> None:
    answer = gateway.chat("pairr")
    assert answer.status_code == 404
    error = envelope(answer)
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "model_not_found", "model")
    assert "pair" in error["message"].replace("pairr", "")
    assert upstream.requests == []


def test_a_50_mb_body(gateway: Gateway, upstream: Upstream) -> None:
    """Refused by its announced length, before it is read; the client may still be sending."""
    content = body(x=CANARY + "x" * 50_000_000)
    try:
        answer = gateway.post(content=content, headers=JSON)
    except httpx.TransportError as error:
        pytest.fail(f"the connection broke before the answer could be read: {error!r}")
    assert answer.status_code == 413
    assert envelope(answer)["code"] == "request_too_large"
    assert upstream.requests == []


def test_a_50_mb_body_in_chunks(gateway: Gateway, upstream: Upstream) -> None:
    """No length is announced: the limit is found while reading."""
    pieces = (b"x" * 1_000_000 for _ in range(50))
    answer = gateway.post(content=pieces, headers=JSON)
    assert answer.status_code == 413
    assert envelope(answer)["code"] == "request_too_large"
    assert upstream.requests == []


def test_a_body_that_passes_the_limit_with_its_last_bytes(gateway: Gateway, upstream: Upstream) -> None:
    content = body(x="x" * (Sizes().body - len(body(x="")) + 1))
    assert len(content) == Sizes().body + 1
    answer = gateway.post(content=iter((content[:-10], content[-10:])), headers=JSON)
    assert answer.status_code == 413
    assert envelope(answer)["code"] == "request_too_large"
    assert upstream.requests == []


def raw(gateway: Gateway, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        received = b""
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                received += piece
        except ConnectionError:
            pass  # refused while we were still sending
        return received


@pytest.mark.parametrize(
    "headers",
    [b"x-bomb: " + b"x" * 2_000_000, b"\r\n".join(b"x-bomb-%d: %d" % (i, i) for i in range(100_000))],
    ids=["one long", "many"],
)
def test_a_header_bomb(gateway: Gateway, upstream: Upstream, headers: bytes) -> None:
    request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + headers + b"\r\n\r\n"
    answer = raw(gateway, request)
    assert answer == b"" or b" 431 " in answer.split(b"\r\n")[0] or b" 400 " in answer.split(b"\r\n")[0]
    assert upstream.requests == []
    assert gateway.chat("a").status_code == 200  # and others are served on


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n"])
def test_what_is_not_http(gateway: Gateway, upstream: Upstream, data: bytes) -> None:
    answer = raw(gateway, data)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert answer == b"" or b"\r\nx-request-id: req_" in answer
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/models", 405),
        ("TRACE", "/healthz", 405),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/", 404),
        ("GET", "/metrics", 404),  # the operations listener has it
        ("GET", "/v1/../healthz", 404),
        ("GET", "//v1/models", 404),
    ],
)
def test_no_such_place(gateway: Gateway, upstream: Upstream, method: str, path: str, status: int) -> None:
    line = f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    head, _, content = raw(gateway, line.encode()).partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == str(status).encode()
    assert json.loads(content)["error"].keys() == {"message", "type", "param", "code"}
    assert b"\r\nx-request-id: req_" in head.lower()
    if status == 405:
        assert b"\r\nallow: " in head.lower()
    assert upstream.requests == []


LISTED = ["/v1/models", "/v1/models/a", "/v1/models/nobody", "/v1/nothing", "/nothing"]


@pytest.mark.parametrize("path", LISTED)
def test_every_answer_has_the_requests_id(gateway: Gateway, path: str) -> None:
    """The client's, else ours; one that a chat would be refused for is not echoed."""

    def told(given: bytes | None) -> str:
        headers = {} if given is None else {b"x-request-id": given}
        return gateway.client.get(path, headers=headers).headers["x-request-id"]

    assert told(b"mine-1") == "mine-1"
    assert told(b"x" * 128) == "x" * 128
    ours = [told(given) for given in (None, b"x" * 129, b"a\tb", "\u00e9".encode())]
    assert len(set(ours)) == len(ours)
    assert all(re.fullmatch("req_[0-9a-f]{24}", each) for each in ours)


def test_a_probe_needs_no_id(gateway: Gateway) -> None:
    assert "x-request-id" not in gateway.client.get("/healthz").headers


def test_a_log_line_for_each_and_no_content(gateway: Gateway, upstream: Upstream) -> None:
    """Runs last: everything above went through the same process."""
    gateway.chat("pairr", messages=[MESSAGE])
    gateway.chat("a", messages=[MESSAGE])
    until("the log", lambda: "pairr" in gateway.log or '"not_found"' in gateway.log)
    assert CANARY not in gateway.log
    assert "Traceback" not in gateway.log
    assert CANARY.encode() not in (gateway.directory / "gateway.db").read_bytes()
    assert upstream.requests


def test_rejections_are_counted_and_recorded(gateway: Gateway, upstream: Upstream) -> None:
    before = gateway.metric("gateway_rejections_total")
    gateway.chat("pairr")
    gateway.post(content=b"{", headers=JSON)
    until("two rejections", lambda: gateway.metric("gateway_rejections_total") == before + 2)
    assert upstream.requests == []
