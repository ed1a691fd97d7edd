"""Server-sent events (WHATWG HTML, section 9.2): bytes in, whole events out, each with its exact source bytes.

Lines end in LF, CRLF or CR; an event ends where two line ends meet. Nothing is thrown away: joined, the `raw` of all
events is the input, byte for byte, wherever it was cut on its way here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.errors import UpstreamFailure

_BOM = b"\xef\xbb\xbf"

# Atomic groups: CRLF is one line end and is never tried again as two.
_EVENT_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|$)")
_LONGEST_END = 4  # bytes: CRLF CRLF


class Event(NamedTuple):
    raw: bytes  # as it came, with the blank line that ends it
    data: bytes | None  # all `data:` lines joined by newlines; None where there is none (a comment, say)
    name: str  # the `event:` field; empty where there is none


class Framer:
    """Splits a byte stream into events. Feed it anything, cut anywhere: LF, CRLF or CR, comments, multi-line data."""

    __slots__ = ("_carriage", "_first", "_limit", "_rest")

    def __init__(self, limit: int = 16 * 1024 * 1024) -> None:
        """`limit`: bytes that one event may have; more raises UpstreamFailure `malformed`."""
        self._limit = limit
        self._rest = bytearray()  # the event under way
        self._carriage = False  # a CR was seen: two LF no longer are the only end there is
        self._first = True  # only the first event may begin with a byte order mark

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes."""
        rest = self._rest
        if 13 in data or self._carriage:
            self._carriage = True
            return self._feed_any(data)
        # What nearly all servers send nearly always: a chunk that is one event of one line. Half the time of the rest.
        size = len(data)
        if not rest and data.find(10) == size - 2 and data[:6] == b"data: " and data[-1] == 10 and size <= self._limit:
            self._first = False
            return [tuple.__new__(Event, (data, data[6:-2], ""))]
        events: list[Event] = []
        if rest:
            before = len(rest)
            rest += data
            end = rest.find(b"\n\n", before - 1) + 2
            if end < 2:
                return self._keep(events)
            events.append(self._event(bytes(rest[:end])))
            data = data[end - before :]
            rest.clear()
        start = 0
        while (end := data.find(b"\n\n", start) + 2) >= 2:
            events.append(self._event(data[start:end]))
            start = end
        if start < len(data):
            rest += data[start:]
            return self._keep(events)
        return events

    def _feed_any(self, data: bytes) -> list[Event]:
        """The same where a CR was seen: any two line ends may end an event."""
        rest = self._rest
        size = len(data)
        # The usual chunk of servers that send CRLF (those on sse-starlette), a tenth of the time of the rest.
        one_line = data.find(13) == size - 4 and data.find(10) == size - 3 and data[-4:] == b"\r\n\r\n"
        if one_line and not rest and data[:6] == b"data: " and size <= self._limit:
            self._first = False
            return [Event(data, data[6:-4], "")]
        events: list[Event] = []
        scan = max(len(rest) - _LONGEST_END, 0)
        rest += data
        start = 0
        while match := _EVENT_END.search(rest, scan):
            scan = match.end()
            if scan == len(rest) and rest[-1:] == b"\r":
                break  # perhaps half of a CRLF: the next byte tells
            events.append(self._event(bytes(rest[start:scan])))
            start = scan
        del match  # it holds the buffer
        del rest[:start]
        return self._keep(events)

    def _keep(self, events: list[Event]) -> list[Event]:
        if len(self._rest) > self._limit:
            raise UpstreamFailure("malformed", f"an event is longer than {self._limit} bytes")
        return events

    def end(self) -> list[Event]:
        """What is left when the stream ends. A last event without its blank line counts: servers do that."""
        raw = bytes(self._rest)
        self._rest.clear()
        return [self._event(raw)] if raw else []

    def _event(self, raw: bytes) -> Event:
        size = len(raw)
        if size > self._limit:
            raise UpstreamFailure("malformed", f"an event is longer than {self._limit} bytes")
        first, self._first = self._first, False
        if raw.find(10) == size - 2 and raw[:6] == b"data: " and not self._carriage:
            return tuple.__new__(Event, (raw, raw[6:-2], ""))  # half the time of calling Event
        return _parse(raw, first)


def with_data(event: Event, data: bytes) -> bytes:
    """The event's source with its data replaced; the other lines, the line ends and the blank line stay."""
    lines: list[bytes] = []
    written = False
    for text, end in _LINE.findall(event.raw):
        mark, line = (_BOM, text[len(_BOM) :]) if not lines and text.startswith(_BOM) else (b"", text)
        if _field(line)[0] != b"data":
            lines.append(text + end)
        elif not written:
            written = True
            lines.append(mark + (end or b"\n").join([b"data: " + part for part in data.split(b"\n")]) + end)
    return b"".join(lines)


def closed(events: bytes) -> bytes:
    """The same events; a last one that the end of its stream cut off from its blank line gets one."""
    rest = events.rstrip(b"\r\n")
    return events if not rest or _EVENT_END.search(events, len(rest)) else rest + b"\n\n"


def _parse(raw: bytes, first: bool) -> Event:
    body = raw[len(_BOM) :] if first and raw.startswith(_BOM) else raw
    data: list[bytes] = []
    name = b""
    for line, _ in _LINE.findall(body):
        field, value = _field(line)
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(raw, b"\n".join(data) if data else None, name.decode(errors="replace"))


def _field(line: bytes) -> tuple[bytes, bytes]:
    """Name and value, without the one space after the colon. No colon: all is the name. A comment's name is empty."""
    name, _, value = line.partition(b":")
    return name, value.removeprefix(b" ")
