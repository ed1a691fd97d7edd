"""`passthrough:`: what a provider lists goes to it as it is, authenticated and counted; never under a budget."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import replies
from tests.replies import END, chunked, http, stream_head
from tests.servers import Gateway, until
from tests.upstream import CUT, STALL, Gate, Received, Step, Upstream

ROUTES = """
version: 1
providers:
  up:
    base_url: "@BASE@"
    api_key: our-own-key
    passthrough: [/files, /files/*, /fine_tuning/**, /shared]
    headers: {X-Org: acme}
  second: {base_url: "@BASE@/second", passthrough: [/shared]}
  closed: {base_url: "@BASE@"}
models:
  m: {provider: closed, price: unmetered}
budgets:
  - {name: poor-team, match: {team: poor}, limit_usd: 1, window: total}
limits:
  - {match: {key: busy}, requests_per_minute: 1}
keys:
  - {name: may, value: may-0123456789abcdef, allow: ["*", "passthrough:up", "passthrough:second"]}
  - {name: all-models, value: all-models-0123456789abcdef, allow: ["*"]}
  - {name: poor, value: poor-0123456789abcdef, team: poor, allow: ["passthrough:*"]}
  - {name: busy, value: busy-0123456789abcdef, allow: ["passthrough:*"]}
"""


def echo(received: Received) -> list[Step]:
    return [http(200, received.body or b"nothing", {"content-type": "text/x-echo"})]


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with Upstream(echo) as running:
        yield running


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.forget()
    return server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, server: Upstream) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("passing"), ROUTES.replace("@BASE@", server.base_url)) as running:
        yield running


def ask(gateway: Gateway, method: str, path: str, key: str = "may", **given: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}-0123456789abcdef", "x-request-id": secrets.token_hex(8)}
    headers |= given.pop("headers", {})
    return gateway.client.request(method, f"/v1{path}", headers=headers, **given)


def row_of(gateway: Gateway, answer: httpx.Response) -> dict[str, Any]:
    query = "SELECT * FROM requests WHERE client_request_id = ?"
    return until("the row", lambda: gateway.rows(query, answer.headers["x-request-id"]))[0]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_listed_path_goes_as_it_is(gateway: Gateway, upstream: Upstream, method: str) -> None:
    labels = {"route": "passthrough", "model": "none", "provider": "up", "outcome": "ok"}
    before = gateway.metric("gateway_requests_total", **labels)
    content = b"\x00any bytes" if method != "GET" else b""
    headers = {"content-type": "application/x-any", "cookie": "a=b", "x-gateway-tags": "t", "openai-beta": "v2"}
    answer = ask(gateway, method, "/files/file-abc?limit=2&after=%2F", content=content, headers=headers)
    assert (answer.status_code, answer.content) == (200, content or b"nothing")
    assert answer.headers["content-type"] == "text/x-echo"
    assert (answer.headers["x-gateway-route"], answer.headers["x-gateway-provider"]) == ("passthrough", "up")
    sent = (upstream.requests or upstream.probes)[-1]
    assert (sent.method, sent.path) == (method, "/v1/files/file-abc?limit=2&after=%2F")
    assert sent.header("authorization") == "Bearer our-own-key"
    assert (sent.header("x-org"), sent.header("openai-beta")) == ("acme", "v2")
    assert sent.header("content-type") == "application/x-any"
    assert not [name for name, _ in sent.headers if name in ("cookie", "x-request-id") or name.startswith("x-gateway")]
    row = row_of(gateway, answer)
    assert (row["endpoint"], row["route"]) == ("passthrough", "passthrough")
    assert (row["model"], row["provider"]) == ("none", "up")
    assert (row["outcome"], row["key"], row["cost_nano"], row["unpriced"]) == ("ok", "may", 0, 0)
    until("it in the metrics", lambda: gateway.metric("gateway_requests_total", **labels) == before + 1)


@pytest.mark.parametrize(
    "path",
    [
        *("/files/a/content", "/fine_tuning", "/filesx", "/other", "/files/", "/files//a", "/files/.."),
        *("/files/%2e%2e", "/files/a%2Fb", "/fine_tuning/../chat/completions", "/fine_tuning/./x"),
    ],
)
def test_nothing_else_does(gateway: Gateway, upstream: Upstream, path: str) -> None:
    """Sent as it stands: clients tidy paths up."""
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        head = f"GET /v1{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer may-0123456789abcdef\r\nconnection: close"
        client.sendall(f"{head}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404"), answer
    assert upstream.requests + upstream.probes == []


def test_globs_go_by_segments(gateway: Gateway, upstream: Upstream) -> None:
    assert ask(gateway, "POST", "/fine_tuning/jobs/j-1/cancel").status_code == 200
    assert upstream.requests[-1].path == "/v1/fine_tuning/jobs/j-1/cancel"


def test_of_several_providers_the_client_may_choose(gateway: Gateway, upstream: Upstream) -> None:
    assert ask(gateway, "POST", "/shared").headers["x-gateway-provider"] == "up"
    chosen = ask(gateway, "POST", "/shared", headers={"x-gateway-provider": "second"})
    assert chosen.headers["x-gateway-provider"] == "second"
    assert upstream.requests[-1].path == "/v1/second/shared"
    assert upstream.requests[-1].header("authorization") is None
    assert ask(gateway, "POST", "/shared", headers={"x-gateway-provider": "closed"}).status_code == 400


def test_who_may(gateway: Gateway, upstream: Upstream) -> None:
    assert ask(gateway, "POST", "/files", key="nobody").status_code == 401
    refused = ask(gateway, "POST", "/files", key="all-models")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
    assert "passthrough:up" in refused.json()["error"]["message"]
    budgeted = ask(gateway, "POST", "/files", key="poor")
    assert (budgeted.status_code, budgeted.json()["error"]["code"]) == (400, "unpriced_model")
    assert row_of(gateway, budgeted)["budget"] == "poor-team"
    assert upstream.requests == []
    assert ask(gateway, "POST", "/files", key="busy").status_code == 200
    assert ask(gateway, "POST", "/files", key="busy").json()["error"]["code"] == "rate_limit_exceeded"


def test_both_bodies_are_streamed(gateway: Gateway, upstream: Upstream) -> None:
    gate = Gate()

    def slowly(received: Received) -> Iterator[Step]:
        yield stream_head({"content-type": "application/jsonl"}) + chunked(b"first")
        yield gate
        yield chunked(received.body[-5:]) + END

    upstream.default, before = slowly, upstream.default
    try:
        pieces = [bytes(100_000), b"piece", b"-last"]
        headers = {"authorization": "Bearer may-0123456789abcdef"}
        with gateway.client.stream("POST", "/v1/files", content=iter(pieces), headers=headers) as answer:
            got = answer.iter_raw()
            assert next(got) == b"first", "while the rest is not there yet"
            gate.open()
            assert b"".join(got) == b"-last"
        assert upstream.requests[-1].body == b"".join(pieces)
        assert upstream.requests[-1].header("transfer-encoding") == "chunked"
    finally:
        upstream.default = before


def test_a_dry_run_goes_nowhere(gateway: Gateway, upstream: Upstream) -> None:
    """It calls nobody, here too; nor is it a way around limits."""
    refused = ask(gateway, "POST", "/files", content=b"x", headers={"x-gateway-dry-run": "true"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x-gateway-dry-run")
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("status", "seen"), [(400, 400), (404, 404), (429, 429), (500, 500), (401, 502), (403, 502), (302, 502), (204, 204)]
)
def test_statuses(gateway: Gateway, upstream: Upstream, status: int, seen: int) -> None:
    body = b"" if status == 204 else b'{"error": {"message": "its own words"}}'
    upstream.script("", lambda _: [http(status, body)])
    answer = ask(gateway, "POST", "/files")
    assert answer.status_code == seen
    if seen == 502:
        assert answer.json()["error"]["type"] == "upstream_error"
        assert "its own words" not in answer.text
    else:
        assert answer.content == body


def test_what_breaks_off_is_seen_to_break_off(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("", lambda _: [CUT])
    assert ask(gateway, "POST", "/files").status_code == 502
    upstream.script("", lambda _: [stream_head() + chunked(b"some"), 0.05, CUT])
    with pytest.raises(httpx.RemoteProtocolError):
        ask(gateway, "POST", "/files")


def test_a_client_that_reads_nothing_holds_nothing(tmp_path: Path, upstream: Upstream) -> None:
    """Its place among the requests under way, and the upstream's connection, are free again."""

    def large(_: Received) -> Iterator[Step]:
        yield stream_head({"content-type": "application/jsonl"})
        yield from [chunked(bytes(256 * 1024))] * 100
        yield STALL

    upstream.script("", large)
    request = b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n"
    request += b"authorization: Bearer may-0123456789abcdef\r\n\r\n"
    routes = ROUTES.replace("@BASE@", upstream.base_url) + "defaults: {timeout: {idle: 3s}}\n"
    with Gateway(tmp_path, routes) as other, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", other.port))
        client.sendall(request)
        (row,) = other.wait_rows(1)
        (attempt,) = other.rows("SELECT * FROM attempts")
        assert upstream.requests[-1].gone.wait(60)
    assert (row["outcome"], row["status"]) == ("cancelled", 200)
    assert (attempt["result"], attempt["detail"]) == ("cancelled", "the client did not read its answer")


@pytest.mark.parametrize("path", ["/batches", "/realtime", "/vector_stores/vs_1", "/files/a/content"])
def test_what_is_postponed_says_so(gateway: Gateway, path: str) -> None:
    answer = ask(gateway, "POST", path)
    assert answer.status_code == 404
    assert "is postponed" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "headers", "said"),
    [
        ("/messages/batches", {}, "is postponed"),
        ("/messages/batches/msgbatch_1/results", {}, "is postponed"),
        ("/messages/nothing", {}, "There is no"),
        ("/files", {"anthropic-version": "2023-06-01"}, "may not use"),
        ("/models/nothing", {"anthropic-version": "2023-06-01"}, "There is no model"),
    ],
)
def test_anthropics_clients_are_told_in_their_words(
    gateway: Gateway, path: str, headers: dict[str, str], said: str
) -> None:
    answer = ask(gateway, "GET", path, "all-models", headers=headers)
    assert answer.json()["type"] == "error"
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "said"), [("resp_1", "not kept here"), ("compact", "There is no"), ("input_tokens", "no")]
)
def test_what_is_below_responses(gateway: Gateway, path: str, said: str) -> None:
    answer = ask(gateway, "POST", f"/responses/{path}")
    assert answer.status_code == 404
    assert said in answer.json()["error"]["message"]


def test_without_keys_the_list_is_enough(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Upstream(replies.raw(http(200, b"{}"))) as upstream:
        routes = ROUTES[: ROUTES.index("budgets:")].replace("@BASE@", upstream.base_url)
        with Gateway(tmp_path_factory.mktemp("anybody"), routes) as gateway:
            assert gateway.client.get("/v1/files").status_code == 200
            assert gateway.client.get("/v1/batches").status_code == 404
