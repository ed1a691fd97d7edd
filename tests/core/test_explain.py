"""The explanation of a decision: complete, JSON-able, and without content."""

from __future__ import annotations

import json

from gateway.core.call import Endpoint, Principal, parse
from gateway.core.explain import explain
from gateway.core.pricing import Machine, Price, Rates, Tier
from gateway.core.routing import Candidate, Match, Model, Route, Rules, Signals, plan
from gateway.core.tasks import classify
from gateway.wire import CODEC

RATES = Rates(1_250_000_000, 125_000_000, 1_250_000_000, 10_000_000_000, 10_000_000_000)
MODELS = (
    Model(
        "qwen",
        "vllm",
        "Qwen/Qwen3-32B",
        "self",
        Price("machine-hour at rated speed", machine=Machine(2_400_000_000, 20000, 2400)),
    ),
    Model("gpt", "openai", "gpt-5", price=Price("price book (2026-10-30)", RATES, (Tier(272_000, RATES),))),
    Model("local", "local", "smollm2", "self", Price("routes.yaml")),
    Model("new", "openai", "gpt-9"),
    Model("asleep", "openai", "gpt-4", disabled="KEY is not set"),
)
RULES = Rules(
    {model.name: model for model in MODELS},
    (),
    (
        Route("support", (Candidate("gpt"),), Match(task=("support",))),
        Route("all", tuple(map(Candidate, ("qwen", "asleep", "local", "new"))), fallback=("gpt",), baseline="gpt"),
    ),
    Route("direct", ()),
)


def test_explain() -> None:
    body = {
        "model": "auto",
        "max_tokens": 100,
        "messages": [{"role": "system", "content": "secret"}, {"role": "user", "content": "secret " * 100}],
        "metadata": {"task": "secret", "tags": "web"},
    }
    call = parse(Endpoint.CHAT, [(b"x-app", b"secret")], json.dumps(body).encode(), CODEC)
    who = Principal("ci", "platform", tags=frozenset({"batch"}))
    task = classify(call, RULES.tasks, known=RULES.known_tasks)
    it = explain(call, plan(RULES, call, task, who, Signals()), who)

    assert json.loads(CODEC.dumps(it)) == it
    assert "secret" not in json.dumps(it)
    assert it["request"] == {
        "model": "auto",
        "endpoint": "/chat/completions",
        "stream": False,
        "has": [],
        "estimated_input": 177,
        "max_output": 100,
        "key": "ci",
        "team": "platform",
        "tags": ["batch", "web"],
    }
    assert it["task"] == {
        "label": "default",
        "confidence": 1.0,
        "why": "no rule holds; metadata.task names no known task",
    }
    assert (it["route"], it["baseline"], it["timeouts"]) == ("all", "gpt", {"total": 300.0})
    assert it["skipped"] == [{"what": "asleep", "why": "disabled: KEY is not set"}]
    assert it["passed_over"] == [{"what": "support", "why": "task is default, not support"}]
    assert [target["model"] for target in it["targets"]] == ["qwen", "local", "new", "gpt"]
    assert {target["health"] for target in it["targets"]} == {"unknown offline"}
    qwen, local, new, gpt = it["targets"]
    assert (qwen["upstream_model"], qwen["provider"], qwen["hosting"]) == ("Qwen/Qwen3-32B", "vllm", "self")
    assert (qwen["price"]["usd_per_hour"], qwen["price"]["source"]) == (2.4, "machine-hour at rated speed")
    assert (local["price"]["unmetered"], local["expected_cost_usd"]) == (True, 0.0)
    assert (new["price"], new["expected_cost_usd"]) == (None, None)
    assert gpt["price"]["usd_per_million_tokens"]["cached_input"] == 0.125
    assert gpt["price"]["tiers_above_tokens"] == [272_000]
    assert gpt["expected_cost_usd"] == (177 * 1.25 + 100 * 10) / 1e6
    assert (gpt["fallback"], gpt["why"], gpt["timeouts"]["connect"]) == (True, "fallback 1st", 3.0)
