"""Answers, chunks and errors, as servers send them -> the core's views."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import views
from gateway.core.answers import Seen
from gateway.core.call import Endpoint, parse
from gateway.core.failures import Refusal
from gateway.views.openai import read_answer, read_chunk, read_error
from gateway.wire import CODEC

FIRST = (0,)  # the first choice has finished
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def chunk(delta: object, finish: object = None, **members: object) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **members}


def call(name: str, arguments: str) -> list[dict[str, Any]]:
    return [{"index": 0, "id": "t", "type": "function", "function": {"name": name, "arguments": arguments}}]


THOUGHT = [{"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]}, {"type": "text", "text": ""}]

CHUNKS: list[tuple[str, dict[str, Any], Seen]] = [
    ("text", chunk({"content": "hello"}, usage=None), Seen(True, 1, text_bytes=5)),
    ("the role alone", chunk({"role": "assistant", "content": ""}), Seen(False, 1)),
    ("the role and null", chunk({"role": "assistant", "content": None, "refusal": None}), Seen(False, 1)),
    ("an empty delta", chunk({}), Seen(False, 1)),
    ("a null delta", chunk(None), Seen(False, 1)),
    ("the finish", chunk({}, "stop"), Seen(False, 1, "stop", finished=FIRST)),
    ("an empty finish", chunk({"content": "a"}, ""), Seen(True, 1, text_bytes=1)),
    (
        "a finish of the second choice",
        {"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]},
        Seen(False, 1, "stop", finished=(1,)),
    ),
    ("text and finish", chunk({"content": "a"}, "length"), Seen(True, 1, "length", text_bytes=1, finished=FIRST)),
    ("reasoning_content", chunk({"reasoning_content": "hm", "content": None}), Seen(True, 1, reasoning_bytes=2)),
    ("reasoning", chunk({"reasoning": "hm"}), Seen(True, 1, reasoning_bytes=2)),
    (
        "both names, said once",
        chunk({"reasoning": "hm", "reasoning_content": "hm"}),
        Seen(True, 1, reasoning_bytes=2),
    ),
    ("thinking", chunk({"thinking": "hmm"}), Seen(True, 1, reasoning_bytes=3)),
    (
        "reasoning and text",
        chunk({"reasoning": "hm", "content": "a"}),
        Seen(True, 1, text_bytes=1, reasoning_bytes=2),
    ),
    ("a refusal", chunk({"refusal": "No."}), Seen(True, 1, text_bytes=3)),
    ("a tool call", chunk({"tool_calls": call("f", '{"a"')}), Seen(True, 1, text_bytes=5)),
    ("no tool calls", chunk({"tool_calls": []}), Seen(False, 1)),
    ("a function call", chunk({"function_call": {"name": "f", "arguments": "{}"}}), Seen(True, 1, text_bytes=3)),
    ("audio", chunk({"audio": {"id": "a", "data": "UklG"}}), Seen(True, 1)),
    ("parts", chunk({"content": [{"type": "text", "text": "hey"}]}), Seen(True, 1, text_bytes=3)),
    ("empty parts", chunk({"content": [{"type": "text", "text": ""}]}), Seen(False, 1)),
    ("Mistral's thinking parts", chunk({"content": THOUGHT}), Seen(True, 1, reasoning_bytes=3)),
    ("completions", {"choices": [{"index": 0, "text": "hi", "finish_reason": None}]}, Seen(True, 1, text_bytes=2)),
    (
        "completions, nothing",
        {"choices": [{"text": "", "finish_reason": "stop"}]},
        Seen(False, 1, "stop", finished=FIRST),
    ),
    (
        "usage alone",
        {"id": "c1", "object": "x", "created": 1, "model": "m", "choices": [], "usage": USAGE},
        Seen(usage=USAGE, usage_only=True),
    ),
    (
        "usage alone, llama.cpp",
        {"choices": [], "usage": USAGE, "timings": {"n": 1}},
        Seen(usage=USAGE, usage_only=True),
    ),
    ("usage alone, no choices at all", {"usage": USAGE}, Seen(usage=USAGE, usage_only=True)),
    ("usage and null members", {"choices": [], "usage": USAGE, "extra": None}, Seen(usage=USAGE, usage_only=True)),
    ("usage and something else", {"choices": [], "usage": USAGE, "citations": ["x"]}, Seen(usage=USAGE)),
    ("no choices, no usage (Azure)", {"choices": [], "prompt_filter_results": [{}], "usage": None}, Seen()),
    ("usage in a chunk with text", chunk({"content": "a"}, usage=USAGE), Seen(True, 1, usage=USAGE, text_bytes=1)),
    ("usage in the choice (Kimi)", {"choices": [{"delta": {}, "usage": USAGE}]}, Seen(False, 1, usage=USAGE)),
    (
        "usage in x_groq",
        chunk({}, "stop", x_groq={"id": "r", "usage": USAGE}),
        Seen(False, 1, "stop", USAGE, finished=FIRST),
    ),
    (
        "the same beside text",
        chunk({"content": "a"}, x_groq={"usage": USAGE}),
        Seen(True, 1, usage=USAGE, text_bytes=1),
    ),
    (
        "both names, one empty",
        chunk({"reasoning": "hm", "reasoning_content": ""}),
        Seen(True, 1, reasoning_bytes=2),
    ),
    ("x_groq without usage", chunk({"content": "a"}, x_groq={"id": "r"}), Seen(True, 1, text_bytes=1)),
    ("an empty usage object", chunk({"content": "a"}, usage={}), Seen(True, 1, text_bytes=1)),
    ("an error", {"error": {"message": "boom"}}, Seen(error={"message": "boom"})),
    ("an error as text", {"error": "boom"}, Seen(error="boom")),
    ("a null error", chunk({"content": "a"}, error=None), Seen(True, 1, text_bytes=1)),
    ("an empty error", chunk({"content": "a"}, error={}), Seen(True, 1, text_bytes=1)),
    ("an error and usage", {"error": "boom", "usage": USAGE}, Seen(error="boom", usage=USAGE)),
    (
        "older vLLM's bare error",
        {"object": "error", "message": "boom", "code": 400},
        Seen(error={"object": "error", "message": "boom", "code": 400}),
    ),
]

# A member of an unexpected type never hides the good ones.
ODD_CHUNKS: list[tuple[str, dict[str, Any], Seen]] = [
    ("choices is an object", {"choices": {"0": 1}, "usage": USAGE}, Seen(usage=USAGE, usage_only=True)),
    ("choices is null", {"choices": None}, Seen()),
    ("a choice is null", {"choices": [None, {"delta": {"content": "a"}}]}, Seen(True, 1, text_bytes=1)),
    ("delta is text", {"choices": [{"delta": "a", "finish_reason": "stop"}]}, Seen(False, 1, "stop", finished=FIRST)),
    ("content is an object", chunk({"content": {"x": 1}}), Seen(True, 1)),
    ("finish is a number", chunk({"content": "a"}, 7), Seen(True, 1, text_bytes=1)),
    ("usage is text", chunk({"content": "a"}, usage="free"), Seen(True, 1, text_bytes=1)),
    ("data is an object", chunk({"content": "a"}, data={"x": 1}), Seen(True, 1, text_bytes=1)),
    ("tool calls are text", chunk({"tool_calls": "f()"}), Seen(True, 1, text_bytes=3)),
]


@pytest.mark.parametrize(
    ("value", "seen"), [row[1:] for row in CHUNKS + ODD_CHUNKS], ids=[row[0] for row in CHUNKS + ODD_CHUNKS]
)
def test_chunks(value: dict[str, Any], seen: Seen) -> None:
    assert read_chunk(encode(value)) == seen


EMBEDDING = {"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}
ANSWERS: list[tuple[str, dict[str, Any], Seen]] = [
    (
        "chat",
        {"choices": [{"message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}], "usage": USAGE},
        Seen(True, 1, "stop", USAGE, text_bytes=5, finished=FIRST),
    ),
    (
        "a tool call with null content",
        {"choices": [{"message": {"content": None, "tool_calls": call("f", "{}")}, "finish_reason": "tool_calls"}]},
        Seen(True, 1, "tool_calls", text_bytes=3, finished=FIRST),
    ),
    (
        "no content",
        {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]},
        Seen(False, 1, "stop", finished=FIRST),
    ),
    (
        "two choices",
        {"choices": [{"message": {"content": "a"}}, {"message": {"content": "bc"}}]},
        Seen(True, 2, text_bytes=3),
    ),
    ("a drawing", {"choices": [{"message": {"content": "", "images": [{"type": "image_url"}]}}]}, Seen(True, 1)),
    (
        "completions",
        {"choices": [{"text": "hi", "finish_reason": "length"}]},
        Seen(True, 1, "length", text_bytes=2, finished=FIRST),
    ),
    ("embeddings", {"object": "list", "data": [EMBEDDING, EMBEDDING], "usage": USAGE}, Seen(True, 2, usage=USAGE)),
    ("no embeddings", {"object": "list", "data": []}, Seen()),
    ("no choices", {"id": "x", "choices": []}, Seen()),
    ("an error in a 200", {"error": {"message": "boom", "code": 500}}, Seen(error={"message": "boom", "code": 500})),
    ("something else", {"detail": "Not Found"}, Seen()),
]


@pytest.mark.parametrize(("value", "seen"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_answers(value: dict[str, Any], seen: Seen) -> None:
    assert read_answer(encode(value)) == seen


NOT_OBJECTS = [
    b"", b"[DONE]", b"null", b"[]", b"12", b'"text"', b"{", b'{"choices": [', b'{"choices": NaN}', b"<html></html>",
    b'{"choices": [{"delta": {"content": "\xff"}}]}', b"[" * 20_000, b'{"choices":' * 20_000,
]  # fmt: skip


@pytest.mark.parametrize("body", NOT_OBJECTS, ids=lambda body: repr(body[:12]))
def test_what_is_not_an_object_is_none(body: bytes) -> None:
    assert read_chunk(body) is None
    assert read_answer(body) is None


ODDITIES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)
DELTA_NAMES = [
    "content",
    "refusal",
    "reasoning",
    "reasoning_content",
    "thinking",
    "tool_calls",
    "audio",
    "function_call",
]
DELTAS = st.one_of(ODDITIES, st.dictionaries(st.sampled_from(DELTA_NAMES), ODDITIES))
CHOICES = st.one_of(
    ODDITIES,
    st.fixed_dictionaries({"delta": DELTAS}, optional={"finish_reason": ODDITIES, "usage": ODDITIES, "text": ODDITIES}),
)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {"choices": st.one_of(ODDITIES, st.lists(CHOICES, max_size=2))},
        optional={"usage": ODDITIES, "error": ODDITIES, "data": ODDITIES, "x_groq": ODDITIES},
    )
)
def test_any_object_has_a_view_and_the_fast_one_is_the_same(value: dict[str, Any]) -> None:
    body = encode(value)
    fast, full = read_chunk(body), read_answer(body)
    assert fast is not None
    assert full is not None
    assert fast._replace(usage_only=False) == full


ERRORS: list[tuple[str, bytes, Refusal]] = [
    (
        "OpenAI",
        encode({"error": {"message": "Too long", "type": "invalid_request_error", "param": "m", "code": "context"}}),
        Refusal("Too long", "invalid_request_error", "context"),
    ),
    ("a code that is a number", encode({"error": {"message": "x", "code": 400}}), Refusal("x", "", "400")),
    ("nulls", encode({"error": {"message": "x", "type": None, "code": None}}), Refusal("x")),
    ("text in error", encode({"error": "boom"}), Refusal("boom")),
    ("FastAPI", encode({"detail": "Not Found"}), Refusal("Not Found")),
    (
        "FastAPI's validation",
        encode({"detail": [{"loc": ["body", "n"], "msg": "Field required", "type": "missing"}, {"msg": "Too small"}]}),
        Refusal("Field required; Too small"),
    ),
    ("a bare message", encode({"message": "boom", "code": "E1", "type": "t"}), Refusal("boom", "t", "E1")),
    (
        "older vLLM",
        encode({"object": "error", "message": "boom", "type": "BadRequestError"}),
        Refusal("boom", "BadRequestError"),
    ),
    (
        "Gemini's array",
        encode([{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}]),
        Refusal("API key not valid.", "INVALID_ARGUMENT", "400"),
    ),
    (
        "Anthropic",
        encode({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        Refusal("Overloaded", "overloaded_error"),
    ),
    ("plain text", b"upstream  connect\nerror", Refusal("upstream connect error")),
    ("a JSON string", b'"boom"', Refusal("boom")),
    ("HTML", b"<html><title>502 Bad Gateway</title><h1>nginx</h1></html>", Refusal("502 Bad Gateway nginx")),
    ("long text is cut", b"x" * 5000, Refusal("x" * 200)),
    ("a long message is cut", encode({"error": {"message": "x" * 5000}}), Refusal("x" * 2000)),
    ("an error without words", encode({"error": {"code": 7}}), Refusal("", "", "7")),
    ("an unknown object", encode({"status": "bad"}), Refusal('{"status": "bad"}', "bad")),
    ("nothing", b"", Refusal()),
    ("not UTF-8", b"\xff\xfe", Refusal("��")),
]


@pytest.mark.parametrize(("body", "refusal"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS])
def test_errors(body: bytes, refusal: Refusal) -> None:
    assert read_error(body) == refusal


@settings(deadline=None)
@given(st.one_of(ODDITIES.map(encode), st.binary(max_size=50)))
def test_any_body_gives_a_refusal(body: bytes) -> None:
    assert all(isinstance(part, str) for part in read_error(body))


@pytest.mark.parametrize("wanted", ["json", {"type": "text"}, ["text"], 7, None])
def test_a_transcripts_format_may_be_anything(wanted: object) -> None:
    asked = {"model": "m", "file": "x", "response_format": wanted}
    seen = views.read_answer(parse(Endpoint.TRANSCRIPTIONS, [], encode(asked), CODEC), b'{"text": "Hello."}')
    assert seen is not None
    assert (seen.useful, seen.text_bytes) == (True, 6)
