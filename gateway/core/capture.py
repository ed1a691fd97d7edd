"""What was said, where a route keeps that (`capture:`): bounded while it is gathered, redacted before it is written.

A **window** is the part of a text that may be kept: its beginning and its end, because a prompt's question stands last.
Each is taken `MARGIN` longer than what is kept of it, so that a secret that lies across the cut is seen whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from gateway.core.call import Json
from gateway.core.sse import Event, Framer
from gateway.errors import UpstreamFailure

MARGIN = 8192  # bytes
SEAM = 2048  # bytes at a cut that are never kept: what is left of a secret there may have no shape any more


class Capture(NamedTuple):
    """`capture:` of a route."""

    max_bytes: int = 16 * 1024  # of the prompt, and of the answer
    keep: float = 7 * 86_400.0  # seconds


class Window(NamedTuple):
    head: bytes
    tail: bytes = b""  # empty: `head` is all
    size: int = 0  # bytes of the whole


class Content(NamedTuple):
    """What is to be kept of a request. Nothing is redacted yet."""

    prompt: Window
    answer: Window
    capture: Capture


def window(data: bytes, most: int) -> Window:
    """At most `most` bytes of it and the margins."""
    if len(data) <= most + 2 * MARGIN:
        return Window(bytes(data), size=len(data))
    first = most // 2 + MARGIN
    return Window(data[:first], data[-(most - most // 2 + MARGIN) :], len(data))


Redact = Callable[[str], tuple[str, int]]  # the text without its secrets, and how many there were


def kept(seen: Window, most: int, redact: Redact) -> tuple[str, int]:
    """What is written: redacted, then at most `most` bytes and a mark where something was left out; and how many
    secrets there were.
    """
    head, found = redact(seen.head.decode(errors="replace"))
    if not seen.tail:
        whole = head.encode()
        if len(whole) <= most:
            return head, found
        first, last = whole[: most // 2], whole[len(whole) - (most - most // 2) :]
    else:
        tail, more = redact(seen.tail.decode(errors="replace"))
        found += more
        first = head.encode()[:-SEAM][: most // 2]
        rest = tail.encode()[SEAM:]
        last = rest[max(0, len(rest) - (most - most // 2)) :]
    left = max(0, seen.size - len(first) - len(last))
    mark = f"\n[... about {left} bytes left out ...]\n"
    return f"{first.decode(errors='ignore')}{mark}{last.decode(errors='ignore')}", found


class Assembly:
    """Gathers an answer as its client gets it: a body as it is, of a stream the text in its events."""

    def __init__(self, capture: Capture, json: Json) -> None:
        self.capture = capture
        self._json = json
        self._framer: Framer | None = None
        self._body = bytearray()
        self._parts: dict[tuple[int, str], list[str]] = {}  # by choice and kind
        self._size = 0  # bytes that the client got
        self._gathered = 0
        self._room = capture.max_bytes + MARGIN

    def begin(self, *, stream: bool) -> None:
        self._framer = Framer() if stream else None

    def feed(self, data: bytes) -> None:
        """Never raises: what cannot be read is not kept."""
        self._size += len(data)
        if self._framer is None:
            self._body += data[: max(0, self._room + MARGIN - len(self._body))]
        elif self._gathered < self._room:
            try:
                for event in self._framer.feed(data):
                    self._take(event)
            except (UpstreamFailure, ValueError, AttributeError, TypeError):
                return

    def content(self, prompt: bytes) -> Content:
        most = self.capture.max_bytes
        answer = bytes(self._body) if self._framer is None else self._assembled()
        return Content(window(prompt, most), window(answer, most)._replace(size=self._size), self.capture)

    def _take(self, event: Event) -> None:
        chunk = self._json.loads(event.data) if event.data is not None and event.data.strip() != b"[DONE]" else None
        if not isinstance(chunk, dict):
            return
        for choice in chunk.get("choices") or ():
            index = choice.get("index") or 0
            self._add(index, "content", choice.get("text"))
            delta = choice.get("delta") or {}
            self._add(index, "content", delta.get("content"))
            self._add(index, "refusal", delta.get("refusal"))
            self._add(index, "reasoning", delta.get("reasoning_content") or delta.get("reasoning"))
            for call in delta.get("tool_calls") or ():
                function = call.get("function") or {}
                self._add(index, f"tool_call {call.get('index', 0)} name", function.get("name"))
                self._add(index, f"tool_call {call.get('index', 0)} arguments", function.get("arguments"))
        self._take_native(chunk)

    def _take_native(self, chunk: dict[str, Any]) -> None:
        """Events of /v1/messages and /v1/responses."""
        delta, kind = chunk.get("delta"), str(chunk.get("type", ""))
        if isinstance(delta, str):
            self._add(chunk.get("output_index") or 0, kind.removeprefix("response.").removesuffix(".delta"), delta)
        elif isinstance(delta, dict) and "choices" not in chunk:
            for name in ("text", "thinking", "partial_json"):
                self._add(chunk.get("index") or 0, name, delta.get(name))

    def _add(self, index: object, kind: str, text: object) -> None:
        if isinstance(text, str) and text and isinstance(index, int):
            taken = text[: self._room - self._gathered]
            self._gathered += len(taken)
            self._parts.setdefault((index, kind), []).append(taken)

    def _assembled(self) -> bytes:
        """JSON: a list of what each choice said."""
        found: dict[int, dict[str, Any]] = {}
        for (index, kind), texts in self._parts.items():
            found.setdefault(index, {"index": index})[kind] = "".join(texts)
        whole: dict[str, Any] = {"streamed": list(found.values())}
        if self._gathered >= self._room:
            whole["cut"] = True
        return self._json.dumps(whole)
