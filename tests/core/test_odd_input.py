"""Anything may stand anywhere in a request or in an answer: it is refused or passes, and breaks nothing.

Each value of a body is replaced by values of every other type, one at a time; the gateway's own decisions and all
translations are then asked about it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.core.caching import key, policy
from gateway.core.call import Call, Endpoint, Principal, outgoing_body, parse
from gateway.core.ceiling import ceiling
from gateway.core.dialects import BY_NAME, adapted
from gateway.core.pricing import Price, Rates
from gateway.core.resume import may_resume
from gateway.core.rules import Model, Target, Timeouts
from gateway.core.sse import Framer
from gateway.core.translate import TRANSLATIONS, losses, outgoing
from gateway.errors import RequestError
from gateway.wire import CODEC
from tests.core.translating import call_of, stream_of
from tests.odd_bodies import odd_versions

DATA = Path(__file__).parents[1] / "data" / "translate"
PRICE = Price("routes.yaml", Rates(10**9, 10**9, 10**9, 10**9, 10**9))
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
PARTS = [
    {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "file", "file": {"file_data": "data:text/plain;base64,AAAA"}},
]
CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": PARTS, "name": "x"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_details": [{"signature": "s"}]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "7"}]},
        {"role": "developer", "content": "x"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
    "stream_options": {"include_usage": True},
    "metadata": {"task": "t", "tags": ["a"], "x": "y"},
    "service_tier": "flex",
    "stop": ["x"],
    "temperature": 0,
    "seed": 7,
    "user": "u",
    "n": 1,
    "max_tokens": 5,
    "stream": True,
}
MESSAGES: dict[str, Any] = {
    "max_tokens": 100,
    "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}, "title": "t"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "x", "signature": "s"},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [PARTS[0]]}]},
    ],
    "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "low"},
    "stop_sequences": ["x"],
    "metadata": {"user_id": "u"},
    "service_tier": "auto",
    "top_k": 5,
    "stream": True,
}
RESPONSES: dict[str, Any] = {
    "instructions": "x",
    "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]},
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}], "encrypted_content": "x"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "7"}]},
        {"type": "item_reference", "id": "i"},
    ],
    "tools": [{"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "store": False,
    "parallel_tool_calls": True,
    "previous_response_id": "r",
    "max_output_tokens": 100,
    "metadata": {"tags": "a"},
    "stream": True,
}
OTHERS: dict[Endpoint, dict[str, Any]] = {
    Endpoint.COMPLETIONS: {"prompt": ["x", [1, 2]], "stop": "x", "n": 1, "best_of": 2, "max_tokens": 5, "stream": True},
    Endpoint.EMBEDDINGS: {"input": ["x", [1, 2]], "dimensions": 5},
    Endpoint.MODERATIONS: {"input": [PARTS[0], PARTS[1]]},
    Endpoint.RERANK: {"query": "x", "documents": ["x", {"text": "y"}], "top_n": 2},
    Endpoint.IMAGES: {"prompt": "x", "n": 2, "size": "auto", "stream": True},
    Endpoint.IMAGE_EDITS: {"prompt": "x", "images": [{"image_url": "data:image/png;base64,AAAA"}], "mask": {}},
    Endpoint.SPEECH: {"input": "x", "voice": {"id": "v"}, "stream_format": "sse"},
    Endpoint.TRANSCRIPTIONS: {"file": "x", "prompt": "y", "response_format": "text"},
    Endpoint.TRANSLATIONS: {"file": "x", "prompt": "y", "response_format": "srt"},
}
HELLO = [{"role": "user", "content": "x"}]
SWITCHES: list[dict[str, Any]] = [
    {"thinking": {"type": "enabled"}},
    {"chat_template_kwargs": {"enable_thinking": True}},
    {"reasoning": {"effort": "low", "enabled": True}},
    {"reasoning_effort": "low", "enable_thinking": True},
    {"modalities": ["text", "audio"], "audio": {"voice": "alloy"}},
    {"tools": [{"type": "function", "function": {"name": "f"}}]},
    {"web_search_options": {}, "plugins": [{"id": "web"}]},
]
BODIES = [(Endpoint.CHAT, CHAT), *((Endpoint.CHAT, {"messages": HELLO, **each}) for each in SWITCHES)]
BODIES += [(Endpoint.MESSAGES, MESSAGES), (Endpoint.COUNT_TOKENS, MESSAGES), (Endpoint.RESPONSES, RESPONSES)]
BODIES += OTHERS.items()


def decide(call: Call) -> None:
    """All that is asked of a call before and for an attempt."""
    asked = (call.has, call.user, call.tied, call.remote, call.ends_in_tool_result)
    assert call.estimated_input >= 0, asked
    policy(call)
    key(call, Principal(), "r", "h")
    may_resume(call)
    for server in ("", *BY_NAME):
        model = Model("m", "p", "gpt-5", price=PRICE, server=server)
        target = Target(model, "gpt-5", PRICE, Timeouts(), fallback=False, why="")
        if losses(call, model).refused:
            continue
        sent = outgoing(call, model)
        changes = adapted(sent, model, "gpt-5")
        json.loads(outgoing_body(sent, model="x", set={}, drop=frozenset(), ask_usage=True, adapt=changes.edits))
        ceiling(call, target, 10**15, None, clamp=True)


@pytest.mark.parametrize(("endpoint", "body"), BODIES)
def test_a_request(endpoint: Endpoint, body: dict[str, Any]) -> None:
    decide(parse(endpoint, [], json.dumps({"model": "m", **body}).encode(), CODEC))  # as it is, it passes
    for odd in odd_versions(body):
        if isinstance(odd, dict):
            with suppress(RequestError):
                decide(parse(endpoint, [], json.dumps({"model": "m", **odd}).encode(), CODEC))


ANSWERS = sorted(DATA.glob("*/answer-*.json")) + sorted(DATA.glob("*/stream-*.json"))


@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_chat_servers_answer(path: Path) -> None:
    """Of a translated call: whole, or one event of a stream at a time."""
    told = json.loads(path.read_text())
    endpoint = Endpoint("/" + path.parent.name.partition("-")[0])
    how, asked = TRANSLATIONS[endpoint, "chat"], told["call"]
    upstream = told["upstream"]
    if path.stem.startswith("answer"):
        for odd in odd_versions(upstream):
            how.answer(call_of(asked, endpoint), json.dumps(odd).encode(), CODEC)
        return
    for index, event in enumerate(upstream):
        for odd in odd_versions(event):
            events, framer = how.events(call_of(asked, endpoint), CODEC), Framer()
            sent = stream_of([*upstream[:index], odd, *upstream[index + 1 :]])
            for each in framer.feed(sent):
                events.take(each)
            events.end()
