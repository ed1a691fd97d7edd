"""Each recipe of docs/cookbook.md does what it says: served by a real gateway that is reloaded from one to the next.

The hosts of the files are loopback servers here. tests/test_docs.py has `gateway check` of each file as it stands.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.config import load
from tests import replies
from tests.servers import BIN, Gateway, until
from tests.transcript import FENCE
from tests.upstream import Received, Upstream
from tests.upstream import Step as Sent

PAGE = Path(__file__).parent.parent / "docs/cookbook.md"
ENV = {  # the recipes have no secrets in them
    "OPENAI_API_KEY": "sk-cookbook-0123456789",
    "LAB_KEY": "lab-0123456789abcdef",
    "WEB_KEY": "web-0123456789abcdef",
}
HOSTS = ("vllm", "vllm-0", "vllm-1", "vllm-2", "vllm-spare", "closed")


def serves(received: Received) -> Iterator[Sent]:
    if received.method == "GET":
        yield replies.http(200, json.dumps({"data": [{"id": "Qwen/Qwen3-32B"}, {"id": "gpt-5"}]}).encode())
    else:
        yield from replies.ok()(received)


class Kitchen:
    """A gateway, and a server for each host that the recipes name."""

    def __init__(self, gateway: Gateway, servers: dict[str, Upstream]) -> None:
        self.gateway = gateway
        self.servers = servers

    def here(self, text: str) -> str:
        for name, server in self.servers.items():
            address = "https://api.openai.com/v1" if name == "closed" else f"http://{name}:8000/v1"
            text = text.replace(address, server.base_url)
        return text

    def cook(self, text: str) -> None:
        """Puts a recipe in force."""
        for server in self.servers.values():
            server.forget()
        self.gateway.reload(self.here(text))
        wanted = load(self.gateway.routes, self.gateway.env).hash
        until("the recipe to be in force", lambda: self.gateway.metric("gateway_config_info", hash=wanted) == 1)

    def ask(self, text: str = "Hello.", *, model: str = "auto", system: str = "", **headers: str) -> httpx.Response:
        messages = [{"role": "user", "content": text}]
        messages = [{"role": "system", "content": system}, *messages] if system else messages
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        body = {"model": model, "messages": messages, "max_tokens": 20}
        return self.gateway.post(json=body, headers=sent)

    def served_by(self, *args: Any, **more: Any) -> str:
        answer = self.ask(*args, **more)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-gateway-model"]


def recipes(title: str) -> list[str]:
    """The files under a heading of the page."""
    section = PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [found[2] for found in FENCE.finditer(section) if found[1] == "yaml"]


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    with contextlib.ExitStack() as running:
        servers = {name: running.enter_context(Upstream(serves)) for name in HOSTS}
        kitchen = Kitchen(Gateway(tmp_path_factory.mktemp("kitchen"), "", env=ENV), servers)
        kitchen.gateway.routes.write_text(kitchen.here(recipes("Move one task at a time")[0]))
        running.enter_context(kitchen.gateway)
        yield kitchen


def test_every_recipe_is_cooked_here() -> None:
    titles = re.findall(r"(?m)^## (.*)$", PAGE.read_text())
    own = Path(__file__).read_text()
    assert [title for title in titles if f'recipes("{title}")' not in own] == []
    assert sum(len(recipes(title)) for title in titles) == PAGE.read_text().count("```yaml\n") == 5


def test_support(kitchen: Kitchen) -> None:
    (recipe,) = recipes("Support on an open model, a closed one behind it")
    kitchen.cook(recipe)
    assert kitchen.served_by(x_app="helpdesk") == "qwen"
    assert kitchen.served_by(system="You are in customer support.") == "qwen"
    assert kitchen.served_by() == kitchen.served_by(model="gpt-4o") == "gpt"
    saved = until("the saving", lambda: kitchen.gateway.metric("gateway_savings_usd_total", task="support"))
    assert saved > 0
    kitchen.servers["vllm"].script("Qwen/Qwen3-32B", replies.status(500), replies.status(500))
    answer = kitchen.ask("Where is my order?", x_app="helpdesk")
    assert (answer.status_code, answer.headers["x-gateway-model"]) == (200, "gpt")
    assert answer.headers["x-gateway-fallback-reason"] == "server_error"


def test_a_hard_budget(kitchen: Kitchen) -> None:
    (recipe,) = recipes("A hard budget for a team")
    kitchen.cook(recipe)
    lab, web = ({"authorization": f"Bearer {name}-0123456789abcdef"} for name in ("lab", "web"))

    def spend(usd: str) -> None:
        command = [str(BIN), "budgets", "adjust", "research", "--by-usd", usd, "--reason", "as if it had been spent"]
        subprocess.run([*command, "--config", str(kitchen.gateway.routes)], env=kitchen.gateway.env, check=True)

    assert kitchen.served_by(**lab) == "gpt"
    spend("455")  # 91%
    until("the team's move to the own server", lambda: kitchen.served_by(**lab) == "qwen")
    assert kitchen.served_by(**web) == "gpt"
    assert kitchen.served_by(model="gpt", **lab) == "gpt"  # who names it still gets it, while there is money
    spend("45")
    until("the end of the money", lambda: kitchen.ask(model="gpt", **lab).status_code == 429)
    refused = kitchen.ask(model="gpt", **lab)
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert refused.headers["x-should-retry"] == "false"
    assert kitchen.served_by(**lab) == "qwen"
    assert kitchen.served_by(model="gpt", **web) == "gpt"


def test_one_task_at_a_time(kitchen: Kitchen, tmp_path: Path) -> None:
    before, after = recipes("Move one task at a time")
    kitchen.cook(before)
    since = time.time()
    asked = ["Extract the dates of: ...", "Summarize this: ...", "Refactor this: ...", "Say hello."]
    answers = [kitchen.ask(text) for text in asked]
    assert [each.headers["x-gateway-task"] for each in answers] == ["extract", "extract", "coding", "default"]
    assert {each.headers["x-gateway-model"] for each in answers} == {"gpt"}
    ids = {each.headers["x-request-id"] for each in answers}
    until("their rows", lambda: ids <= {row["id"] for row in kitchen.gateway.rows()})
    (tmp_path / "next.yaml").write_text(kitchen.here(after))
    moment = datetime.datetime.fromtimestamp(since, datetime.UTC).isoformat()
    command = re.findall(r"gateway (plan --routes next.yaml .*)", PAGE.read_text())[0].replace("7d", moment)
    args = ["--config", str(kitchen.gateway.routes), "--json"]
    planned = subprocess.run(
        ["bash", "-c", f"exec {BIN} {command} {' '.join(args)}"],
        cwd=tmp_path, env=kitchen.gateway.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "qwen" in planned.stdout
    kitchen.cook(after)
    assert [kitchen.served_by(text) for text in asked] == ["qwen", "qwen", "gpt", "gpt"]
    gate = command.replace("next.yaml", str(tmp_path / "back.yaml"))  # the way back costs more: the gate is shut
    (tmp_path / "back.yaml").write_text(kitchen.here(before))
    until("rows of the moved task", lambda: kitchen.gateway.rows("SELECT 1 FROM requests WHERE route = 'extract'"))
    shut = subprocess.run(
        ["bash", "-c", f"exec {BIN} {gate} {' '.join(args)}"], env=kitchen.gateway.env, capture_output=True, check=False
    )
    assert shut.returncode == 1


def test_several_replicas(kitchen: Kitchen) -> None:
    (recipe,) = recipes("Several vLLM replicas")
    kitchen.cook(recipe)
    servers = [kitchen.servers[name] for name in ("vllm-0", "vllm-1", "vllm-2")]
    spare, closed = kitchen.servers["vllm-spare"], kitchen.servers["closed"]
    numbers = iter(range(10_000))

    def other() -> str:
        return kitchen.served_by(f"Question {next(numbers)}")

    assert until("each server to have a part", lambda: other() == "qwen" and all(each.calls for each in servers))
    assert not spare.calls
    kitchen.served_by("One conversation")
    (home,) = [each for each in servers if b"One conversation" in b"".join(call.body for call in each.calls)]
    seen = len(home.calls)
    for _ in range(3):
        kitchen.served_by("One conversation")
    assert len(home.calls) == seen + 3  # it stays where its prompt is
    for each in servers:
        each.default = replies.status(500)
    until("the spare", lambda: other() and spare.calls)
    assert not closed.calls or spare.calls
    spare.default = replies.status(500)
    assert until("the closed model", lambda: other() == "gpt")
    for each in (*servers, spare):
        each.default = serves
