"""Events and answers of the APIs whose streams have named events -> the core's views."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.answers import Seen
from gateway.core.forms import Endpoint
from gateway.views import VIEWS
from tests.odd_bodies import odd_versions

USAGE = {"input_tokens": 3, "output_tokens": 2}
FIRST = (0,)

MESSAGE_EVENTS: list[tuple[str, dict[str, Any], Seen]] = [
    ("start", {"type": "message_start", "message": {"usage": USAGE}}, Seen(choices=1, usage=USAGE)),
    ("a text begins", {"type": "content_block_start", "content_block": {"type": "text", "text": ""}}, Seen(choices=1)),
    (
        "a tool call begins",
        {"type": "content_block_start", "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}},
        Seen(True, 1),
    ),
    (
        "text",
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hello"}},
        Seen(True, 1, text_bytes=5),
    ),
    (
        "arguments",
        {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": '{"a"'}},
        Seen(True, 1, text_bytes=4),
    ),
    (
        "thinking",
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}},
        Seen(True, 1, reasoning_bytes=2),
    ),
    (
        "a signature",
        {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "x"}},
        Seen(choices=1),
    ),
    ("ping", {"type": "ping"}, Seen()),
    (
        "the end of the turn",
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        Seen(choices=1, finish="stop", usage={"output_tokens": 2}, finished=FIRST),
    ),
    (
        "cut by its cap",
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
        Seen(choices=1, finish="length", finished=FIRST),
    ),
    (
        "refused",
        {"type": "message_delta", "delta": {"stop_reason": "refusal"}},
        Seen(choices=1, finish="content_filter", finished=FIRST),
    ),
    ("stop", {"type": "message_stop"}, Seen(done=True)),
    ("an error", {"type": "error", "error": {"type": "overloaded_error"}}, Seen(error={"type": "overloaded_error"})),
]

RESPONSE_EVENTS: list[tuple[str, dict[str, Any], Seen]] = [
    ("created", {"type": "response.created", "response": {"status": "in_progress", "usage": None}}, Seen()),
    (
        "a message begins",
        {"type": "response.output_item.added", "item": {"type": "message", "content": []}},
        Seen(choices=1),
    ),
    (
        "a tool call begins",
        {"type": "response.output_item.added", "item": {"type": "function_call", "name": "f"}},
        Seen(True, 1),
    ),
    ("text", {"type": "response.output_text.delta", "delta": "hello"}, Seen(True, 1, text_bytes=5)),
    ("an empty text", {"type": "response.output_text.delta", "delta": ""}, Seen(choices=1)),
    ("a refusal", {"type": "response.refusal.delta", "delta": "No"}, Seen(True, 1, text_bytes=2)),
    ("arguments", {"type": "response.function_call_arguments.delta", "delta": "{}"}, Seen(True, 1, text_bytes=2)),
    ("reasoning", {"type": "response.reasoning_text.delta", "delta": "hm"}, Seen(True, 1, reasoning_bytes=2)),
    (
        "a summary of it",
        {"type": "response.reasoning_summary_text.delta", "delta": "hm"},
        Seen(True, 1, reasoning_bytes=2),
    ),
    ("sound", {"type": "response.audio.delta", "delta": "AAAA"}, Seen(True, 1)),
    ("done with a text", {"type": "response.output_text.done", "text": "hello"}, Seen()),
    (
        "completed",
        {"type": "response.completed", "response": {"status": "completed", "usage": USAGE}},
        Seen(choices=1, finish="stop", usage=USAGE, finished=FIRST, done=True),
    ),
    (
        "cut by its cap",
        {
            "type": "response.incomplete",
            "response": {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        },
        Seen(choices=1, finish="length", finished=FIRST, done=True),
    ),
    (
        "failed",
        {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "boom"}}},
        Seen(error={"code": "server_error", "message": "boom"}),
    ),
    (
        "an error",
        {"type": "error", "code": "server_error", "message": "boom"},
        Seen(error={"code": "server_error", "message": "boom"}),
    ),
]


@pytest.mark.parametrize(("event", "seen"), [row[1:] for row in MESSAGE_EVENTS], ids=[row[0] for row in MESSAGE_EVENTS])
def test_events_of_messages(event: dict[str, Any], seen: Seen) -> None:
    assert VIEWS[Endpoint.MESSAGES].chunk(json.dumps(event).encode()) == seen


@pytest.mark.parametrize(
    ("event", "seen"), [row[1:] for row in RESPONSE_EVENTS], ids=[row[0] for row in RESPONSE_EVENTS]
)
def test_events_of_responses(event: dict[str, Any], seen: Seen) -> None:
    assert VIEWS[Endpoint.RESPONSES].chunk(json.dumps(event).encode()) == seen


ANSWERS: list[tuple[str, Endpoint, dict[str, Any], Seen]] = [
    (
        "a message",
        Endpoint.MESSAGES,
        {
            "type": "message",
            "content": [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "hello"}],
            "stop_reason": "end_turn",
            "usage": USAGE,
        },
        Seen(True, 1, "stop", USAGE, False, None, 5, 2, FIRST, True),
    ),
    (
        "a message with nothing in it",
        Endpoint.MESSAGES,
        {"type": "message", "content": [], "stop_reason": "end_turn"},
        Seen(False, 1, "stop", finished=FIRST, done=True),
    ),
    (
        "an error of Anthropic's",
        Endpoint.MESSAGES,
        {"type": "error", "error": {"message": "no"}},
        Seen(error={"message": "no"}),
    ),
    ("something else", Endpoint.MESSAGES, {"choices": []}, Seen()),
    (
        "a response",
        Endpoint.RESPONSES,
        {
            "status": "completed",
            "error": None,
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
                {"type": "message", "content": [{"type": "output_text", "text": "hello"}]},
            ],
            "usage": USAGE,
        },
        Seen(True, 1, "stop", USAGE, False, None, 5, 2, FIRST, True),
    ),
    (
        "a response that failed",
        Endpoint.RESPONSES,
        {"status": "failed", "error": {"message": "no"}, "output": []},
        Seen(error={"message": "no"}),
    ),
    (
        "a tool call",
        Endpoint.RESPONSES,
        {"status": "completed", "output": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
        Seen(True, 1, "stop", text_bytes=3, finished=FIRST, done=True),
    ),
]


@pytest.mark.parametrize(("endpoint", "answer", "seen"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_answers(endpoint: Endpoint, answer: dict[str, Any], seen: Seen) -> None:
    assert VIEWS[endpoint].answer(json.dumps(answer).encode()) == seen


@pytest.mark.parametrize("endpoint", [Endpoint.MESSAGES, Endpoint.RESPONSES])
@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>", b'"x"'])
def test_what_is_no_object_is_no_answer(endpoint: Endpoint, body: bytes) -> None:
    assert VIEWS[endpoint].answer(body) is None
    assert VIEWS[endpoint].chunk(body) is None


@pytest.mark.parametrize("endpoint", VIEWS)
def test_whatever_a_server_sends_it_is_read_or_not_but_breaks_nothing(endpoint: Endpoint) -> None:
    view = VIEWS[endpoint]
    for _, event, _ in (*MESSAGE_EVENTS, *RESPONSE_EVENTS):
        for odd in odd_versions(event):
            view.chunk(json.dumps(odd).encode())
    for _, _, answer, _ in ANSWERS:
        for odd in odd_versions(answer):
            view.answer(json.dumps(odd).encode())
