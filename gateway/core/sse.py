"""Server-sent events (WHATWG HTML, section 9.2): bytes in, whole events out, each with its exact source bytes."""

from __future__ import annotations

from typing import NamedTuple


class Event(NamedTuple):
    raw: bytes  # as it came, with the blank line that ends it
    data: bytes | None  # all `data:` lines joined by newlines; None where there is none (a comment, say)
    name: str  # the `event:` field; empty where there is none


class Framer:
    """Splits a byte stream into events. Feed it anything, cut anywhere: LF, CRLF or CR ends, comments, multi-line data."""

    def __init__(self, limit: int = 16 * 1024 * 1024) -> None:
        """`limit`: bytes that one event may have; more raises ValueError."""
        raise NotImplementedError

    def feed(self, data: bytes) -> list[Event]:
        raise NotImplementedError

    def end(self) -> list[Event]:
        """What is left when the stream ends. A last event without its blank line counts if it has data (servers do that)."""
        raise NotImplementedError
