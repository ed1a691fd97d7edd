"""One stream through the tap: what the client gets, what was seen, what it was worth (contract section 1, "Bytes")."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.failures import Kind
from gateway.core.stream import StreamTap, judge_stream
from gateway.errors import UpstreamFailure
from gateway.views.openai import read_chunk


def add_cost(data: bytes, usage: dict[str, Any]) -> bytes:
    """As the engine does it, but by the simplest means."""
    priced = json.dumps({**usage, "cost": 0.5}).encode()
    return data.replace(json.dumps(usage).encode(), priced)


def tap(*, show_usage: bool = False) -> StreamTap:
    return StreamTap(read_chunk, show_usage=show_usage, add_cost=add_cost)


def event(value: object, end: bytes = b"\n\n") -> bytes:
    return b"data: " + json.dumps(value).encode() + end


def delta(finish: str | None = None, **members: object) -> bytes:
    return event({"id": "c", "choices": [{"index": 0, "delta": members, "finish_reason": finish}]})


COUNTS = {"prompt_tokens": 1, "completion_tokens": 2}
PRICED = {**COUNTS, "cost": 0.5}
ROLE = delta(role="assistant", content="")
HELLO = delta(content="hello")
STOP = delta("stop")
USAGE = event({"id": "c", "choices": [], "usage": COUNTS})
USAGE_PRICED = event({"id": "c", "choices": [], "usage": PRICED})
DONE = b"data: [DONE]\n\n"
ERROR = event({"error": {"message": "boom"}})
PING = b": keep-alive\n\n"
UNKNOWN = b'event: ping\ndata: {"t": 1}\n\n'
NAMED_ERROR = b'event: error\ndata: {"x": 1}\n\n'
NOT_JSON = b'data: {"choices": [{"del\n\n'

# what, sent by the upstream, seen by a client who did not ask for usage, and by one who did
PASSING: list[tuple[str, bytes, bytes, bytes]] = [
    ("a good stream", ROLE + HELLO + STOP + DONE, ROLE + HELLO + STOP + DONE, ROLE + HELLO + STOP + DONE),
    ("usage alone", HELLO + STOP + USAGE + DONE, HELLO + STOP + DONE, HELLO + STOP + USAGE_PRICED + DONE),
    (
        "usage beside content",
        event({"choices": [{"delta": {"content": "a"}}], "usage": COUNTS}) + DONE,
        event({"choices": [{"delta": {"content": "a"}}], "usage": PRICED}) + DONE,
        event({"choices": [{"delta": {"content": "a"}}], "usage": PRICED}) + DONE,
    ),
    (
        "usage in a CRLF event with a name",
        b"event: e\r\n" + event({"usage": COUNTS}, b"\r\n\r\n"),
        b"",
        b"event: e\r\n" + event({"usage": PRICED}, b"\r\n\r\n"),
    ),
    (
        "comments and unknown events",
        PING + UNKNOWN + HELLO + DONE,
        PING + UNKNOWN + HELLO + DONE,
        PING + UNKNOWN + HELLO + DONE,
    ),
    ("a line that is not JSON", HELLO + NOT_JSON + STOP + DONE, HELLO + STOP + DONE, HELLO + STOP + DONE),
    ("empty data", HELLO + b"data:\n\n" + STOP, HELLO + STOP, HELLO + STOP),
    ("an error after content", HELLO + ERROR + DONE + HELLO, HELLO + ERROR, HELLO + ERROR),
    ("an error before content", ROLE + ERROR + DONE, ROLE, ROLE),
    ("event: error", HELLO + NAMED_ERROR + DONE, HELLO + NAMED_ERROR, HELLO + NAMED_ERROR),
    ("event: error that is not JSON", HELLO + b"event: error\ndata: boom\n\n" + DONE, HELLO, HELLO),
    ("no blank line at the end", HELLO + DONE[:-2], HELLO + DONE, HELLO + DONE),  # else what we send next would join it
    ("cut in the middle of an event", HELLO + HELLO[:20], HELLO, HELLO),
]


@pytest.mark.parametrize(("sent", "plain", "asked"), [row[1:] for row in PASSING], ids=[row[0] for row in PASSING])
def test_what_passes(sent: bytes, plain: bytes, asked: bytes) -> None:
    for show_usage, expected in ((False, plain), (True, asked)):
        whole = tap(show_usage=show_usage)
        assert whole.feed(sent) + whole.end() == expected
        bytewise = tap(show_usage=show_usage)
        got = b"".join(bytewise.feed(sent[i : i + 1]) for i in range(len(sent))) + bytewise.end()
        assert got == expected


def test_a_finish_that_is_an_error_is_held_back_where_the_answer_may_go_on_but_its_usage_is_seen() -> None:
    chunk = b'data: {"choices":[{"delta":{},"finish_reason":"error"}],"usage":{"prompt_tokens":3}}\n\n'
    stream = StreamTap(read_chunk, show_usage=True, add_cost=lambda data, _: data, pass_errors=False)
    assert stream.feed(HELLO + chunk + DONE) == HELLO
    assert (stream.finish, stream.usage) == ("error", {"prompt_tokens": 3})


def test_what_is_seen() -> None:
    stream = tap()
    commits = [bool(stream.feed(piece)) and stream.useful for piece in (ROLE, PING, delta(reasoning_content="hm"))]
    assert commits == [False, False, True]
    stream.feed(NOT_JSON + HELLO + STOP + USAGE + DONE)
    assert (stream.finish, stream.usage, stream.done, stream.dropped) == ("stop", COUNTS, True, 1)
    assert (stream.text_bytes, stream.reasoning_bytes, stream.events) == (5, 2, 7)
    assert (stream.error, stream.error_passed) == (None, False)


def test_the_last_usage_counts() -> None:
    stream = tap()
    stream.feed(event({"choices": [], "usage": {"prompt_tokens": 1}}) + USAGE + event({"choices": [], "usage": None}))
    assert stream.usage == COUNTS


@pytest.mark.parametrize(
    ("sent", "error", "passed"),
    [
        (ERROR, {"message": "boom"}, False),
        (HELLO + ERROR, {"message": "boom"}, True),
        (HELLO + b"event: error\ndata: boom\n\n", "boom", False),
        (HELLO + NAMED_ERROR, '{"x": 1}', True),
    ],
)
def test_errors_are_kept(sent: bytes, error: object, passed: bool) -> None:
    stream = tap()
    stream.feed(sent)
    assert (stream.error, stream.error_passed) == (error, passed)


def test_an_endless_event_is_refused() -> None:
    stream = tap()
    with pytest.raises(UpstreamFailure, match="longer than"):
        stream.feed(b"data: " + b"x" * (17 * 1024 * 1024))


# what, sent, kind, kind where the last message was a tool result
WORTH: list[tuple[str, bytes, Kind | None, Kind | None]] = [
    ("finish and [DONE]", HELLO + STOP + DONE, None, None),
    ("finish alone", HELLO + STOP, None, None),
    ("[DONE] alone", HELLO + DONE, None, None),
    ("neither", HELLO, Kind.STREAM_CUT, Kind.STREAM_CUT),
    ("nothing at all", b"", Kind.STREAM_CUT, Kind.STREAM_CUT),
    ("HTML", b"<html>\n\n</html>", Kind.STREAM_CUT, Kind.STREAM_CUT),
    ("an error before content", ROLE + ERROR + DONE, Kind.STREAM_CUT, Kind.STREAM_CUT),
    ("an error after content", HELLO + ERROR, Kind.STREAM_CUT, Kind.STREAM_CUT),
    ("a finish that says it broke", HELLO + delta("error") + DONE, Kind.STREAM_CUT, Kind.STREAM_CUT),
    ("one bad line in a good stream", HELLO + NOT_JSON + STOP + DONE, None, None),
    ("nothing useful", ROLE + STOP + DONE, Kind.EMPTY, None),
    ("no choices", USAGE + DONE, Kind.EMPTY, Kind.EMPTY),
    ("length and nothing", ROLE + delta("length") + DONE, None, None),
    ("filtered", ROLE + delta("content_filter") + DONE, Kind.CONTENT_FILTER, Kind.CONTENT_FILTER),
    ("filtered after content", HELLO + delta("content_filter") + DONE, None, None),
    ("a tool call with null content", delta("tool_calls", content=None, tool_calls=[{"index": 0}]) + DONE, None, None),
    ("reasoning alone", delta(reasoning="hm") + STOP + DONE, None, None),
]


@pytest.mark.parametrize(("sent", "kind", "after_tool"), [row[1:] for row in WORTH], ids=[row[0] for row in WORTH])
def test_what_it_was_worth(sent: bytes, kind: Kind | None, after_tool: Kind | None) -> None:
    stream = tap()
    stream.feed(sent)
    stream.end()
    assert judge_stream(stream, ends_in_tool_result=False) is kind
    assert judge_stream(stream, ends_in_tool_result=True) is after_tool


PIECES = st.sampled_from(
    [ROLE, HELLO, STOP, USAGE, DONE, ERROR, PING, UNKNOWN, NOT_JSON, HELLO.replace(b"\n", b"\r\n")]
)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=8), st.booleans(), st.integers(1, 60))
def test_cut_anywhere_gives_the_same(pieces: list[bytes], show_usage: bool, step: int) -> None:
    sent = b"".join(pieces)
    whole, cut = tap(show_usage=show_usage), tap(show_usage=show_usage)
    expected = whole.feed(sent) + whole.end()
    assert b"".join(cut.feed(sent[i : i + step]) for i in range(0, len(sent), step)) + cut.end() == expected
    for name in ("useful", "finish", "usage", "error", "done", "dropped", "events", "text_bytes"):
        assert getattr(cut, name) == getattr(whole, name)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=8))
def test_nothing_follows_an_error(pieces: list[bytes]) -> None:
    stream = tap()
    stream.feed(b"".join(pieces) + ERROR)
    assert stream.feed(HELLO + DONE) + stream.end() == b""
