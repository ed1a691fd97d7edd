"""The exchange without a network: answers cut anywhere, cut short anywhere, and with bytes changed anywhere."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import Any, NamedTuple, cast

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamFailure
from gateway.providers.http_exchange import READ_SIZE, Connection, HttpResponse


def receive(connection: Connection, data: bytes) -> None:
    """As an event loop does it: into the connection's buffer, and no more than fits."""
    for start in range(0, len(data), READ_SIZE):
        piece = data[start : start + READ_SIZE]
        connection.get_buffer(-1)[: len(piece)] = piece
        connection.buffer_updated(len(piece))


class Pool:
    """Counts what comes back."""

    def __init__(self) -> None:
        self.released = 0
        self.forgotten = 0

    def release(self, connection: Connection) -> None:  # noqa: ARG002  # the Protocol's signature
        self.released += 1

    def forget(self, connection: Connection, *, closed: bool) -> None:  # noqa: ARG002  # the same
        self.forgotten += 1


class Transport:
    """A transport that goes nowhere."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.paused = False
        self.aborted = False

    def fileno(self) -> int:
        return self._fd

    def get_extra_info(self, name: str) -> Any:
        return self if name == "socket" else None

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == 0

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Outcome(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    failed: bool
    released: bool


async def _exchange(pieces: list[bytes], *, ends: bool) -> Outcome:
    pool = Pool()
    fd = os.open(os.devnull, os.O_RDONLY)
    transport = Transport(fd)
    connection = Connection(pool, bytearray(READ_SIZE))
    connection.connection_made(cast("asyncio.Transport", transport))
    response = HttpResponse(connection, reused=False)
    response.sent = True
    for piece in pieces:
        if transport.paused:
            break
        receive(connection, piece)
    if ends and not transport.paused:
        connection.eof_received()
    body, failed = b"", False
    try:
        async with asyncio.timeout(0):
            while data := await response.chunk():
                body += data
    except (UpstreamFailure, TimeoutError):
        failed = True
    response.close()
    response.close()
    os.close(fd)
    assert connection.exchange is None
    assert pool.released + pool.forgotten == 1
    assert transport.aborted == (pool.released == 0)
    return Outcome(response.status, dict(response.headers), body, failed, pool.released == 1)


def exchange(pieces: list[bytes], *, ends: bool = False) -> Outcome:
    return asyncio.run(_exchange(pieces, ends=ends))


class Sent(NamedTuple):
    raw: bytes
    status: int
    body: bytes
    needs_end: bool


@st.composite
def answers(draw: st.DrawFn) -> Sent:
    status = draw(st.sampled_from([200, 201, 400, 429, 500, 503]))
    parts = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    body = b"".join(parts)
    interim = draw(
        st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nlink: a\r\n\r\n" * 2])
    )
    head = interim + b"HTTP/1.1 %d Said\r\nX-One: 1\r\nx-two:2 \r\n" % status
    framing = draw(st.sampled_from(["length", "chunked", "end"]))
    if framing == "length":
        return Sent(head + b"content-length: %d\r\n\r\n" % len(body) + body, status, body, False)
    if framing == "end":
        return Sent(head + b"\r\n" + body, status, body, True)
    trailer = draw(st.sampled_from([b"", b"x-trailer: t\r\n"]))
    chunks = b"".join(b"%x;e=1\r\n%b\r\n" % (len(part), part) for part in parts)
    return Sent(
        head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n", status, body, False
    )


def cut(raw: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(raw), *(place % (len(raw) + 1) for place in at)})
    return [raw[start:end] for start, end in itertools.pairwise(edges)]


CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@given(answers(), CUTS)
def test_cut_anywhere_it_is_the_same_answer(sent: Sent, at: list[int]) -> None:
    got = exchange(cut(sent.raw, at), ends=sent.needs_end)
    assert (got.status, got.body, got.failed, got.released) == (sent.status, sent.body, False, not sent.needs_end)
    assert (got.headers["x-one"], got.headers["x-two"]) == ("1", "2")
    assert not {"link", "x-trailer"} & got.headers.keys()


@given(answers())
def test_cut_at_every_byte(sent: Sent) -> None:
    got = exchange([sent.raw[i : i + 1] for i in range(len(sent.raw))], ends=sent.needs_end)
    assert (got.status, got.body, got.failed) == (sent.status, sent.body, False)


@given(answers().filter(lambda sent: not sent.needs_end), st.integers(0, 10_000), CUTS)
def test_cut_short_it_is_never_whole(sent: Sent, length: int, at: list[int]) -> None:
    short = sent.raw[: length % len(sent.raw)]
    got = exchange(cut(short, at), ends=True)
    assert (got.failed, got.released) == (True, False)
    assert sent.body.startswith(got.body)


@given(answers().filter(lambda sent: not sent.needs_end), st.binary(min_size=1), CUTS)
def test_with_bytes_behind_it_is_never_kept(sent: Sent, stray: bytes, at: list[int]) -> None:
    """But for line breaks alone: llhttp skips those that come with the answer, and they are nobody's answer."""
    got = exchange(cut(sent.raw + stray, at))
    assert (got.status, got.body, got.failed) == (sent.status, sent.body, False)
    assert not got.released or not stray.strip(b"\r\n")


@given(answers(), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4), CUTS)
def test_damaged_it_fails_or_ends_in_order(sent: Sent, damage: list[tuple[int, int]], at: list[int]) -> None:
    """Nothing but UpstreamFailure is ever raised, and the connection is dealt with once (`_exchange` asserts it)."""
    raw = bytearray(sent.raw)
    for place, value in damage:
        raw[place % len(raw)] = value
    got = exchange(cut(bytes(raw), at), ends=True)
    assert not (got.failed and got.released)


@given(st.binary(max_size=300), CUTS)
def test_noise(noise: bytes, at: list[int]) -> None:
    got = exchange(cut(noise, at), ends=True)
    assert not got.released
