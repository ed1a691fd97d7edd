"""Vercel's AI SDK in its own locked environment, against a gateway with real models and documented exchanges.

Its guide is run here and not by tests/test_docs.py, which has no such environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests import replies
from tests.compatibility import Suite, check
from tests.dialects import CALLS, NAMES, models, providers, replay
from tests.e2e.test_clients import KEY, ROOT, home
from tests.servers import Gateway, until
from tests.test_docs import Block, blocks, here
from tests.tool_model import tool_model
from tests.upstream import Upstream

ROUTES = """
version: 1
providers:
  embedded: {dialect: local, threads: 1, parallel: 1}
  tools: {base_url: "@TOOLS@", server: llamacpp}
  loop: {base_url: "@BASE@"}
@DIALECTS@
models:
  smol: {provider: embedded, hosting: self, price: {usd_per_hour: 0.05, tokens_per_second: {input: 300, output: 90}}}
  tools: {provider: tools, hosting: self, price: unmetered, set: {parallel_tool_calls: false}}
  scripted: {provider: loop, model: scripted-up, price: unmetered}
  broken: {provider: loop, model: broken-up, price: unmetered}
  cut: {provider: loop, model: cut-up, price: unmetered}
@DIALECT_MODELS@
routes:
  - {name: default, match: {model: auto}, use: [smol]}
keys:
  - {name: suite, value: "${KEY}"}
"""
CLIENT = "Vercel AI SDK 7"
TALKS = ("/chat/completions", "/responses")
compatible = pytest.mark.compatible
pytestmark = pytest.mark.full
GUIDE = "docs/clients/vercel-ai.md"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Upstream(replies.ok()) as upstream, Upstream(replay) as exchanges, tool_model() as tools:
        upstream.always("broken-up", replies.status(500))
        upstream.always("cut-up", replies.cut_after(2))
        upstream.script("scripted-up", replies.tool_call())
        routes = ROUTES.replace("@BASE@", upstream.base_url).replace("@TOOLS@", tools)
        routes = routes.replace("@DIALECTS@", providers(exchanges.port)).replace("@DIALECT_MODELS@", models())
        with Gateway(tmp_path_factory.mktemp("vercel"), routes, env={"KEY": KEY}) as gateway:
            bearer = {"authorization": f"Bearer {KEY}"}
            until("the embedded model", lambda: gateway.chat("smol", headers=bearer, max_tokens=1).is_success, 60)
            yield gateway


def node(arguments: list[str], directory: Path, given: Mapping[str, str]) -> str:
    """What it printed."""
    (directory / "node_modules").symlink_to(home("vercel-ai") / "node_modules")  # where imports are looked for
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **given}
    ended = subprocess.run(
        ["node", *arguments], env=env, cwd=directory, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, f"{ended.stdout[-6000:]}\n{ended.stderr[-3000:]}"
    return ended.stdout


@compatible(client=CLIENT, endpoint=TALKS, system=("smollm2", *NAMES), how=("whole", "streamed"))
@compatible(client=CLIENT, endpoint=TALKS, system=("smollm2", *CALLS), how="tools")
@compatible(client=CLIENT, endpoint="/embeddings", system="smollm2", how="whole")
def test_vercel_ai(served: Gateway, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    shutil.copy(ROOT / "tests/clients/vercel-ai/vercel-ai.test.mjs", tmp_path)
    given = {"GATEWAY_URL": f"{served.url}/v1", "GATEWAY_KEY": KEY}
    given |= {"GATEWAY_DIALECTS": ",".join(NAMES), "GATEWAY_CALLS": ",".join(CALLS)}
    began = time.time()
    command = ["--test", "--test-concurrency=1", "--test-reporter=tap", "vercel-ai.test.mjs"]
    assert "# pass" in node(command, tmp_path, given)  # it ran something
    check(Suite(request.node, served, began, {"embedded": "smollm2", "tools": "smollm2"}))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("guide"), (ROOT / "routes.yaml").read_text()) as gateway:
        until("the embedded model", lambda: gateway.chat("auto", max_tokens=1).is_success, 60)
        yield gateway


@pytest.mark.parametrize("block", [*blocks(GUIDE, (ROOT / GUIDE).read_text())], ids=str)
def test_the_guide(block: Block, shipped: Gateway, tmp_path: Path) -> None:
    (tmp_path / "example.mjs").write_text(here(block.code, shipped))
    assert node(["example.mjs"], tmp_path, {})
