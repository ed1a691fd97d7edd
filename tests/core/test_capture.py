"""What is kept of a prompt and an answer: bounded, redacted across its cuts, assembled from any stream."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.redact import redact
from gateway.core.capture import MARGIN, Assembly, Capture, kept, window
from gateway.wire import CODEC

SECRET = "sk-" + "abcDEF0123456789" * 4
CAPTURE = Capture(max_bytes=1000)


def sse(*chunks: object) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def content(text: str, index: int = 0) -> dict[str, object]:
    return {"choices": [{"index": index, "delta": {"content": text}}]}


def gathered(*pieces: bytes, stream: bool = True) -> str:
    assembly = Assembly(CAPTURE, CODEC)
    assembly.begin(stream=stream)
    for piece in pieces:
        assembly.feed(piece)
    return kept(assembly.content(b"").answer, CAPTURE.max_bytes, redact)[0]


def test_a_short_text_is_kept_whole() -> None:
    assert kept(window(b"hello", 1000), 1000, redact) == ("hello", 0)


@pytest.mark.parametrize("size", [1001, 3000, 1000 + 2 * MARGIN, 1001 + 2 * MARGIN, 1_000_000])
def test_of_a_long_one_the_beginning_and_the_end(size: int) -> None:
    text = "".join(chr(ord("a") + i % 26) for i in range(size))
    shown, _ = kept(window(text.encode(), 1000), 1000, redact)
    head, _, tail = shown.partition("\n[... about ")
    assert text.startswith(head)
    assert text.endswith(tail.partition("...]\n")[2])
    assert len(head) == len(tail.partition("...]\n")[2]) == 500
    assert f"{size - 1000} bytes left out" in shown


@given(st.integers(0, 40_000), st.integers(10, 40_000))
def test_wherever_a_secret_lies_nothing_of_it_is_kept(before: int, after: int) -> None:
    text = "." * before + " " + SECRET + " " + "." * after
    seen = window(text.encode(), 1000)
    assert len(seen.head) + len(seen.tail) <= 1000 + 2 * MARGIN
    shown, _ = kept(seen, 1000, redact)
    assert "abcDEF" not in shown
    assert len(shown) < 1100


def test_a_stream_is_assembled_and_a_secret_in_pieces_is_found() -> None:
    chunks = [content(piece) for piece in ("Use ", SECRET[:7], SECRET[7:20], SECRET[20:], " now")]
    told = gathered(sse(*chunks))
    assert json.loads(told) == {"streamed": [{"index": 0, "content": "Use [redacted] now"}]}


@given(st.integers(1, 200))
def test_cut_anywhere(size: int) -> None:
    whole = sse(content("Hel"), content("lo"), content("you", 1), {"choices": [], "usage": {}})
    told = gathered(*(whole[i : i + size] for i in range(0, len(whole), size)))
    assert json.loads(told)["streamed"] == [{"index": 0, "content": "Hello"}, {"index": 1, "content": "you"}]


def test_tool_calls_reasoning_and_other_apis() -> None:
    call = {"index": 0, "function": {"name": "look", "arguments": '{"a"'}}
    more = {"index": 0, "function": {"arguments": ":1}"}}
    told = gathered(sse(*({"choices": [{"index": 0, "delta": {"tool_calls": [each]}}]} for each in (call, more))))
    assert json.loads(told)["streamed"][0]["tool_call 0 arguments"] == '{"a":1}'
    thought = {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}
    assert json.loads(gathered(sse(thought)))["streamed"] == [{"index": 0, "reasoning": "hm"}]
    anthropic = {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "hi"}}
    assert json.loads(gathered(sse(anthropic)))["streamed"] == [{"index": 1, "text": "hi"}]
    responses = {"type": "response.output_text.delta", "output_index": 0, "delta": "ho"}
    assert json.loads(gathered(sse(responses)))["streamed"] == [{"index": 0, "output_text": "ho"}]


def test_a_long_stream_is_gathered_only_so_far() -> None:
    assembly = Assembly(CAPTURE, CODEC)
    assembly.begin(stream=True)
    event = b"data: " + json.dumps(content("word " * 100)).encode() + b"\n\n"
    for _ in range(1000):
        assembly.feed(event)
    answer = assembly.content(b"").answer
    assert len(answer.head) + len(answer.tail) < 1000 + 3 * MARGIN
    assert answer.size == 1000 * len(event)
    assert len(kept(answer, 1000, redact)[0]) < 1100


@given(st.lists(st.binary(max_size=60), max_size=5), st.booleans())
def test_nonsense_is_survived(pieces: list[bytes], stream: bool) -> None:
    gathered(*(b"data: " + piece + b"\n\n" for piece in pieces), stream=stream)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["choices", "delta", "index", "tool_calls", "type"]), inner)
        ),
    )
)
def test_odd_events_are_survived(event: object) -> None:
    gathered(sse(event, content("fine")))
