"""Other people's SDKs, each in its own locked environment, against a gateway with the real embedded model.

`scripts/test` makes the environments (.venv-clients/NAME). Without it these tests are skipped; in CI that is a failure.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import replies
from tests.servers import Gateway, until
from tests.upstream import Upstream

ROOT = Path(__file__).parents[2]
KEY = "sk-client-suite-0123456789"
ROUTES = """
version: 1
providers:
  embedded: {dialect: local, threads: 2, parallel: 2}
  loop: {base_url: "@BASE@"}
models:
  smol: {provider: embedded, hosting: self, price: {usd_per_hour: 0.05, tokens_per_second: {input: 300, output: 90}}}
  loop: {provider: loop, model: loop-up, price: {input: 1, output: 2}}
  forbidden: {provider: loop, price: unmetered}
  broken: {provider: loop, model: broken-up, price: unmetered}
  cut: {provider: loop, model: cut-up, price: unmetered}
  tools: {provider: loop, model: tools-up, price: unmetered}
routes:
  - {name: default, match: {model: auto}, use: [smol], baseline: loop}
keys:
  - {name: suite, value: "${KEY}", allow: [auto, smol, loop, broken, cut, tools, "smoll"]}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Upstream(replies.ok()) as upstream:
        upstream.always("broken-up", replies.status(500))
        upstream.always("cut-up", replies.cut_after(2))
        upstream.always("tools-up", replies.tool_call())
        routes = ROUTES.replace("@BASE@", upstream.base_url)
        with Gateway(tmp_path_factory.mktemp("clients"), routes, env={"KEY": KEY}) as gateway:
            bearer = {"authorization": f"Bearer {KEY}"}
            until("the embedded model", lambda: gateway.chat("smol", headers=bearer, max_tokens=1).is_success, 30)
            yield gateway


def home(name: str) -> Path:
    found = ROOT / ".venv-clients" / name
    if not found.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{found} is missing: run scripts/test")
        pytest.skip(f"no {found.relative_to(ROOT)}: scripts/test makes it")
    return found


def run(command: list[str], gateway: Gateway, client_home: Path) -> None:
    given = {"GATEWAY_URL": f"{gateway.url}/v1", "GATEWAY_KEY": KEY, "CLIENT_HOME": str(client_home)}
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **given}
    ended = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, f"{ended.stdout[-6000:]}\n{ended.stderr[-3000:]}"
    assert "passed" in ended.stdout or "# pass" in ended.stdout  # it ran something


def test_openai_python(served: Gateway) -> None:
    client = home("openai-python")
    suite = "tests/clients/openai-python"
    python = str(client / "bin/python")
    run([python, "-m", "pytest", "-q", "-c", f"{suite}/pytest.ini", "-p", "no:cacheprovider", suite], served, client)


def test_openai_node(served: Gateway) -> None:
    client = home("openai-node")
    suite = "tests/clients/openai-node/openai.test.mjs"
    run(["node", "--test", "--test-reporter=tap", suite], served, client)
