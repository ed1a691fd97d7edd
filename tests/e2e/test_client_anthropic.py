"""Anthropic's Python SDK in its own locked environment, against a gateway with the real embedded model."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests import replies
from tests.compatibility import Suite, check
from tests.dialects import CALLS, NAMES, models, providers, replay
from tests.e2e.test_clients import KEY, ROOT, home
from tests.servers import Gateway, until
from tests.upstream import Upstream

ROUTES = """
version: 1
providers:
  embedded: {dialect: local, threads: 1, parallel: 2}
  loop: {base_url: "@BASE@"}
@DIALECTS@
models:
  smol: {provider: embedded, hosting: self, price: {usd_per_hour: 0.05, tokens_per_second: {input: 300, output: 90}}}
  prefill: {provider: embedded, model: smol, hosting: self, price: unmetered, supports: [prefill]}
  loop: {provider: loop, model: loop-up, price: {input: 1, output: 2}}
  spent: {provider: loop, model: spent-up, price: {input: 1, output: 2}}
  forbidden: {provider: loop, price: unmetered}
  broken: {provider: loop, model: broken-up, price: unmetered}
  cut: {provider: loop, model: cut-up, price: unmetered}
  tools: {provider: loop, model: tools-up, price: unmetered}
  thinker: {provider: loop, model: thinker-up, price: unmetered}
@DIALECT_MODELS@
routes:
  - {name: default, match: {model: auto}, use: [smol], baseline: loop}
budgets:
  - {name: tiny, match: {model: spent}, limit_usd: 0.0000001, window: total}
keys:
  - name: suite
    value: "${KEY}"
    allow: [auto, prefill, smol, loop, spent, broken, cut, tools, thinker, "smoll", @MORE@]
"""
compatible = pytest.mark.compatible


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Upstream(replies.ok()) as upstream, Upstream(replay) as exchanges:
        upstream.always("broken-up", replies.status(500))
        upstream.always("cut-up", replies.cut_after(2))
        upstream.always("tools-up", replies.tool_call())
        upstream.always("thinker-up", replies.reasoning())
        routes = ROUTES.replace("@BASE@", upstream.base_url).replace("@DIALECTS@", providers(exchanges.port))
        routes = routes.replace("@DIALECT_MODELS@", models()).replace("@MORE@", ", ".join(NAMES))
        with Gateway(tmp_path_factory.mktemp("anthropic"), routes, env={"KEY": KEY}) as gateway:
            bearer = {"authorization": f"Bearer {KEY}"}
            until("the embedded model", lambda: gateway.chat("smol", headers=bearer, max_tokens=1).is_success)
            yield gateway


@compatible(client="anthropic 2 (Python)", endpoint="/messages", system=("smollm2", *NAMES), how=("whole", "streamed"))
@compatible(client="anthropic 2 (Python)", endpoint="/messages", system=(*CALLS,), how="tools")
@compatible(client="anthropic 2 (Python)", endpoint="/messages/count_tokens", system="smollm2", how="whole")
def test_anthropic_python(served: Gateway, request: pytest.FixtureRequest) -> None:
    client = home("anthropic-python")
    suite = "tests/clients/anthropic-python"
    command = [str(client / "bin/python"), "-m", "pytest", "-q", "-c", f"{suite}/pytest.ini", "-p", "no:cacheprovider"]
    given = {"GATEWAY_URL": f"{served.url}/v1", "GATEWAY_KEY": KEY}
    given |= {"GATEWAY_DIALECTS": ",".join(NAMES), "GATEWAY_CALLS": ",".join(CALLS)}
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **given}
    began = time.time()
    ended = subprocess.run(
        [*command, suite], env=env, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, f"{ended.stdout[-6000:]}\n{ended.stderr[-3000:]}"
    assert "passed" in ended.stdout  # it ran something
    check(Suite(request.node, served, began, {"embedded": "smollm2"}))
    rows = until("its last rows", lambda: served.rows("SELECT * FROM requests WHERE requested_model = 'spent'"))
    assert [(row["status"], row["rejection"]) for row in rows] == [(429, "budget")], "a spent budget is asked once"
