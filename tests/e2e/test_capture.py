"""Content capture: off unless a route says so, redacted, bounded, for a time, and read back by whoever has the file."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.stores.content import prune, read
from tests import replies
from tests.servers import BIN, Gateway, until
from tests.upstream import Upstream

KEY = "sk-proj-" + "abcDEF0123456789" * 3
ROUTES = """
version: 1
providers: {up: {base_url: "@BASE@"}}
models: {a: {provider: up, model: a-up, price: {input: 1, output: 2}}}
routes:
  - {name: kept, match: {model: kept}, use: [a], capture: true}
  - {name: small, match: {model: small}, use: [a], capture: {max_bytes: 1024, keep: 1h}}
  - {name: brief, match: {model: brief}, use: [a], capture: {keep: 1s}}
  - {name: off, match: {model: not-kept}, use: [a]}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok()) as server:
        yield server


@pytest.fixture(scope="module", params=["1", "2"], ids=["one process", "two workers"])
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: Upstream, request: pytest.FixtureRequest
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("capture")
    args = ["--workers", request.param]
    with Gateway(folder, ROUTES.replace("@BASE@", upstream.base_url), args=args) as started:
        yield started


def ledger(gateway: Gateway, *args: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN), "ledger", *args, "--config", str(gateway.routes)]
    return subprocess.run(command, capture_output=True, text=True, env=gateway.env, timeout=60, check=False)


def id_of(gateway: Gateway, number: str) -> str:
    query = "SELECT id FROM requests WHERE client_request_id = ?"
    return str(until("the row", lambda: gateway.rows(query, number))[0]["id"])


def test_a_prompt_and_its_streamed_answer_without_the_secrets(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", replies.ok(f"Your key {KEY} works"))
    number = f"kept-{gateway.port}"
    messages = [{"role": "user", "content": f"My key is {KEY} and Authorization: Bearer {'x1' * 20}"}]
    answer = gateway.chat("kept", stream=True, messages=messages, headers={"x-request-id": number})
    assert KEY in answer.text, "the client gets what the model said"
    shown = ledger(gateway, "content", id_of(gateway, number), "--json")
    assert shown.returncode == 0, shown.stderr
    kept = json.loads(shown.stdout)
    assert json.loads(kept["prompt"])["messages"][0]["content"] == (
        "My key is [redacted] and Authorization: Bearer [redacted]"
    )
    assert json.loads(kept["answer"])["streamed"][0]["content"] == "Your key [redacted] works"
    assert (kept["redacted"], kept["answer_bytes"]) == (3, len(answer.content))
    assert kept["expires"] - kept["at"] == pytest.approx(7 * 86_400, abs=60)
    assert "Your key [redacted] works" in ledger(gateway, "content", id_of(gateway, number)).stdout
    everything = b"".join(path.read_bytes() for path in gateway.directory.glob("gateway.db*"))
    assert KEY.encode() not in everything
    assert KEY not in gateway.log


def test_a_whole_answer_and_its_size(gateway: Gateway) -> None:
    number = f"small-{gateway.port}"
    messages = [{"role": "system", "content": "word " * 50_000}, {"role": "user", "content": "The question."}]
    answer = gateway.chat("small", messages=messages, headers={"x-request-id": number})
    kept = json.loads(ledger(gateway, "content", id_of(gateway, number), "--json").stdout)
    assert "bytes left out" in kept["prompt"]
    assert "The question." in kept["prompt"]
    assert len(kept["prompt"]) < 1100
    assert kept["prompt_bytes"] > 250_000
    assert json.loads(kept["answer"]) == answer.json()


def test_nothing_is_kept_where_nobody_asked_for_it(gateway: Gateway) -> None:
    for model in ("not-kept", "a"):
        gateway.chat(model, headers={"x-request-id": f"{model}-{gateway.port}"})
        found = ledger(gateway, "content", id_of(gateway, f"{model}-{gateway.port}"))
        assert (found.returncode, found.stdout) == (1, "")
        assert "its route has no `capture:`" in found.stderr


def test_what_has_had_its_time_is_gone(gateway: Gateway) -> None:
    number = f"brief-{gateway.port}"
    gateway.chat("brief", messages=[{"role": "user", "content": "remember zanzibar"}], headers={"x-request-id": number})
    request = id_of(gateway, number)
    path = gateway.directory / "gateway.db"
    until("its end", lambda: read(path, request, time.time()) is None)
    prune(path, time.time())
    assert gateway.rows("SELECT * FROM content WHERE request_id = ?", request) == []


def test_it_is_pruned_while_nobody_asks(tmp_path: Path, upstream: Upstream) -> None:
    """What was there at the start, and is over: the gateway looks at once, and then every half minute."""
    routes = ROUTES.replace("@BASE@", upstream.base_url)
    with Gateway(tmp_path, routes) as gateway:
        gateway.chat("brief", headers={"x-request-id": "b"})
        id_of(gateway, "b")
        until("it was kept", lambda: gateway.rows("SELECT * FROM content"))
        until("its end", lambda: read(tmp_path / "gateway.db", id_of(gateway, "b"), time.time()) is None)
        gateway.restart()
        until("it is gone", lambda: not gateway.rows("SELECT * FROM content"))


def test_check_says_that_content_is_stored(gateway: Gateway) -> None:
    command = [str(BIN), "check", "--strict", "--config", str(gateway.routes)]
    found = subprocess.run(command, capture_output=True, text=True, env=gateway.env, timeout=60, check=False)
    assert found.returncode == 0, "it is meant so: no reason to fail"
    assert "route small stores prompts and answers" in found.stdout
    assert "route small stores prompts and answers" in gateway.log
    assert "route off" not in found.stdout


def test_list_and_show(gateway: Gateway) -> None:
    gateway.chat("not-kept", headers={"x-request-id": f"shown-{gateway.port}"})
    request = id_of(gateway, f"shown-{gateway.port}")
    listed = json.loads(ledger(gateway, "list", "--route", "off", "--json").stdout)
    assert listed[0]["id"] == request
    assert {row["route"] for row in listed} == {"off"}
    assert request in ledger(gateway, "list").stdout
    shown = json.loads(ledger(gateway, "show", request, "--json").stdout)
    assert (shown["id"], shown["attempts"][0]["model"]) == (request, "a")
    assert "Attempts" in ledger(gateway, "show", request).stdout
    assert ledger(gateway, "show", "req_nosuch").returncode == 1
    assert ledger(gateway, "list", "--limit", "0").returncode == 2
