"""Translations between dialects: golden files both ways, and what holds for any stream and any request.

The files in tests/data/translate are made from documentation (Anthropic's messages and streaming pages, OpenAI's chat
reference; 2026-11), not from live servers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.call import parse
from gateway.core.forms import Endpoint
from gateway.core.rules import Model
from gateway.core.translate import Translation, losses, outgoing, translation
from gateway.core.translate.responses_to_chat import RESPONSES_TO_CHAT
from gateway.core.usage import read_usage
from gateway.wire import CODEC
from tests.core.translating import (
    CHAT,
    call_of,
    events_in,
    stream_of,
    translate_answer,
    translate_bytes,
    translate_request,
    translate_stream,
)

FOLDER = Path(__file__).parents[1] / "data/translate/messages-chat"
HI: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


def files(kind: str) -> list[Any]:
    found = sorted(FOLDER.glob(f"{kind}-*.json"))
    assert found
    return [pytest.param(json.loads(path.read_text()), id=path.stem) for path in found]


@pytest.mark.parametrize("case", files("request"))
def test_requests(case: dict[str, Any]) -> None:
    made = translate_request(case.pop("call"))
    assert made == case


@pytest.mark.parametrize("case", files("answer"))
def test_answers(case: dict[str, Any]) -> None:
    assert translate_answer(case["call"], case["upstream"]) == case["client"]


@pytest.mark.parametrize("case", files("stream"))
def test_streams(case: dict[str, Any]) -> None:
    assert translate_stream(case["call"], case["upstream"]) == case["client"]


@pytest.mark.parametrize("case", files("stream"))
def test_a_stream_cut_anywhere_gives_the_same_bytes(case: dict[str, Any]) -> None:
    whole = stream_of(case["upstream"])
    expected = translate_bytes(case["call"], [whole])
    assert translate_bytes(case["call"], [whole[at : at + 1] for at in range(len(whole))]) == expected
    crlf = whole.replace(b"\n", b"\r\n")
    sent = translate_bytes(case["call"], [crlf[at : at + 7] for at in range(0, len(crlf), 7)])
    assert sent.replace(b"\r\n", b"\n") == expected


TEXTS = st.text(max_size=8)
CALLS = st.lists(
    st.fixed_dictionaries(
        {"index": st.integers(0, 2), "function": st.fixed_dictionaries({"arguments": TEXTS})},
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


@given(DELTAS, st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
@settings(max_examples=300, deadline=None)
def test_any_stream_is_in_anthropics_order_and_whole(deltas: list[dict[str, Any]], finish: str) -> None:
    """One message, blocks one after the other, nothing before its start or after its stop; every character comes."""
    chunks: list[Any] = [{"id": "c", "model": "u", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks += [{"id": "c", "model": "u", "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}, "[DONE]"]
    events = translate_stream({**HI, "stream": True}, chunks)
    kinds = [event["type"] for event in events if event["type"] != "ping"]
    assert kinds[0] == "message_start"
    if "error" in kinds:  # a call that went on after text came in between: whoever reads stops here
        return
    assert kinds[-2:] == ["message_delta", "message_stop"]
    opened: list[dict[str, Any]] = []
    is_open = False
    for event in events[1:]:
        if event["type"] == "content_block_start":
            assert not is_open
            assert event["index"] == len(opened)
            opened.append({**event["content_block"], "got": ""})
            is_open = True
        elif event["type"] == "content_block_delta":
            assert is_open
            assert event["index"] == len(opened) - 1
            delta = event["delta"]
            opened[-1]["got"] += delta.get("text", "") + delta.get("thinking", "") + delta.get("partial_json", "")
        elif event["type"] == "content_block_stop":
            assert is_open
            is_open = False
    assert not is_open
    said = {
        kind: "".join(block["got"] for block in opened if block["type"] == kind)
        for kind in ("text", "thinking", "tool_use")
    }
    assert said["text"] == "".join(delta.get("content", "") + delta.get("refusal", "") for delta in deltas)
    assert said["thinking"] == "".join(delta.get("reasoning_content", "") for delta in deltas)
    given = "".join(call["function"]["arguments"] for delta in deltas for call in delta.get("tool_calls", []))
    assert sorted(said["tool_use"]) == sorted(given)


COUNTS = st.integers(0, 10_000)


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.sampled_from([None, "priority", "flex", "default"]))
def test_what_is_billed_survives(
    into: int, cached: int, written: int, out: int, thought: int, tier: str | None
) -> None:
    """The same tokens, by type, come out of the client's usage as went into the upstream's."""
    usage = {
        "prompt_tokens": into + cached + written,
        "completion_tokens": out + thought,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written, "audio_tokens": into // 2},
        "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": out // 3},
    }
    answer = {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    translated = translate_answer(HI, {**answer, "service_tier": tier})["usage"]
    expected = read_usage({**usage, "service_tier": tier})
    assert expected is not None
    if expected.more is not None and expected.more.image_input:
        pytest.fail("no images here")
    assert read_usage(translated) == expected


NAMES = "type text content role source data url title name input tool_use_id format id choices message delta tool_calls"
MORE_NAMES = "function arguments usage error index finish_reason"
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(f"{NAMES} {MORE_NAMES}".split()), inner, max_size=4)
    ),
    max_leaves=12,
)
TYPES = st.sampled_from(["text", "image", "document", "tool_use", "tool_result", "thinking", "search_result", "x"])
TYPED = st.builds(lambda kind, more: {**(more if isinstance(more, dict) else {}), "type": kind}, TYPES, JSON_VALUES)
BLOCKS = st.lists(JSON_VALUES | TYPED, max_size=3)


@given(st.sampled_from(["user", "assistant", "system", "x"]), BLOCKS, JSON_VALUES)
@settings(max_examples=300, deadline=None)
def test_any_request_is_carried_or_refused(role: str, blocks: list[Any], value: Any) -> None:
    body = {**HI, "messages": [{"role": role, "content": blocks}], "thinking": value, "tool_choice": value}
    translate_request({**body, "output_config": value, "system": value})


@given(JSON_VALUES)
@settings(max_examples=300, deadline=None)
def test_any_answer_is_translated_or_passed(value: Any) -> None:
    translate_answer(HI, value)
    translate_answer(HI, {"choices": [{"message": value}], "usage": value, "error": None})
    CHAT.error(400, json.dumps(value).encode(), CODEC)
    translate_bytes(HI, [stream_of([value, {"choices": [{"delta": value}]}, "[DONE]"])])


def test_an_upstreams_refusal_keeps_what_it_is_judged_by() -> None:
    long, size = "context_length_exceeded", "exceed_context_size_error"
    refusals = [
        ({"error": {"message": "m", "type": "invalid_request_error", "code": long}}, long),
        ({"error": {"message": "m", "type": size, "code": 400}}, size),
        ({"error": {"message": "m"}}, None),
        ([{"error": {"message": "m", "status": "INVALID_ARGUMENT", "code": 400}}], "INVALID_ARGUMENT"),
        ({"detail": "m"}, None),
    ]  # fmt: skip
    for body, code in refusals:
        said = json.loads(CHAT.error(400, json.dumps(body).encode(), CODEC))
        assert said == {"type": "error", "error": {"type": "invalid_request_error", "message": "m", "code": code}}
    plain = json.loads(CHAT.error(422, b"<html>no</html>", CODEC))
    assert plain["error"]["message"] == "<html>no</html>"


def model(**more: Any) -> Model:
    return Model("m", "p", "m-up", **more)


def test_what_a_server_is_known_to_refuse_is_left_out_and_named() -> None:
    call = call_of({**HI, "top_k": 5, "output_config": {"effort": "low"}, "cache_control": {"type": "ephemeral"}})
    plain, thinker = model(), model(supports=frozenset({"reasoning"}))
    openai = model(server="openai", cap_name="max_completion_tokens", supports=frozenset({"reasoning"}))
    qwen = model(server="dashscope", cap_name="max_completion_tokens", supports=frozenset({"reasoning"}))
    assert losses(call, plain).dropped == ("cache_control", "reasoning_effort")
    assert losses(call, thinker).dropped == ("cache_control",)
    assert losses(call, openai).dropped == ("cache_control", "top_k")
    assert losses(call, qwen).dropped == ("cache_control",)
    assert json.loads(outgoing(call, qwen).body)["top_k"] == 5
    assert json.loads(outgoing(call, qwen).body)["max_completion_tokens"] == 9
    assert json.loads(outgoing(call, thinker).body) == {
        **HI,
        "top_k": 5,
        "reasoning_effort": "low",
    }
    sent = json.loads(outgoing(call, openai).body)
    assert sent == {"model": "m", "max_completion_tokens": 9, "messages": HI["messages"], "reasoning_effort": "low"}


def test_a_begun_answer_goes_only_where_it_can_be_gone_on_with() -> None:
    call = call_of({**HI, "messages": [*HI["messages"], {"role": "assistant", "content": "Hello"}]})
    assert "prefill" in losses(call, model()).refused[0]
    able = model(supports=frozenset({"prefill"}))
    assert losses(call, able).refused == ()
    sent = json.loads(outgoing(call, able).body)
    assert sent["messages"][-1] == {"role": "assistant", "content": "Hello"}
    assert sent["continue_final_message"] is True
    assert sent["add_generation_prompt"] is False


def test_a_server_with_the_clients_own_api_needs_no_translation() -> None:
    call = call_of({**HI, "container": "c"})
    native = model(apis=frozenset({"chat", "messages"}))
    assert translation(call, native) is None
    assert losses(call, native).refused == ()
    assert outgoing(call, native) is call
    assert translation(call_of({"model": "m", "input": "x"}, Endpoint.EMBEDDINGS), model(apis=frozenset({"x"}))) is None


def test_headers_that_mean_something_to_anthropic_alone_are_left_out() -> None:
    headers = [(b"anthropic-version", b"2023-06-01"), (b"anthropic-beta", b"x"), (b"traceparent", b"00-1-2-01")]
    call = parse(Endpoint.MESSAGES, headers, json.dumps(HI).encode(), CODEC)
    assert CHAT.request(call).headers == {"traceparent": "00-1-2-01"}
    assert CHAT.obstacles(call).dropped == ("anthropic-beta",)


def test_comments_pass() -> None:
    sent = translate_bytes({**HI, "stream": True}, [b": one moment\n\n", stream_of([])])
    assert sent == b": one moment\n\n"
    assert events_in(b"") == []


def test_what_the_client_has_begun_is_not_repeated() -> None:
    """llama.cpp begins a whole answer with it; another server's answer may begin so of its own accord."""
    body = {**HI, "messages": [*HI["messages"], {"role": "assistant", "content": [{"type": "text", "text": "["}]}]}
    answer = {"choices": [{"index": 0, "message": {"content": "[[1]]"}, "finish_reason": "stop"}]}
    assert translate_answer(body, answer)["content"][0]["text"] == "[[1]]"
    assert translate_answer(body, {**answer, "timings": {}})["content"][0]["text"] == "[1]]"


@pytest.mark.parametrize("error", [{"error": {"message": "no"}}, {"object": "error", "message": "no", "code": 500}])
def test_nothing_follows_an_error(error: dict[str, Any]) -> None:
    """The second is older vLLM's. Taken for nothing, it would make half an answer a whole one."""
    begun = {"choices": [{"index": 0, "delta": {"content": "Ha"}}]}
    told = translate_stream({**HI, "stream": True}, [begun, error, "[DONE]"])
    assert [event["type"] for event in told][-2:] == ["content_block_delta", "error"]
    assert told[-1]["error"]["message"] == "no"
    assert translate_answer(HI, error)["type"] == "error"


@pytest.mark.parametrize("how", [CHAT, RESPONSES_TO_CHAT], ids=["messages", "responses"])
def test_arguments_may_be_an_object(how: Translation) -> None:
    """As TGI and some versions of llama.cpp send them."""
    body = HI if how is CHAT else {"model": "m", "input": "Hi"}
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": {"city": "K\u00f6ln"}}}
    for arguments in (call, {**call, "function": {"name": "f", "arguments": '{"city": "K\u00f6ln"}'}}):
        answer = {"choices": [{"index": 0, "message": {"tool_calls": [arguments]}, "finish_reason": "tool_calls"}]}
        made = how.answer(
            parse(_endpoint(how), [], json.dumps(body).encode(), CODEC), json.dumps(answer).encode(), CODEC
        )
        said = json.loads(made)
        given = said["content"][0]["input"] if how is CHAT else json.loads(said["output"][0]["arguments"])
        assert given == {"city": "K\u00f6ln"}


def _endpoint(how: Translation) -> Endpoint:
    return Endpoint.MESSAGES if how is CHAT else Endpoint.RESPONSES
