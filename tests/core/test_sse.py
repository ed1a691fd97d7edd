"""Bytes -> events, wherever they are cut (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.sse import Event, Framer, with_data
from gateway.errors import UpstreamFailure


def events(*pieces: bytes) -> list[Event]:
    framer = Framer()
    out: list[Event] = []
    for piece in pieces:
        out += framer.feed(piece)
    return out + framer.end()


# what, input, (data, name) of each event
STREAMS: list[tuple[str, bytes, list[tuple[bytes | None, str]]]] = [
    ("one event", b"data: a\n\n", [(b"a", "")]),
    ("two at once", b"data: a\n\ndata: b\n\n", [(b"a", ""), (b"b", "")]),
    ("CRLF", b"data: a\r\n\r\ndata: b\r\n\r\n", [(b"a", ""), (b"b", "")]),
    ("CR", b"data: a\r\rdata: b\r\r", [(b"a", ""), (b"b", "")]),
    (
        "mixed ends",
        b"data: a\r\n\ndata: b\n\r\ndata: c\n\rdata: d\r\r\n",
        [(b"a", ""), (b"b", ""), (b"c", ""), (b"d", "")],
    ),
    ("several data lines", b"data: a\ndata\ndata: b\n\n", [(b"a\n\nb", "")]),
    ("a comment alone", b": keep-alive\n\n", [(None, "")]),
    ("a comment within", b": hello\ndata: a\n\n", [(b"a", "")]),
    ("a name", b"event: error\ndata: a\n\n", [(b"a", "error")]),
    ("a name without data", b"event: ping\n\n", [(None, "ping")]),
    ("id and retry", b"id: 7\nretry: 10\ndata: a\n\n", [(b"a", "")]),
    ("no space after the colon", b"data:a\n\n", [(b"a", "")]),
    ("only one space is the separator", b"data:  a\n\n", [(b" a", "")]),
    ("a colon in the value", b'data: {"a": 1}\n\n', [(b'{"a": 1}', "")]),
    ("empty data", b"data:\n\n", [(b"", "")]),
    ("a byte order mark", b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", [(b"a", ""), (b"b", "")]),
    ("only at the start", b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [(b"a", ""), (None, "")]),
    ("the same with CRLF", b"data: a\r\n\r\n\xef\xbb\xbfdata: b\r\n\r\n", [(b"a", ""), (None, "")]),
    ("stray blank lines", b"\n\ndata: a\n\n\n", [(None, ""), (b"a", ""), (None, "")]),
    ("no blank line at the end", b"data: a\n\ndata: b\n", [(b"a", ""), (b"b", "")]),
    ("no line end at the end", b"data: a\n\ndata: b", [(b"a", ""), (b"b", "")]),
    ("a CR for the last byte", b"data: a\r\n\r", [(b"a", "")]),
    ("nothing", b"", []),
    ("not UTF-8", b"event: \xff\ndata: \xff\n\n", [(b"\xff", "�")]),
]


@pytest.mark.parametrize(("source", "expected"), [row[1:] for row in STREAMS], ids=[row[0] for row in STREAMS])
def test_streams(source: bytes, expected: list[tuple[bytes | None, str]]) -> None:
    assert [(event.data, event.name) for event in events(source)] == expected


@pytest.mark.parametrize("source", [row[1] for row in STREAMS], ids=[row[0] for row in STREAMS])
def test_cut_at_every_byte(source: bytes) -> None:
    whole = events(source)
    assert b"".join(event.raw for event in whole) == source
    assert events(*[source[i : i + 1] for i in range(len(source))]) == whole
    for cut in range(len(source) + 1):
        assert events(source[:cut], source[cut:]) == whole


LINES = st.sampled_from(
    [b"data: x", b"data:y", b"data", b": c", b"event: e", b"", b"", b"\xef\xbb\xbf", b"data: \xe2\x82\xac"]
)
ENDS = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])
SOURCES = st.one_of(
    st.lists(st.tuples(LINES, ENDS)).map(lambda lines: b"".join(line + end for line, end in lines)),
    st.lists(LINES).map(lambda lines: b"".join(line + b"\n" for line in lines)),
    st.binary(max_size=60),
)


@settings(deadline=None)
@given(SOURCES, st.lists(st.integers(0, 80)))
def test_cut_anywhere(source: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(source)), len(source)]
    whole = events(source)
    assert events(*[source[a:b] for a, b in itertools.pairwise(edges)]) == whole
    assert b"".join(event.raw for event in whole) == source


def test_an_event_comes_as_soon_as_it_is_whole() -> None:
    framer = Framer()
    assert framer.feed(b"data: a\n") == []
    assert [event.data for event in framer.feed(b"\ndata: b")] == [b"a"]
    assert [event.data for event in framer.feed(b"\n\n")] == [b"b"]
    assert [event.data for event in framer.feed(b"data: c\r\n\r\n")] == [b"c"]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_an_event_may_have_as_many_bytes_as_the_limit(end: bytes) -> None:
    event = b"data: " + b"x" * 20 + end
    assert len(Framer(len(event)).feed(event * 3)) == 3
    with pytest.raises(UpstreamFailure, match="longer than"):
        Framer(len(event) - 1).feed(event)
    framer = Framer(len(event) - 1)
    assert framer.feed(event[:-1]) == []
    with pytest.raises(UpstreamFailure, match="longer than"):
        framer.feed(event[-1:])


# source, new data, what becomes of it
REWRITES: list[tuple[bytes, bytes, bytes]] = [
    (b"data: a\n\n", b"b", b"data: b\n\n"),
    (b"data:a\r\n\r\n", b"b", b"data: b\r\n\r\n"),
    (b": c\nevent: e\ndata: a\nid: 7\n\n", b"b", b": c\nevent: e\ndata: b\nid: 7\n\n"),
    (b"data: a\ndata: b\n\n", b"c", b"data: c\n\n"),
    (b"data: a\n\n", b"b\nc", b"data: b\ndata: c\n\n"),
    (b"\xef\xbb\xbfdata: a\n\n", b"b", b"\xef\xbb\xbfdata: b\n\n"),
    (b"data: a", b"b", b"data: b"),
]


@pytest.mark.parametrize(("source", "data", "expected"), REWRITES)
def test_with_data(source: bytes, data: bytes, expected: bytes) -> None:
    (event,) = events(source)
    assert with_data(event, data) == expected
