"""Windows that roll under a running gateway, whose clock is set: a team moves to the self-hosted model, and back."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests import replies
from tests.clock import Clock
from tests.replies import Tokens
from tests.servers import BIN, Gateway, until
from tests.upstream import Gate, Upstream

# `closed` costs one dollar a call; `smol` is the embedded open model, on this machine.
ROUTES = """
version: 1
providers:
  embedded: {dialect: local, threads: 1}
  closed: {base_url: "@BASE@"}
models:
  smol: {provider: embedded, hosting: self, price: {usd_per_hour: 0.05, tokens_per_second: {input: 300, output: 90}}}
  closed: {provider: closed, model: closed-up, price: {input: 0, output: 100000}}
routes:
  - {name: answers, match: {model: auto}, use: [closed], fallback: [smol]}
budgets:
  - {name: teams, per: team, limit_usd: 10, window: hour, at: {50%: alert, 90%: prefer_self_hosted}}
keys:
  - {name: ada, value: "ada-0123456789abcdef", team: support}
  - {name: bob, value: "bob-0123456789abcdef", team: search}
"""
ADA, BOB = "ada-0123456789abcdef", "bob-0123456789abcdef"
USD = 10**9


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok(tokens=Tokens(output=10))) as server:
        yield server


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    made = Clock(tmp_path)
    made.into_an_hour(10)
    return made


def ask(gateway: Gateway, key: str = ADA, model: str = "auto") -> httpx.Response:
    return gateway.chat(model, headers={"authorization": f"Bearer {key}"}, max_tokens=10)


def settled(gateway: Gateway, scope: str) -> list[int]:
    """What is settled in each window of a team, in their order."""
    query = "SELECT settled_nano FROM budget_accounts WHERE budget = 'teams' AND scope = ? ORDER BY ends"
    with sqlite3.connect(gateway.directory / "gateway.db") as db:
        return [int(row[0]) for row in db.execute(query, [f"team {scope}"])]


def has_settled(gateway: Gateway, by_window: list[int]) -> bool:
    return settled(gateway, "support") == by_window


def explained(gateway: Gateway, clock: Clock) -> list[str]:
    """The models, in the order in which `gateway explain` would try them for ada."""
    command = [str(BIN), "explain", "--config", str(gateway.routes), "--model", "auto", "--key", "ada"]
    command += ["--prompt", "Say hello.", "--json"]
    ended = subprocess.run(
        command, env={**gateway.env, **clock.env}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return [target["model"] for target in json.loads(ended.stdout)["targets"]]


def test_a_team_at_90_percent_moves_to_the_self_hosted_model_and_back(
    tmp_path: Path, upstream: Upstream, clock: Clock
) -> None:
    with Gateway(tmp_path, ROUTES.replace("@BASE@", upstream.base_url), env=clock.env) as gateway:
        until("the embedded model", lambda: ask(gateway, model="smol").is_success, 60)
        for dollars in range(1, 10):
            answer = ask(gateway)
            assert (answer.status_code, answer.headers["x-gateway-model"]) == (200, "closed")
            until("it is settled", partial(has_settled, gateway, [dollars * USD]))
        assert explained(gateway, clock) == ["smol", "closed"]
        moved = ask(gateway)
        assert (moved.status_code, moved.headers["x-gateway-model"]) == (200, "smol")
        assert "budget teams (team support, hour " in moved.headers["x-gateway-budget"]
        assert "self-hosted models first" in moved.headers["x-gateway-budget"]
        assert moved.json()["choices"][0]["message"]["content"]
        assert moved.json()["usage"]["completion_tokens"] > 0
        assert len(upstream.requests) == 9
        assert ask(gateway, BOB).headers["x-gateway-model"] == "closed", "another team has its own"

        clock.hours_later(1)
        back = ask(gateway)
        assert (back.status_code, back.headers["x-gateway-model"]) == (200, "closed")
        assert "x-gateway-budget" not in back.headers
        assert explained(gateway, clock) == ["closed", "smol"]
        until("it is settled", lambda: settled(gateway, "support") == [9 * USD, USD])

        clock.hours_later(-1)  # a clock that is set back: the window of before, and what was spent in it, counts again
        assert ask(gateway).headers["x-gateway-model"] == "smol"
        assert settled(gateway, "support") == [9 * USD, USD]


def test_a_call_belongs_to_the_window_that_admitted_it(tmp_path: Path, upstream: Upstream, clock: Clock) -> None:
    gate = Gate()
    upstream.script("closed-up", replies.ok(tokens=Tokens(output=10), gate=gate))
    with Gateway(tmp_path, ROUTES.replace("@BASE@", upstream.base_url), env=clock.env) as gateway:
        first = threading.Thread(target=ask, args=(gateway,))
        first.start()
        assert gate.reached.wait(60)
        clock.hours_later(1)
        with httpx.Client(base_url=gateway.url, trust_env=False, timeout=30) as client:
            body = {"model": "auto", "messages": [{"role": "user", "content": "x"}], "max_tokens": 10}
            asked = client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {ADA}"})
            assert asked.status_code == 200
        until("the later call is settled in the later window", lambda: settled(gateway, "support")[1:] == [USD])
        assert settled(gateway, "support")[0] == 0
        gate.open()
        first.join()
        until("the first one in its own", lambda: settled(gateway, "support") == [USD, USD])
