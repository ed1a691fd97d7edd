"""Continuing an answer whose upstream broke off: `mid_stream: continue` of a route.

Another target that supports `prefill` gets the conversation plus what the client has already seen, as a trailing
assistant message, and goes on from there. Its chunks continue the client's stream under the first id and model name.
No text is trimmed or guessed. What cannot be told apart that way ends in an error instead: several choices, tools,
JSON schemas, reasoning that had not finished, an answer that the client itself had begun.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.core import splice
from gateway.core.call import Call, Endpoint, Json
from gateway.core.sse import Event, Framer, with_data
from gateway.core.stream import StreamTap

KEPT = 4 * 1024 * 1024  # bytes of a stream that are kept for a continuation; a longer one ends in an error

# vLLM's flags for "go on with the last message" (docs.vllm.ai, OpenAI-compatible server, extra chat parameters).
# llama.cpp does that of itself and ignores them; a model that refuses them says `drop`.
_CONTINUE: Mapping[str, bytes] = {"continue_final_message": b"true", "add_generation_prompt": b"false"}
_REASONING = frozenset({"reasoning_content", "reasoning"})
_TEXT_ONLY = _REASONING | {"role", "content"}


class Partial(NamedTuple):
    """What the client has seen of an answer."""

    id: str
    model: str
    text: str
    pieces: int  # chunks with text: at least so many tokens, for most servers exactly


def may_resume(call: Call) -> bool:
    """Whether an answer to this call could be continued at all."""
    plain = call.endpoint is Endpoint.CHAT and call.stream and call.n == 1
    return plain and call.has.isdisjoint({"tools", "json_schema", "audio"}) and not call.prefilled


def read_partial(passed: bytes, json: Json) -> Partial | None:
    """What the events that reached the client hold; None where that is not visible text of one choice alone.

    Nor where reasoning came last, which may not have finished, or where there is nothing but white space: a message
    without text is refused by some servers and dropped by others.
    """
    framer = Framer()
    identity = ("", "")
    text: list[str] = []
    thinks = False
    for event in framer.feed(passed):
        chunk = _chunk(event, json)
        if chunk is None:
            continue
        identity = identity if identity[0] else (str(chunk.get("id", "")), str(chunk.get("model", "")))
        for choice in chunk.get("choices") or ():
            piece = _text(choice)
            if piece is None:
                return None
            if piece:
                text.append(piece)
            thinks = not piece and (thinks or _thinks(choice))
    whole = "".join(text)
    return Partial(*identity, whole, len(text)) if whole.strip() and not thinks else None


def resumed(call: Call, partial: Partial) -> Call:
    """The call that asks for the rest: the client's bytes, with one message more and a cap that much lower."""
    messages = call.source("messages").rstrip()
    seen = call.encode({"role": "assistant", "content": partial.text})
    edits: dict[str, bytes | None] = {"messages": messages[:-1] + b"," + seen + b"]", **_CONTINUE}
    for cap in ("max_tokens", "max_completion_tokens"):
        if call.max_output is not None and call.source(cap) not in (b"", b"null"):
            edits[cap] = b"%d" % max(1, call.max_output - partial.pieces)
    return call.edited(edits)


class ContinuingTap(StreamTap):
    """A tap on the rest of an answer: chunks keep the first id and model name, and a second beginning is left out."""

    __slots__ = ("_json", "_partial")

    def continuing(self, partial: Partial, json: Json) -> ContinuingTap:
        self._partial = partial
        self._json = json
        self.useful = True  # the client has content; an end without more of it is an end
        return self

    def _take(self, event: Event) -> bytes:
        passed = super()._take(event)
        chunk = _chunk(event, self._json) if passed else None
        if chunk is None or event.data is None:
            return passed
        seen = self._read_chunk(event.data)
        if seen is None or not (seen.useful or seen.finish or seen.usage is not None):
            return b""
        (shown,) = Framer().feed(passed)
        names = {"id": self._partial.id, "model": self._partial.model}
        edits = {name: self._json.dumps(value) for name, value in names.items() if name in chunk}
        return with_data(shown, splice.edit(shown.data or b"", self._json, edits))


def _chunk(event: Event, json: Json) -> dict[str, Any] | None:
    if event.data is None or not event.data.lstrip().startswith(b"{"):
        return None
    try:
        chunk = json.loads(event.data)
    except ValueError:
        return None
    return chunk if isinstance(chunk, dict) else None


def _thinks(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(delta.get(name) for name in _REASONING)


def _text(choice: object) -> str | None:
    """A choice's visible text; None where it holds what a trailing message cannot carry."""
    if not isinstance(choice, dict) or choice.get("index", 0) != 0:
        return None
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return ""
    if any(value for name, value in delta.items() if name not in _TEXT_ONLY):
        return None
    content = delta.get("content")
    return content if isinstance(content, str) else ("" if content is None else None)
