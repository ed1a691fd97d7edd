"""The admin API: off without a token, and what it changes is in force and on record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.stores.audit import Change
from gateway.stores.keys import StoredKey, create
from gateway.stores.schema import connect
from tests import replies
from tests.replies import Tokens
from tests.servers import Gateway, until
from tests.upstream import Upstream

TOKEN = "admin-0123456789abcdef"
ROUTES = """
version: 1
providers:
  up: {base_url: "@BASE@"}
models:
  m: {provider: up, model: m-up, price: {input: 0, output: 100000}}
  n: {provider: up, model: n-up, price: {input: 0, output: 100000}}
routes:
  - {name: pair, match: {model: pair}, use: [m], fallback: [n]}
budgets:
  - {name: b, limit_usd: 2, window: total}
  - {name: teams, limit_usd: 100, per: team}
keys:
  - {name: declared, value: "declared-0123456789", team: core}
"""
BEARER = {"authorization": "Bearer declared-0123456789"}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok(tokens=Tokens(output=10))) as server:
        yield server


@pytest.fixture(params=["1", "2"], ids=["one process", "two workers"])
def gateway(tmp_path: Path, upstream: Upstream, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    routes = ROUTES.replace("@BASE@", upstream.base_url)
    given = {"args": ["--workers", request.param], "env": {"GATEWAY_ADMIN_TOKEN": TOKEN}}
    with Gateway(tmp_path, routes, **given) as started:  # type: ignore[arg-type]  # keywords of several types
        yield started


def admin(gateway: Gateway, method: str, path: str, **more: Any) -> httpx.Response:
    return gateway.ops.request(method, f"/admin{path}", headers={"authorization": f"Bearer {TOKEN}"}, **more)


def ask(gateway: Gateway, model: str = "m", bearer: str = "declared-0123456789") -> httpx.Response:
    return gateway.chat(model, headers={"authorization": f"Bearer {bearer}"}, max_tokens=10)


def test_it_is_off_without_a_token_and_shut_with_a_wrong_one(gateway: Gateway, tmp_path: Path) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}, BEARER):
        answer = gateway.ops.get("/admin/keys", headers=headers)
        assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
    assert gateway.client.get("/admin/keys", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 401
    (tmp_path / "off").mkdir()
    with Gateway(tmp_path / "off", gateway.routes.read_text()) as other:
        assert other.ops.get("/admin/keys").status_code == 404


def test_a_token_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, ROUTES.replace("@BASE@", "http://127.0.0.1:9/v1"), env={"GATEWAY_ADMIN_TOKEN": "admin"})
    assert gateway.run_to_end() == 1
    assert "GATEWAY_ADMIN_TOKEN is too short" in gateway.log


def test_keys(gateway: Gateway) -> None:
    made = admin(gateway, "POST", "/keys", json={"name": "ci", "team": "core", "reason": "a pipeline"})
    assert made.status_code == 201
    value = made.json()["value"]
    until("it opens", lambda: opens(gateway, value) == 200)
    assert admin(gateway, "POST", "/keys", json={"name": "ci"}).status_code == 409
    new = admin(gateway, "POST", "/keys/ci/rotate", json={"overlap_seconds": 60}).json()["value"]
    until("the new one opens", lambda: opens(gateway, new) == 200)
    assert opens(gateway, value) == 200
    assert admin(gateway, "POST", "/keys/ci/revoke").json() == {"name": "ci", "revoked": 2}
    until("they end", lambda: {opens(gateway, each) for each in (value, new)} == {401})
    listed = admin(gateway, "GET", "/keys?all=true")
    assert [row["name"] for row in listed.json()["keys"]] == ["declared", "ci", "ci"]
    assert value not in listed.text
    changes = admin(gateway, "GET", "/audit").json()["changes"]
    assert [(each["what"], each["who"]) for each in changes] == [
        (f"keys.{what}", "admin:127.0.0.1") for what in ("revoke", "rotate", "create")
    ]
    assert changes[-1]["reason"] == "a pipeline"
    assert value not in str(changes)


def test_a_key_that_ends_beyond_the_calendar_stops_nothing(gateway: Gateway) -> None:
    """Here it is refused; one that an earlier release let in is shown, and keys go on being looked at."""
    for beyond in ("9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"):
        refused = admin(gateway, "POST", "/keys", json={"name": "late", "expires": beyond})
        assert (refused.status_code, "must be a date" in refused.text) == (400, True)
    with closing(connect(gateway.directory / "gateway.db", busy_seconds=5)) as connection:
        made = StoredKey(b"x" * 32, "late", {}, 1.8e9, expires=253402343999.0)
        create(connection, made, Change(1.8e9, "test", "keys.create", "late"))
    states = {row["name"]: row["state"] for row in admin(gateway, "GET", "/keys").json()["keys"]}
    assert states["late"].startswith("opens until 9999")
    value = admin(gateway, "POST", "/keys", json={"name": "next"}).json()["value"]
    until("a key that is made later opens", lambda: opens(gateway, value) == 200)
    admin(gateway, "POST", "/keys/next/revoke")
    until("and ends", lambda: opens(gateway, value) == 401)


def opens(gateway: Gateway, key: str) -> int:
    return gateway.client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code


def test_budgets(gateway: Gateway) -> None:
    assert [ask(gateway).status_code for _ in range(2)] == [200, 200]
    until("both are settled", lambda: budget(gateway)["settled_usd"] == 2.0)
    assert ask(gateway).status_code == 429
    refused = admin(gateway, "POST", "/budgets/b/reset", json={})
    assert (refused.status_code, "reason" in refused.text) == (400, True)
    adjusted = admin(gateway, "POST", "/budgets/b/adjust", json={"by_usd": -1.5, "reason": "a refund"}).json()
    assert (adjusted["before_usd"], adjusted["settled_usd"]) == (2.0, 0.5)
    until("it is let in again", lambda: ask(gateway).status_code == 200)
    scoped = admin(gateway, "POST", "/budgets/teams/reset", json={"scope": "core", "reason": "new quarter"})
    assert scoped.json()["settled_usd"] == 0.0
    assert admin(gateway, "POST", "/budgets/teams/reset", json={"reason": "x"}).status_code == 400
    assert admin(gateway, "POST", "/budgets/nobody/reset", json={"reason": "x"}).status_code == 404
    for much in ("much", "1e400", "1e999999", "NaN", "-Infinity", 1e10, None, True):
        assert admin(gateway, "POST", "/budgets/b/adjust", json={"by_usd": much, "reason": "x"}).status_code == 400
    for scope in ("\ud800", "x" * 1000):
        asked = {"by_usd": 1, "reason": "x", "scope": scope}
        assert admin(gateway, "POST", "/budgets/teams/adjust", content=json.dumps(asked)).status_code == 400
    latest = admin(gateway, "GET", "/audit?limit=2").json()["changes"]
    assert [(each["what"], each["subject"], each["reason"]) for each in latest] == [
        ("budgets.reset", "teams", "new quarter"),
        ("budgets.adjust", "b", "a refund"),
    ]
    assert latest[1]["before"]["settled_usd"] == 2.0
    assert latest[1]["after"]["settled_usd"] == 0.5


def budget(gateway: Gateway) -> dict[str, Any]:
    rows = admin(gateway, "GET", "/budgets").json()["budgets"]
    return next(row for row in rows if row["budget"] == "b")


def test_breakers(gateway: Gateway) -> None:
    opened = admin(gateway, "POST", "/breakers", json={"model": "m", "state": "open", "reason": "maintenance"})
    assert opened.json()["state"] == "open"
    until("it is known", lambda: ask(gateway, "pair").headers["x-gateway-model"] == "n")
    states = {row["model"]: row for row in admin(gateway, "GET", "/breakers").json()["breakers"]}
    assert (states["m"]["state"], states["m"]["blocked"]) == ("open", "breaker open: opened by hand")
    assert gateway.metric("gateway_breaker_state", model="m") == 2
    admin(gateway, "POST", "/breakers", json={"model": "m", "state": "closed"})
    admin(gateway, "POST", "/budgets/b/reset", json={"reason": "go on"})
    until("it is back", lambda: ask(gateway, "pair").headers.get("x-gateway-model") == "m")
    assert admin(gateway, "POST", "/breakers", json={"model": "nobody", "state": "open"}).status_code == 404
    assert admin(gateway, "POST", "/breakers", json={"model": "m", "state": "ajar"}).status_code == 400


def test_what_cannot_be_recorded_changes_nothing(gateway: Gateway) -> None:
    """Every change is a row of the audit trail: one whose row cannot be written is not made."""
    unfit: list[Any] = ["\ud800", "x\0y", "x" * 1001, 5]
    for asked in [json.dumps({"model": "m", "state": "open", "reason": reason}) for reason in unfit]:
        assert admin(gateway, "POST", "/breakers", content=asked).status_code == 400
    for asked in ["{", *(json.dumps({"reason": reason}) for reason in unfit)]:
        assert admin(gateway, "POST", "/config/reload", content=asked).status_code == 400
    for path, more in (("budgets/b/adjust", {"by_usd": 1}), ("budgets/b/reset", {}), ("keys", {"name": "k"})):
        for reason in unfit:
            answer = admin(gateway, "POST", f"/{path}", content=json.dumps({**more, "reason": reason}))
            assert answer.status_code == 400, (path, reason)
    for number in ("[0, [1, 2], 0]", "1e99999999999999999999"):
        asked = f'{{"by_usd": {number}, "reason": "x"}}'
        assert admin(gateway, "POST", "/budgets/b/adjust", content=asked).status_code == 400
    with closing(connect(gateway.directory / "gateway.db", busy_seconds=5)) as connection:
        connection.execute("ALTER TABLE audit RENAME TO elsewhere")
        kept_out = admin(gateway, "POST", "/breakers", json={"model": "m", "state": "open"})
        connection.execute("ALTER TABLE elsewhere RENAME TO audit")
    assert (kept_out.status_code, kept_out.json()["error"]["code"]) == (503, "store_unavailable")
    assert {row["state"] for row in admin(gateway, "GET", "/breakers").json()["breakers"]} == {"closed"}
    assert admin(gateway, "GET", "/audit").json()["changes"] == []
    assert "a defect" not in gateway.log


def test_configuration_requests_and_decisions(gateway: Gateway) -> None:
    assert ask(gateway, "pair").status_code == 200
    config = admin(gateway, "GET", "/config").json()
    assert (config["file"], config["budgets"]) == ("routes.yaml", ["b", "teams"])
    assert "declared-0123456789" not in str(config)
    gateway.routes.write_text(gateway.routes.read_text().replace("limit_usd: 2", "limit_usd: 3"))
    reloaded = admin(gateway, "POST", "/config/reload")
    assert reloaded.json()["result"] in ("ok", "unchanged"), "the watch on the file may have been faster"
    gateway.routes.write_text("version: 7")
    assert admin(gateway, "POST", "/config/reload").status_code == 409
    until("the row is written", lambda: len(admin(gateway, "GET", "/requests?outcome=ok").json()["requests"]) == 1)
    (row,) = admin(gateway, "GET", "/requests?team=core&limit=5").json()["requests"]
    assert (row["route"], row["model"], row["key"]) == ("pair", "m", "declared")
    assert admin(gateway, "GET", "/requests?content=x").status_code == 400
    assert admin(gateway, "GET", "/requests?limit=0").status_code == 400
    body = {"model": "pair", "messages": [{"role": "user", "content": "x"}]}
    told = admin(gateway, "POST", "/explain?key=declared", json=body).json()
    assert [target["model"] for target in told["targets"]] == ["m", "n"]
    touched = {(row["budget"], row["scope"]): row for row in told["budgets"]["touched"]}
    assert touched["b", "all"]["limit_usd"] == 3.0
    assert touched["b", "all"]["settled_usd"] == 1.0
    assert admin(gateway, "POST", "/explain?key=nobody", json=body).status_code == 404
    assert admin(gateway, "POST", "/keys", content=b"[1]").status_code == 400


def test_what_is_not_there_is_an_error_like_any_other(gateway: Gateway) -> None:
    there_not = admin(gateway, "GET", "/nothing")
    assert (there_not.status_code, there_not.json()["error"]["type"]) == (404, "invalid_request_error")
    no_method = admin(gateway, "DELETE", "/keys")
    assert (no_method.status_code, set(no_method.headers["allow"].split(", "))) == (405, {"GET", "HEAD", "POST"})
    assert no_method.json()["error"].keys() == {"message", "type", "param", "code"}
    assert admin(gateway, "GET", "/keys?all=perhaps").status_code == 400
    unknown = admin(gateway, "POST", "/explain", json={"model": "nobody", "messages": [{}]})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


def test_every_path_is_described(gateway: Gateway) -> None:
    document = admin(gateway, "GET", "/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in set(methods) - {"parameters"}:
            answer = admin(
                gateway, method.upper(), path.replace("{name}", "nobody"), json={} if method == "post" else None
            )
            assert answer.status_code != 405, (method, path)
            assert answer.status_code in (200, 400, 404, 409), (method, path, answer.text)
            assert str(answer.status_code) in methods[method]["responses"]
