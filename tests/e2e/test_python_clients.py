"""What is built on OpenAI's SDK, each in its own locked environment, against a gateway with the real embedded model.

`auto` is that model; where a request has tools, it is the same weights behind a template that can call them. Suites are
in tests/clients/NAME, a file for each endpoint. `scripts/test --full` makes their environments and runs them.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from tests import replies
from tests.compatibility import Suite, check
from tests.e2e.test_clients import ROOT, home
from tests.servers import Gateway, until
from tests.test_docs import Block, blocks, here
from tests.tool_model import tool_model
from tests.upstream import Received, Step, Upstream

compatible = pytest.mark.compatible
pytestmark = pytest.mark.full
TALKS, BOTH = ("/chat/completions", "/responses"), ("whole", "streamed")
GUIDES = {f"docs/clients/{name}.md": name for name in ("langchain", "llama-index", "pydantic-ai")}  # and environments

# `set`: what SmolLM2-135M needs to end its sentences, and to call a tool rather than talk (`all` opens talk in its
# template). One thread each: several wait for each other by spinning, which on a busy machine is slower than one.
ROUTES = """
version: 1
providers:
  embedded: {dialect: local, threads: 1, parallel: 2}
  called: {base_url: "@TOOLS@", server: llamacpp}
  loop: {base_url: "@BASE@"}
models:
  smollm2:
    provider: embedded
    hosting: self
    price: &price {usd_per_hour: 0.05, tokens_per_second: {input: 300, output: 50}}
    supports: [json_schema]
    set: {dry_multiplier: 0.8}
  tools:
    provider: called
    hosting: self
    price: *price
    supports: [tools, json_schema]
    set: {tool_choice: required, parallel_tool_calls: false, logit_bias: [[all, false]], dry_multiplier: 0.8}
  agent: {provider: loop, model: agent-up, price: {input: 1, output: 2}}
@BROKEN@
  cut: {provider: loop, model: cut-up, price: unmetered}
tasks:
  coding: {when: [{last_message: "(?i)traceback"}]}
routes:
  - {name: default, match: {model: auto}, use: [smollm2, tools], baseline: agent}
"""
CLIENTS = ("instructor", "langchain", "llama-index", "pydantic-ai")
# One for each suite, that none finds the breaker opened by another.
BROKEN = {
    f"broken-{name}": f"  broken-{name}: {{provider: loop, model: broken-up, price: unmetered}}" for name in CLIENTS
}


def calls_once(received: Received) -> Iterable[Step]:
    """A tool call, and once its result is there, an answer."""
    results = [message for message in received.json["messages"] if message["role"] == "tool"]
    return (replies.ok() if results else replies.tool_call())(received)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Upstream(replies.ok()) as upstream, tool_model() as tools:
        upstream.always("agent-up", calls_once)
        upstream.always("broken-up", replies.status(500))
        upstream.always("cut-up", replies.cut_after(2))
        routes = ROUTES.replace("@BASE@", upstream.base_url).replace("@TOOLS@", tools)
        routes = routes.replace("@BROKEN@", "\n".join(BROKEN.values()))
        with Gateway(tmp_path_factory.mktemp("python-clients"), routes) as gateway:
            until("the embedded model", lambda: gateway.chat("smollm2", max_tokens=1).is_success)
            yield gateway


def run(command: list[str], gateway: Gateway) -> str:
    given = {"GATEWAY_URL": f"{gateway.url}/v1", "GATEWAY_KEY": "any", "NO_PROXY": "127.0.0.1"}
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **given}
    ended = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert ended.returncode == 0, f"{ended.stdout[-12000:]}\n{ended.stderr[-3000:]}"
    return ended.stdout


def run_suite(name: str, gateway: Gateway, test: pytest.Item) -> None:
    """All of it, and nothing that it asked failed in the gateway or behind it: an xfail must not hide that."""
    began = time.time()
    before = rows_until(last_id(gateway), gateway)
    suite = f"tests/clients/{name}"
    python = str(home(name) / "bin/python")
    said = run([python, "-m", "pytest", "-q", "-c", f"{suite}/pytest.ini", "-p", "no:cacheprovider", suite], gateway)
    assert " passed" in said
    rows = rows_until(last_id(gateway), gateway)[len(before) :]
    assert len(rows) > 1, "it asked this gateway"
    failed = [row for row in rows if row["status"] >= 500 and row["requested_model"] not in BROKEN]
    assert failed == []
    check(Suite(test, gateway, began, {"embedded": "smollm2", "called": "smollm2"}))


def last_id(gateway: Gateway) -> str:
    return gateway.chat("agent").headers["x-request-id"]


def rows_until(last: str, gateway: Gateway) -> list[dict[str, Any]]:
    """The ledger's, in the order in which they were written, once this one is there."""

    def all_of_them() -> list[dict[str, Any]]:
        rows = gateway.rows("SELECT * FROM requests ORDER BY rowid")
        return rows if any(row["id"] == last for row in rows) else []

    return until("the last row", all_of_them)


@compatible(client="instructor 1", endpoint=TALKS, system="smollm2", how=(*BOTH, "tools"))
def test_instructor(served: Gateway, request: pytest.FixtureRequest) -> None:
    run_suite("instructor", served, request.node)


@compatible(client="langchain-openai 1", endpoint=TALKS, system="smollm2", how=(*BOTH, "tools"))
@compatible(client="langchain-openai 1", endpoint="/embeddings", system="smollm2", how="whole")
def test_langchain(served: Gateway, request: pytest.FixtureRequest) -> None:
    run_suite("langchain", served, request.node)


@compatible(client="llama-index 0.14", endpoint=(*TALKS, "/completions"), system="smollm2", how=BOTH)
@compatible(client="llama-index 0.14", endpoint=TALKS, system="smollm2", how="tools")
@compatible(client="llama-index 0.14", endpoint="/embeddings", system="smollm2", how="whole")
def test_llama_index(served: Gateway, request: pytest.FixtureRequest) -> None:
    run_suite("llama-index", served, request.node)


@compatible(client="pydantic-ai 2", endpoint=TALKS, system="smollm2", how=(*BOTH, "tools"))
@compatible(client="pydantic-ai 2", endpoint="/embeddings", system="smollm2", how="whole")
def test_pydantic_ai(served: Gateway, request: pytest.FixtureRequest) -> None:
    run_suite("pydantic-ai", served, request.node)


@pytest.mark.parametrize(
    "block", [each for page in GUIDES for each in blocks(page, (ROOT / page).read_text())], ids=str
)
def test_guide(block: Block, served: Gateway) -> None:
    assert block.language == "python"
    python = home(GUIDES[block.page]) / "bin/python"
    assert run([str(python), "-c", here(block.code, served)], served)
