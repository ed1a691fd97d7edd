"""Who may call, and what with (contract section 1, "Authentication")."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Gateway, until
from tests.upstream import Upstream

from .conftest import SECRET

ALL, SOME, OLD = "sk-all-0123456789abcdef", "sk-some-0123456789abcdef", "sk-old-0123456789abcdef"
KEYS = """
keys:
  - {name: all, value: "${ALL_KEY}", team: platform}
  - {name: some, value: "${SOME_KEY}", team: support, allow: [a, "au*"]}
  - {name: old, value: "${OLD_KEY}", expires: 2020-01-01}
"""
ENV = {"UP_KEY": SECRET, "ALL_KEY": ALL, "SOME_KEY": SOME, "OLD_KEY": OLD}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, routes: str) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("keyed"), routes + KEYS, env=ENV) as started:
        yield started


def bearer(value: str) -> dict[str, str]:
    return {"authorization": f"Bearer {value}"}


@pytest.mark.parametrize("headers", [bearer(ALL), {"x-api-key": ALL}, {"authorization": f"bearer {ALL}"}])
def test_a_good_key(keyed: Gateway, upstream: Upstream, headers: dict[str, str]) -> None:
    before = len(keyed.rows())
    assert keyed.chat("a", headers=headers).status_code == 200
    row = keyed.wait_rows(before + 1)[-1]
    assert (row["key"], row["team"]) == ("all", "platform")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        bearer("sk-wrong-0123456789abc"),
        bearer(ALL + "x"),
        bearer(ALL[:-1]),
        bearer(OLD),
        {"authorization": f"Basic {ALL}"},
    ],
    ids=["none", "empty", "wrong", "longer", "shorter", "expired", "basic"],
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/chat/completions"), ("POST", "/v1/embeddings"), ("GET", "/v1/models")]
)
def test_a_bad_key(keyed: Gateway, upstream: Upstream, headers: dict[str, str], method: str, path: str) -> None:
    answer = keyed.client.request(method, path, headers=headers, json={"model": "a", "messages": []})
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("authentication_error", "invalid_api_key", None)
    assert upstream.requests == []


def test_the_key_decides_before_the_body_is_looked_at(keyed: Gateway, upstream: Upstream) -> None:
    assert keyed.post(content=b"{not json").status_code == 401
    assert upstream.requests == []


def test_the_host_header_decides_nothing(keyed: Gateway, upstream: Upstream) -> None:
    """CVE-2026-48710: a path rebuilt from the Host header must not pass for an open one."""
    content = json.dumps({"model": "a", "messages": [{"role": "user", "content": "x"}]}).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: x/healthz?", "connection: close"]
    head = "\r\n".join([*lines, f"content-length: {len(content)}", "", ""])
    with socket.create_connection(("127.0.0.1", keyed.port), timeout=10) as connection:
        connection.sendall(head.encode() + content)
        assert connection.recv(100).split(b" ")[1] in (b"400", b"401")
    assert upstream.requests == []


def test_allow(keyed: Gateway, upstream: Upstream) -> None:
    assert keyed.chat("a", headers=bearer(SOME)).status_code == 200
    assert keyed.chat("auto", headers=bearer(SOME)).status_code == 200
    answer = keyed.chat("b", headers=bearer(SOME))
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("permission_error", "permission_denied")
    assert len(upstream.requests) == 2


def test_models_are_those_the_key_may_use(keyed: Gateway, upstream: Upstream) -> None:
    listed = keyed.client.get("/v1/models", headers=bearer(SOME)).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["a", "auto"]
    assert all(model.keys() >= {"id", "object", "created", "owned_by"} for model in listed["data"])
    everything = [model["id"] for model in keyed.client.get("/v1/models", headers=bearer(ALL)).json()["data"]]
    assert {"a", "auto", "b", "closed", "pair", "only"} <= set(everything)
    assert "gpt-*" not in everything
    assert keyed.client.get("/v1/models/a", headers=bearer(SOME)).json()["id"] == "a"
    assert keyed.client.get("/v1/models/wild/x", headers=bearer(ALL)).status_code in (200, 404)
    assert keyed.client.get("/v1/models/b", headers=bearer(SOME)).status_code == 404
    assert upstream.requests == []


def test_close_matches_only_among_what_the_key_may_use(keyed: Gateway, upstream: Upstream) -> None:
    answer = keyed.chat("aut", headers=bearer(SOME))
    assert answer.status_code == 404
    assert "auto" in answer.json()["error"]["message"]
    assert "pair" not in keyed.chat("aupair", headers=bearer(SOME)).json()["error"]["message"].replace("aupair", "")
    assert upstream.requests == []


def test_health_needs_no_key_and_operations_are_elsewhere(keyed: Gateway) -> None:
    assert keyed.client.get("/healthz").status_code == 200
    assert keyed.ops.get("/healthz").status_code == 200
    assert keyed.ops.get("/metrics").status_code == 200
    assert keyed.ops.get("/admin/config").status_code == 404


def test_rejections_are_counted_and_keys_are_not_shown(keyed: Gateway) -> None:
    before = keyed.metric("gateway_rejections_total", reason="auth")
    keyed.chat("a", headers=bearer("sk-wrong-0123456789abc"))
    until("one rejection", lambda: keyed.metric("gateway_rejections_total", reason="auth") == before + 1)
    shown = keyed.log + keyed.ops.get("/metrics").text
    assert not any(value in shown for value in (ALL, SOME, OLD, SECRET, "sk-wrong-0123456789abc"))


def test_missing_values_are_never_anonymous(tmp_path: Path, routes: str, upstream: Upstream) -> None:
    missing = routes + 'keys: [{name: ci, value: "${NOT_SET_ANYWHERE}"}]\n'
    with Gateway(tmp_path, missing, env={"UP_KEY": SECRET}) as started:
        for headers in ({}, {"authorization": "Bearer"}, bearer("${NOT_SET_ANYWHERE}")):
            assert started.chat("a", headers=headers).status_code == 401
    assert upstream.requests == []


def test_anonymous_serves_on_loopback_only(tmp_path: Path, routes: str) -> None:
    refused = Gateway(tmp_path, routes, env={"UP_KEY": SECRET}, listen="0.0.0.0")
    assert refused.run_to_end() != 0
    assert "--allow-anonymous" in refused.log
    with Gateway(tmp_path, routes, env={"UP_KEY": SECRET}, listen="0.0.0.0", args=["--allow-anonymous"]) as allowed:
        assert allowed.client.get("/v1/models").status_code == 200
