"""What goes upstream by whom it goes to: each rule of the table, and nothing where no rule holds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.call import Call, Endpoint, outgoing_body, parse
from gateway.core.dialects import AS_IT_CAME, BY_NAME, DIALECTS, adapted, dialect_at
from gateway.core.rules import Model
from gateway.wire import CODEC

HELLO = [{"role": "user", "content": "Hello"}]
DEVELOPER = [{"role": "developer", "content": "Be brief."}, *HELLO]
SYSTEM = [{"role": "system", "content": "Be brief."}, *HELLO]


LOOK, CALC, ABSENT = ({"type": "function", "function": {"name": name}} for name in ("look", "calc", "absent"))
TOOLS = [CALC, LOOK]


def call(**members: Any) -> Call:
    body = json.dumps({"model": "m", "messages": HELLO, **members}).encode()
    return parse(Endpoint.CHAT, [], body, CODEC)


def sent(server: str, name: str, **members: Any) -> dict[str, Any]:
    it = call(**members)
    changes = adapted(it, Model("m", "p", name, server=server), name)
    body = outgoing_body(it, model="m", set={}, drop=frozenset(), ask_usage=False, adapt=changes.edits)
    found: dict[str, Any] = json.loads(body)
    del found["model"]
    if found.get("messages") == HELLO:
        del found["messages"]
    return found


CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("openai", "gpt-5", {"max_tokens": 9}, {"max_completion_tokens": 9}),
    ("openai", "gpt-5", {"max_tokens": 9, "max_completion_tokens": 7}, {"max_completion_tokens": 7}),
    ("openai", "gpt-5-chat-latest", {"max_tokens": 9, "temperature": 0}, {"max_tokens": 9, "temperature": 0}),
    ("openai", "gpt-4o", {"max_tokens": 9, "temperature": 0.5}, {"max_tokens": 9, "temperature": 0.5}),
    ("openai", "o3-mini", {"temperature": 0.5, "top_p": 1, "seed": 3}, {"top_p": 1, "seed": 3}),
    ("openai", "gpt-5.1", {"temperature": 0.5}, {"temperature": 0.5}),
    ("openai", "gpt-5.1", {"top_p": 0, "reasoning_effort": "none"}, {"top_p": 0, "reasoning_effort": "none"}),
    ("openai", "gpt-5.1", {"temperature": 0.5, "reasoning_effort": "low"}, {"reasoning_effort": "low"}),
    ("openai", "gpt-4o", {"top_k": 5, "enable_thinking": False}, {}),
    ("openai", "o4-mini", {"max_tokens": 9}, {"max_completion_tokens": 9}),
    ("azure", "gpt-5-mini", {"max_tokens": 9}, {"max_completion_tokens": 9}),
    ("azure", "o3-mini", {"max_tokens": 9, "temperature": 0.5, "top_k": 3}, {"max_completion_tokens": 9}),
    ("azure", "gpt-5.1", {"temperature": 0.5}, {"temperature": 0.5}),
    ("azure", "gpt-5.1", {"temperature": 0.5, "reasoning_effort": "low"}, {"reasoning_effort": "low"}),
    ("azure", "gpt-5-chat", {"max_tokens": 9, "top_p": 0}, {"max_tokens": 9, "top_p": 0}),
    ("deepseek", "deepseek-chat", {"max_completion_tokens": 9}, {"max_tokens": 9}),
    ("deepseek", "deepseek-chat", {"max_completion_tokens": 9, "max_tokens": 5}, {"max_tokens": 9}),
    ("deepseek", "deepseek-reasoner", {"temperature": 0.5}, {}),
    ("deepseek", "deepseek-chat", {"messages": DEVELOPER}, {"messages": SYSTEM}),
    ("deepseek", "deepseek-chat", {"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
    ("deepseek", "deepseek-chat", {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
    ("deepseek", "deepseek-v4-pro", {"temperature": 0.5, "reasoning_effort": "max"}, {"reasoning_effort": "max"}),
    ("deepseek", "deepseek-v4-pro", {"temperature": 0.5, "thinking": {"type": "disabled"}},
     {"temperature": 0.5, "thinking": {"type": "disabled"}}),
    ("deepseek", "deepseek-chat", {"enable_thinking": False}, {"thinking": {"type": "disabled"}}),
    ("deepseek", "deepseek-chat", {"thinking": {"type": "enabled"}}, {"thinking": {"type": "enabled"}}),
    ("dashscope", "qwen3-max", {"thinking": {"type": "disabled"}}, {"enable_thinking": False}),
    ("dashscope", "qwen3-max", {"thinking": {"type": ["disabled"]}}, {}),
    ("dashscope", "qwen3-max", {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
    ("dashscope", "qwen3-max", {"max_completion_tokens": 9, "top_k": 3}, {"max_completion_tokens": 9, "top_k": 3}),
    ("dashscope", "qwen3-max", {"max_tokens": 9}, {"max_tokens": 9}),
    ("moonshot", "kimi-k2.6", {"temperature": 0.6}, {}),
    ("moonshot", "kimi-k2.6", {"temperature": 1, "top_p": 0.5, "presence_penalty": 1, "seed": 3}, {"seed": 3}),
    ("moonshot", "kimi-k3", {"temperature": 1}, {"temperature": 1}),
    ("moonshot", "kimi-k2-0905-preview", {"temperature": 0.6}, {"temperature": 0.6}),
    ("ark", "doubao-seed-1-6", {"chat_template_kwargs": {"thinking": False}}, {"thinking": {"type": "disabled"}}),
    ("gemini", "gemini-2.5-flash", {"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
    ("gemini", "gemini-2.5-flash", {"enable_thinking": True}, {}),
    ("gemini", "gemini-2.5-pro", {"thinking": {"type": "disabled"}}, {}),
    ("gemini", "gemini-3-flash-preview", {"enable_thinking": False}, {}),
    ("gemini", "gemini-3-flash-preview", {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
    ("openrouter", "openai/gpt-5", {"enable_thinking": True, "top_k": 9}, {"reasoning": {"enabled": True}, "top_k": 9}),
    (
        "vllm",
        "Qwen/Qwen3-32B",
        {"enable_thinking": False},
        {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
    ),
    (
        "vllm",
        "Qwen/Qwen3-32B",
        {"enable_thinking": False, "chat_template_kwargs": {"x": 1, "thinking": True}},
        {"chat_template_kwargs": {"x": 1, "thinking": True}},
    ),
    ("vllm", "Qwen/Qwen3-32B", {"messages": DEVELOPER}, {"messages": SYSTEM}),
    ("vllm", "openai/gpt-oss-120b", {"messages": DEVELOPER}, {"messages": DEVELOPER}),
    ("ollama", "llama3.2", {"max_completion_tokens": 9}, {"max_tokens": 9}),
    ("ollama", "llama3.2", {"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
    ("ollama", "gpt-oss:20b", {"reasoning": {"effort": "high"}}, {"reasoning": {"effort": "high"}}),
    ("ollama", "gpt-oss:20b", {"reasoning": {"enabled": False}}, {"reasoning_effort": "none"}),
    ("tgi", "tgi", {"max_completion_tokens": 9}, {"max_tokens": 9}),
    ("huggingface", "Qwen/Qwen3-32B:together", {"enable_thinking": True}, {"enable_thinking": True}),
    ("llamacpp", "m", {"tools": TOOLS, "tool_choice": LOOK}, {"tools": [LOOK], "tool_choice": "required"}),
    ("llamacpp", "m", {"tools": [LOOK], "tool_choice": LOOK}, {"tools": [LOOK], "tool_choice": "required"}),
    ("llamacpp", "m", {"tools": TOOLS, "tool_choice": "auto"}, {"tools": TOOLS, "tool_choice": "auto"}),
    ("llamacpp", "m", {"tools": TOOLS, "tool_choice": ABSENT}, {"tools": TOOLS, "tool_choice": ABSENT}),
    ("llamacpp", "m", {"tool_choice": LOOK}, {"tool_choice": LOOK}),
    ("vllm", "m", {"tools": TOOLS, "tool_choice": LOOK}, {"tools": TOOLS, "tool_choice": LOOK}),
    ("", "gpt-5", {"max_tokens": 9, "enable_thinking": True}, {"max_tokens": 9, "enable_thinking": True}),
]  # fmt: skip


@pytest.mark.parametrize(("server", "name", "members", "expected"), CASES)
def test_rules(server: str, name: str, members: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent(server, name, **members) == expected


TOLD = {"tools", "tool_choice"}  # members whose value may be another one, which is told


def test_every_member_that_goes_missing_is_named() -> None:
    for server, name, members, expected in CASES:
        changes = adapted(call(**members), Model("m", "p", name, server=server), name)
        gone = members.keys() - expected.keys() - {"messages"}
        mapped = {each.partition(" ->")[0] for each in changes.mapped}
        assert mapped >= {name for name in expected.keys() & members.keys() & TOLD if expected[name] != members[name]}
        assert gone == {*changes.dropped, *(each.partition(" ->")[0] for each in changes.mapped)} - expected.keys() - {
            "developer"
        }


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.name)
def test_what_no_rule_is_about_goes_as_it_came(dialect: Any) -> None:
    it = call(temperature=1, tools=[], stop="x", made_up={"a": 1}, seed=3)
    assert adapted(it, Model("m", "p", "some-model", server=dialect.name), "some-model") is AS_IT_CAME
    assert dialect.source
    assert BY_NAME[dialect.name] is dialect


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://mine.openai.azure.com/openai/v1", "azure"),
        ("https://ark.cn-beijing.volces.com/api/v3", "ark"),
        ("https://api.deepseek.com.evil.example/v1", ""),
        ("http://vllm:8000/v1", ""),
        ("", ""),
    ],
)
def test_hosts(url: str, name: str) -> None:
    assert dialect_at(url) == name
