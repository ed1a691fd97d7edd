"""Continuing an answer: what the client has seen, what is asked of the next target, what of it the client sees."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.call import Call, Endpoint, parse
from gateway.core.resume import ContinuingTap, Partial, may_resume, read_partial, resumed
from gateway.views.openai import read_chunk
from gateway.wire import CODEC


def call(**body: Any) -> Call:
    given = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": "x"}], **body}
    return parse(Endpoint.CHAT, [], json.dumps(given).encode(), CODEC)


def event(delta: dict[str, Any] | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": more.pop("finish", None)}]
    chunk = {"id": "first-id", "model": "qwen", "choices": choices, **more}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, True),
        ({"stream": False}, False),
        ({"n": 2}, False),
        ({"tools": [{"type": "function"}]}, False),
        ({"tools": []}, True),
        ({"response_format": {"type": "json_schema"}}, False),
        ({"response_format": {"type": "text"}}, True),
    ],
)
def test_which_calls(body: dict[str, Any], expected: bool) -> None:
    assert may_resume(call(**body)) is expected


ROLE = event({"role": "assistant", "content": None})


@pytest.mark.parametrize(
    ("passed", "expected"),
    [
        (ROLE + event({"content": "Hel"}) + event({"content": "lo"}), Partial("first-id", "qwen", "Hello", 2)),
        (b": comment\n\n" + event({"content": "a"}) + b"data: {oops\n\n", Partial("first-id", "qwen", "a", 1)),
        (event({"content": "a"}) + event(None, usage={}), Partial("first-id", "qwen", "a", 1)),
        (event({"reasoning_content": "hm"}) + event({"content": "a"}), Partial("first-id", "qwen", "a", 1)),
        (event({"content": "a"}) + b'data: {"id": "cut', Partial("first-id", "qwen", "a", 1)),
        (ROLE, None),
        (b"", None),
        (event({"reasoning_content": "still thinking"}), None),
        (event({"content": "a"}) + event({"tool_calls": [{"index": 0}]}), None),
        (event({"content": "a"}) + event({"refusal": "no"}), None),
        (event({"content": [{"type": "text", "text": "a"}]}), None),
        (event({"content": "a"}).replace(b'"index": 0', b'"index": 1'), None),
    ],
)
def test_what_the_client_has_seen(passed: bytes, expected: Partial | None) -> None:
    assert read_partial(passed, CODEC) == expected


PARTIAL = Partial("first-id", "qwen", 'He said "hi', 3)


def test_the_rest_is_asked_for_with_one_message_more_and_nothing_else_touched() -> None:
    original = b'{ "model":"auto", "stream":true , "messages":[ {"role":"user","content":"x"} ], "top_p" : 0.90 }'
    asked = resumed(parse(Endpoint.CHAT, [], original, CODEC), PARTIAL)
    assert asked.body.startswith(b'{ "model":"auto", "stream":true , "messages":[ {"role":"user","content":"x"} ,{')
    body = json.loads(asked.body)
    assert body["messages"][-1] == {"role": "assistant", "content": 'He said "hi'}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert b'"top_p" : 0.90' in asked.body
    assert "max_tokens" not in body


@pytest.mark.parametrize(("cap", "expected"), [(10, 7), (3, 1), (1, 1)])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_cap_is_what_the_client_has_left(name: str, cap: int, expected: int) -> None:
    assert json.loads(resumed(call(**{name: cap}), PARTIAL).body)[name] == expected


def test_chunks_go_on_under_the_first_name_and_nothing_begins_twice() -> None:
    tap = ContinuingTap(read_chunk, show_usage=True, add_cost=lambda data, _: data, pass_errors=False)
    tap = tap.continuing(PARTIAL, CODEC)
    second: dict[str, Any] = {"id": "second-id", "model": "gpt"}
    stream = (
        event({"role": "assistant", "content": ""}, **second) + b": ping\n\n" + event({"content": " there"}, **second)
    )
    stream += (
        event({}, finish="stop", **second) + event(None, usage={"prompt_tokens": 9}, **second) + b"data: [DONE]\n\n"
    )
    out = tap.feed(stream) + tap.end()
    lines = [line for line in out.decode().split("\n\n") if line]
    assert lines[0] == ": ping"
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[1:-1]]
    assert [(c["id"], c["model"]) for c in chunks] == [("first-id", "qwen")] * 3
    assert chunks[0]["choices"][0]["delta"] == {"content": " there"}
    assert chunks[1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[2]["usage"] == {"prompt_tokens": 9}
    assert (tap.finish, tap.done) == ("stop", True)


def test_an_error_while_going_on_does_not_pass() -> None:
    tap = ContinuingTap(read_chunk, show_usage=False, add_cost=lambda data, _: data, pass_errors=False)
    tap = tap.continuing(PARTIAL, CODEC)
    assert tap.feed(b'data: {"error": {"message": "dead"}}\n\n') == b""
    assert tap.error == {"message": "dead"}
    assert not tap.error_passed
