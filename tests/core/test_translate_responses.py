"""`/v1/responses` for servers that have only chat: golden files both ways, and what holds for any stream and request.

The files in tests/data/translate are made from documentation (OpenAI's responses and chat references; 2026-11), not
from live servers. Their events are read with the SDK's own types in tests/clients/openai-python.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.call import Call, Endpoint, parse
from gateway.core.sse import Framer
from gateway.core.translate import TRANSLATIONS
from gateway.core.usage import read_usage
from gateway.views import VIEWS
from gateway.wire import CODEC
from tests.core.translating import events_in, stream_of

FOLDER = Path(__file__).parents[1] / "data/translate/responses-chat"
HOW = TRANSLATIONS[Endpoint.RESPONSES, "chat"]
HI: dict[str, Any] = {"model": "m", "input": "Hi", "stream": True}


def call_of(body: dict[str, Any]) -> Call:
    return parse(Endpoint.RESPONSES, [], json.dumps(body).encode(), CODEC)


def translated(body: dict[str, Any], pieces: list[bytes]) -> bytes:
    """The client's bytes for a stream that comes in these pieces."""
    events, framer = HOW.events(call_of(body), CODEC), Framer()
    taken = [events.take(event) for piece in pieces for event in framer.feed(piece)]
    return b"".join([*taken, *map(events.take, framer.end()), events.end()])


def whole(body: dict[str, Any], answer: Any) -> Any:
    return json.loads(HOW.answer(call_of(body), json.dumps(answer).encode(), CODEC))


def files(kind: str) -> list[Any]:
    found = sorted(FOLDER.glob(f"{kind}-*.json"))
    assert found
    return [pytest.param(json.loads(path.read_text()), id=path.stem) for path in found]


@pytest.mark.parametrize("case", files("request"))
def test_requests(case: dict[str, Any]) -> None:
    call = call_of(case["call"])
    lost = HOW.obstacles(call)
    assert (list(lost.refused), list(lost.dropped)) == (case["refused"], case["dropped"])
    assert (None if lost.refused else json.loads(HOW.request(call).body)) == case["upstream"]


@pytest.mark.parametrize("case", files("answer"))
def test_answers(case: dict[str, Any]) -> None:
    assert whole(case["call"], case["upstream"]) == case["client"]


@pytest.mark.parametrize("case", files("stream"))
def test_streams(case: dict[str, Any]) -> None:
    assert events_in(translated(case["call"], [stream_of(case["upstream"])])) == case["client"]


@pytest.mark.parametrize("case", files("stream"))
def test_a_stream_cut_anywhere_gives_the_same_bytes(case: dict[str, Any]) -> None:
    sent = stream_of(case["upstream"])
    expected = translated(case["call"], [sent])
    assert translated(case["call"], [sent[at : at + 1] for at in range(len(sent))]) == expected
    crlf = sent.replace(b"\n", b"\r\n")
    again = translated(case["call"], [crlf[at : at + 7] for at in range(0, len(crlf), 7)])
    assert again.replace(b"\r\n", b"\n") == expected


@pytest.mark.parametrize("case", files("stream"))
def test_what_a_stream_ends_with_is_what_its_events_told(case: dict[str, Any]) -> None:
    told = Told()
    events = [event for event in case["client"] if isinstance(event, dict)]
    for event in events:
        told.take(event)
    if events and "response" in events[-1] and events[-1]["type"] != "response.created":
        assert events[-1]["response"]["output"] == told.items
        assert not told.open


class Told:
    """What a client puts together from events alone; fails where they do not fit together."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.open = False
        self.parts_open = 0
        self._number = 0

    def take(self, event: dict[str, Any]) -> None:
        assert event["sequence_number"] == self._number
        self._number += 1
        kind = event["type"].removeprefix("response.")
        if "output_index" in event and kind != "output_item.added":
            assert self.open
            assert event["output_index"] == len(self.items) - 1
            assert event.get("item_id", self.items[-1]["id"]) == self.items[-1]["id"]
        match kind.rpartition(".")[::2]:
            case ("output_item", "added"):
                assert not self.open
                assert event["output_index"] == len(self.items)
                assert event["item"]["status"] == "in_progress"
                self.items.append(event["item"])
                self.open = True
            case ("output_item", "done"):
                assert not self.parts_open
                assert event["item"]["status"] in ("completed", "incomplete")
                assert {**self.items[-1], "status": None} == {**event["item"], "status": None}
                self.items[-1] = event["item"]
                self.open = False
            case ("content_part", "added"):
                assert not self.parts_open
                assert event["content_index"] == len(self.items[-1]["content"])
                self.items[-1]["content"].append(event["part"])
                self.parts_open += 1
            case ("content_part", "done"):
                assert self.items[-1]["content"][event["content_index"]] == event["part"]
                self.parts_open -= 1
            case (what, "delta"):
                self._fill(what, event)
            case (what, "done") if what != "output_item":
                self._compare(what, event)
            case ("output_text.annotation", "added"):
                self.items[-1]["content"][-1]["annotations"].append(event["annotation"])

    def _fill(self, what: str, event: dict[str, Any]) -> None:
        item = self.items[-1]
        if "content_index" not in event:
            item["arguments" if what == "function_call_arguments" else "input"] += event["delta"]
            return
        part = item["content"][event["content_index"]]
        part["refusal" if what == "refusal" else "text"] += event["delta"]
        part["logprobs"] = part["logprobs"] + event["logprobs"] if "logprobs" in part else []
        if part["type"] != "output_text":
            del part["logprobs"]

    def _compare(self, what: str, event: dict[str, Any]) -> None:
        item = self.items[-1]
        if "content_index" not in event:
            member = "arguments" if what == "function_call_arguments" else "input"
            assert item[member] == event[member]
        else:
            member = "refusal" if what == "refusal" else "text"
            assert item["content"][event["content_index"]][member] == event[member]


TEXTS = st.text(max_size=8)
CALLS = st.lists(
    st.fixed_dictionaries(
        {"index": st.integers(0, 2), "function": st.fixed_dictionaries({"arguments": TEXTS}, optional={"name": TEXTS})},
        optional={"id": st.sampled_from(["", "x", "y"])},
    ),
    max_size=3,
)
DELTAS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"content": TEXTS, "reasoning_content": TEXTS, "refusal": TEXTS, "tool_calls": CALLS}
    ),
    max_size=8,
)
TOOLS = [{"type": "custom", "name": "a"}, {"type": "function", "name": "b"}]


@settings(max_examples=150)
@given(DELTAS, st.sampled_from(["stop", "length", "tool_calls", "content_filter", ""]), st.booleans())
def test_any_stream_is_told_in_order_and_nothing_is_lost(
    deltas: list[dict[str, Any]], finish: str, tools: bool
) -> None:
    chunks: list[Any] = [{"id": "1", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    if finish:
        chunks.append({"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    body = {**HI, "tools": TOOLS} if tools else HI
    events = events_in(translated(body, [stream_of([*chunks, "[DONE]"])]))
    told = Told()
    for event in events[:-1]:
        told.take(event)
    last = events[-1]["response"]
    assert last["status"] == ("incomplete" if finish in ("length", "content_filter") else "completed")
    assert [item["id"] for item in last["output"]] == [item["id"] for item in told.items]
    arguments = [piece["function"]["arguments"] for delta in deltas for piece in delta.get("tool_calls", ())]
    shown = [item.get("arguments", item.get("input", "")) for item in last["output"]]
    if not tools:
        assert sorted("".join(arguments)) == sorted("".join(shown))
    for kind, member, name in (
        ("output_text", "text", "content"),
        ("refusal", "refusal", "refusal"),
        ("reasoning_text", "text", "reasoning_content"),
    ):
        parts = [part for item in last["output"] for part in item.get("content", ()) if part["type"] == kind]
        assert "".join(part[member] for part in parts) == "".join(delta.get(name, "") for delta in deltas)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KNOWN = st.sampled_from(
    [
        "text",
        "reasoning",
        "tools",
        "tool_choice",
        "include",
        "metadata",
        "store",
        "top_logprobs",
        "instructions",
        "user",
    ]
)
ITEM_KINDS = st.sampled_from(["message", "function_call", "custom_tool_call", "function_call_output", "reasoning"])
ITEMS = st.lists(
    st.fixed_dictionaries(
        {"type": ITEM_KINDS},
        optional={
            "role": st.sampled_from(["user", "assistant", "system"]),
            "content": JSON | st.lists(st.fixed_dictionaries({"type": st.sampled_from(["input_text", "input_image"])})),
            "call_id": JSON,
            "name": JSON,
            "arguments": JSON,
            "input": JSON,
            "output": JSON,
            "summary": JSON,
        },
    ),
    max_size=4,
)


@settings(max_examples=150)
@given(ITEMS | JSON.filter(lambda value: value is not None), st.dictionaries(KNOWN, JSON, max_size=4))
def test_any_request_is_translated_or_refused_by_name(given_input: Any, more: dict[str, Any]) -> None:
    body = {"model": "m", **more, "input": given_input}
    if not isinstance(body.get("metadata"), dict):
        body.pop("metadata", None)  # refused before, by the one look at every call
    if not isinstance(body.get("tools"), list):
        body.pop("tools", None)
    call = call_of(body)
    lost = HOW.obstacles(call)
    assert all(lost.refused) and all(lost.dropped)  # noqa: PT018 - one thing: every loss has a name
    if not lost.refused:
        sent = HOW.request(call)
        assert sent.endpoint is Endpoint.CHAT
        assert all(message["role"] in ("system", "user", "assistant", "tool") for message in sent.decoded("messages"))


@settings(max_examples=150)
@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_answer_and_any_event_is_taken(data: bytes) -> None:
    HOW.answer(call_of(HI), data, CODEC)
    translated(HI, [b"data: ", data, b"\n\ndata: [DONE]\n\n"])
    for name in ("choices", "usage", "error", "message", "delta"):
        try:
            value = json.loads(data)
        except ValueError:
            return
        HOW.answer(call_of(HI), json.dumps({name: value, "choices": [{"message": value}]}).encode(), CODEC)
        translated(HI, [stream_of([{"choices": [{"delta": {name: value, "tool_calls": value}, name: value}]}])])


COUNTS = st.integers(0, 50)
USAGES = st.fixed_dictionaries(
    {"prompt_tokens": COUNTS, "completion_tokens": COUNTS},
    optional={
        "total_tokens": st.integers(0, 200),
        "prompt_cache_hit_tokens": COUNTS,
        "cache_read_input_tokens": COUNTS,
        "cache_creation_input_tokens": COUNTS,
        "reasoning_tokens": COUNTS,
        "prompt_tokens_details": st.dictionaries(
            st.sampled_from(["cached_tokens", "audio_tokens", "image_tokens", "cache_write_tokens"]), COUNTS
        ),
        "completion_tokens_details": st.dictionaries(
            st.sampled_from(["reasoning_tokens", "audio_tokens", "image_tokens"]), COUNTS
        ),
        "service_tier": st.sampled_from(["flex", "default", "priority"]),
        "server_tool_use": st.fixed_dictionaries({"web_search_requests": COUNTS}),
        "cache_creation": st.fixed_dictionaries({"ephemeral_1h_input_tokens": COUNTS}),
    },
)


@settings(max_examples=200)
@given(USAGES)
def test_a_translated_usage_is_billed_as_the_original(usage: dict[str, Any]) -> None:
    answer = {"id": "1", "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": usage}
    body = HOW.answer(call_of(HI), json.dumps(answer).encode(), CODEC)
    seen = VIEWS[Endpoint.RESPONSES].answer(body)
    assert seen is not None
    assert seen.usage is not None
    assert read_usage(seen.usage) == read_usage(usage)
