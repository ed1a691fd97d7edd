"""Answers of OpenAI's chat as Anthropic's messages: whole, streamed, and refused.

Events: docs.anthropic.com/en/api/messages-streaming (2026-11). Blocks follow one another, each with a start, deltas and
a stop; usage is cumulative and comes whole with the `message_delta` at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.core.call import Call, Json
from gateway.core.sse import Event
from gateway.core.translate import anthropic
from gateway.core.translate.chat import failure, first_choice, json_object, reported_usage, texts, tool_calls, word
from gateway.core.usage import estimate_tokens, read_usage

_DONE = b"[DONE]"
_MESSAGE_LIMIT = 2000  # characters of an upstream's refusal, as in `gateway.views`
_STOPS: Mapping[str, str] = {  # finish_reason -> stop_reason; words that are not here pass: some say that it broke
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_ENDED = frozenset({"end_turn", "tool_use"})


def read_answer(call: Call, body: bytes, json: Json) -> bytes:
    """A whole answer. What is no answer of a chat passes as it is, for whoever judges it."""
    answer = json_object(body, json)
    if answer is None:
        return body
    if (error := failure(answer)) is not None:
        return json.dumps(_error(500, error))
    choice = first_choice(answer.get("choices"))
    if choice is None:
        return body
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    blocks: list[dict[str, Any]] = []
    for kind, text in _texts(message if not call.prefilled else _without_echo(message, answer, call)):
        if blocks and blocks[-1]["type"] == kind:
            blocks[-1][kind] += text
        else:
            blocks.append({"type": kind, kind: text, **({"signature": ""} if kind == "thinking" else {})})
    calls = [_Call(given, number) for number, given in enumerate(tool_calls(message))]
    for each in calls:
        given = _arguments(each.arguments, json)
        if given is None and choice.get("finish_reason") != "length":
            return json.dumps(
                _error(500, {"message": f"the arguments of the call of {each.name!r} are no JSON object"})
            )
        blocks.append({**each.block, "input": given or {}})  # half a call, cut by its cap, is none to be made
    reported = reported_usage(answer, choice)
    usage = read_usage(reported)
    characters = sum(len(text) for _, text in _texts(message)) + sum(len(each.arguments) for each in calls)
    stop, sequence = _stop(choice, call, called=bool(calls), refused=bool(message.get("refusal")))
    return json.dumps(
        {
            **_head(answer, call),
            "content": blocks,
            "stop_reason": stop,
            "stop_sequence": sequence,
            "usage": anthropic.estimated_usage(call.estimated_input, estimate_tokens(characters))
            if usage is None
            else anthropic.usage_object(usage, reported),
        }
    )


def read_error(status: int, body: bytes, json: Json) -> bytes:
    """An upstream's refusal. Its own code, or type, stays beside Anthropic's type: we judge by it, clients may."""
    value = json_object(body, json)
    if value is None:
        return json.dumps(anthropic.error(status, body.decode(errors="replace")[:_MESSAGE_LIMIT], None))
    return json.dumps(_error(status, value.get("error") or value.get("detail") or value))


class Stream:
    """Implements `base.Events`."""

    __slots__ = (
        *("_call", "_calls", "_characters", "_choice", "_count", "_ended", "_id", "_index", "_json", "_kind", "_model"),
        *("_order", "_refused", "_reported", "_said", "over"),
    )

    def __init__(self, call: Call, json: Json) -> None:
        self._call = call
        self._json = json
        self._id = self._model = ""  # the first that a chunk brings
        self._said = False  # the message has begun
        self._kind = ""  # of the block that is open; empty: none is
        self._index = -1  # of the block that was opened last
        self._calls: dict[int, _Call] = {}  # by the upstream's index, the latest
        self._order: list[_Call] = []  # calls that have not been stopped; the first may be open
        self._choice: dict[str, Any] = {}  # the one with the finish
        self._reported: dict[str, Any] = {}
        self._characters = 0
        self._refused = False
        self._count = 0  # calls so far
        self._ended = False
        self.over = False

    def take(self, event: Event) -> bytes:
        if event.data is None:
            return event.raw  # a comment, by which servers say that they are there
        if self._ended:
            return b""
        if event.data.strip() == _DONE:
            return self._end()
        chunk = json_object(event.data, self._json)
        if chunk is None:
            return event.raw
        error = failure(chunk) or (chunk if event.name == "error" else None)
        if error is not None:
            self._ended = True
            return self._event("error", _error(500, error))
        choice = first_choice(chunk.get("choices"))
        self._reported = reported_usage(chunk, choice or {}) or self._reported
        if not self._said:
            self._id = self._id or word(chunk.get("id"))
            self._model = self._model or word(chunk.get("model"))
        return b"" if choice is None else b"".join(self._take_choice(choice))

    def end(self) -> bytes:
        return self._end() if self.over and not self._ended else b""

    def _take_choice(self, choice: dict[str, Any]) -> Iterator[bytes]:
        delta = choice.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        self._refused = self._refused or bool(delta.get("refusal"))
        for kind, text in _texts(delta):
            yield from self._open(kind)
            self._characters += len(text)
            yield self._delta({"type": f"{kind}_delta", kind: text})
        for number, given in enumerate(tool_calls(delta)):
            yield from self._take_call(given, number)
        if isinstance(choice.get("finish_reason"), str) and choice["finish_reason"]:
            self._choice = choice
            self.over = True

    def _take_call(self, given: dict[str, Any], number: int) -> Iterator[bytes]:
        """The first call goes out as it comes. Others wait for its end: blocks never mix, and calls may."""
        index = given.get("index")
        index = index if isinstance(index, int) else number
        known = self._calls.get(index)
        if known is None or (given.get("id") and known.id and given["id"] != known.id):
            known = self._calls[index] = _Call(given, self._count)
            self._count += 1
            self._order.append(known)
        else:
            known.add(given)
        if known.stopped:  # text came in between, and now more of an earlier call
            yield self._event("error", _error(500, {"message": f"the call of {known.name!r} went on after its end"}))
        elif known is not self._order[0]:
            yield self._event("ping", {})  # the client sees that something goes on
        elif known.name:
            yield from self._show(known)

    def _show(self, known: _Call) -> Iterator[bytes]:
        if not known.shown:
            yield from self._open("tool_use", known)
            known.shown = True
        piece = known.rest()
        self._characters += len(piece)
        if piece:
            yield self._delta({"type": "input_json_delta", "partial_json": piece})

    def _open(self, kind: str, call: _Call | None = None) -> Iterator[bytes]:
        """Begins a block, unless one of the kind is open; a call has one of its own."""
        if kind == self._kind and call is None:
            return
        if call is None:
            yield from self._flush()
        yield from self._close()
        if not self._said:
            yield self._begin()
        self._index += 1
        self._kind = kind
        if call is not None:
            block = {**call.block, "input": {}}
        else:
            block = {"type": kind, kind: "", **({"signature": ""} if kind == "thinking" else {})}
        yield self._event("content_block_start", {"index": self._index, "content_block": block})

    def _close(self) -> Iterator[bytes]:
        if self._kind:
            self._kind = ""
            yield self._event("content_block_stop", {"index": self._index})

    def _flush(self) -> Iterator[bytes]:
        """All calls to their ends, in the order in which they began."""
        for call in self._order:
            yield from self._show(call)
            call.stopped = True
        self._order = []

    def _begin(self) -> bytes:
        """Nobody knows the usage yet: an estimate stands for it until `message_delta` brings the real one."""
        self._said = True
        head = _head({"id": self._id, "model": self._model}, self._call)
        message = {**head, "content": [], "stop_reason": None, "stop_sequence": None}
        message["usage"] = {"input_tokens": self._call.estimated_input, "output_tokens": 0}
        return self._event("message_start", {"message": message, "estimated": True})

    def _end(self) -> bytes:
        self._ended = True
        called = bool(self._calls)
        events = [*self._flush(), *self._close()]
        if not self._said:
            events.append(self._begin())
        usage = read_usage(self._reported)
        stop, sequence = _stop(self._choice, self._call, called=called, refused=self._refused)
        if usage is None:
            counted = anthropic.estimated_usage(self._call.estimated_input, estimate_tokens(self._characters))
        else:
            counted = anthropic.usage_object(usage, self._reported)
        events.append(
            self._event("message_delta", {"delta": {"stop_reason": stop, "stop_sequence": sequence}, "usage": counted})
        )
        events.append(self._event("message_stop", {}))
        return b"".join(events)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self._event("content_block_delta", {"index": self._index, "delta": delta})

    def _event(self, kind: str, members: Mapping[str, Any]) -> bytes:
        return anthropic.event(kind, members, self._json)


class _Call:
    """A tool call, whole or as far as it has come."""

    __slots__ = ("_number", "_pieces", "id", "name", "shown", "stopped")

    def __init__(self, given: Mapping[str, Any], number: int) -> None:
        self._number = number
        self._pieces: list[str] = []  # of the arguments, not yet shown
        self.id = self.name = ""
        self.shown = self.stopped = False
        self.add(given)

    def add(self, given: Mapping[str, Any]) -> None:
        function = given.get("function")
        function = function if isinstance(function, dict) else {}
        self.id = self.id or word(given.get("id"))
        self.name = self.name or word(function.get("name"))
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            self._pieces.append(arguments)

    @property
    def arguments(self) -> str:
        return "".join(self._pieces)

    @property
    def block(self) -> dict[str, Any]:
        return {"type": "tool_use", "id": self.id or f"toolu_{self._number}", "name": self.name}

    def rest(self) -> str:
        text = self.arguments
        self._pieces.clear()
        return text


def _head(answer: Mapping[str, Any], call: Call) -> dict[str, Any]:
    """The members that begin a message."""
    model = word(answer.get("model")) or call.model
    return {"id": word(answer.get("id")), "type": "message", "role": "assistant", "model": model}


def _stop(choice: Mapping[str, Any], call: Call, *, called: bool, refused: bool) -> tuple[str, str | None]:
    """stop_reason, and the stop sequence that was met where the server says which: vLLM, SGLang."""
    finish = choice.get("finish_reason")
    finish = finish if isinstance(finish, str) and finish else "stop"
    stop = _STOPS.get(finish, finish)
    if stop in _ENDED:
        stop = "tool_use" if called else "refusal" if refused else "end_turn"
    sequences = call.decoded("stop_sequences")
    for name in ("stop_reason", "matched_stop"):
        met = choice.get(name)
        if stop == "end_turn" and isinstance(met, str) and isinstance(sequences, list) and met in sequences:
            return "stop_sequence", met
    return stop, None


def _texts(message: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is to be read in a message or a delta as (kind of block, text): a refusal is a text here."""
    return (("text" if kind == "refusal" else kind, text) for kind, text in texts(message))


def _arguments(text: str, json: Json) -> dict[str, Any] | None:
    """A call's input; None where it is no JSON object."""
    try:
        value = json.loads(text.encode()) if text.strip() else {}
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _without_echo(message: Mapping[str, Any], answer: Mapping[str, Any], call: Call) -> Mapping[str, Any]:
    """llama.cpp repeats what the client has begun in whole answers, though not in streams; `timings` is its sign."""
    last = call.decoded("messages")[-1].get("content")
    parts = last if isinstance(last, list) else [{"text": last}]
    begun = "".join(word(part.get("text")) for part in parts if isinstance(part, dict))
    content = message.get("content")
    if "timings" in answer and begun and isinstance(content, str) and content.startswith(begun):
        return {**message, "content": content[len(begun) :]}
    return message


def _error(status: int, said: object) -> dict[str, Any]:
    if not isinstance(said, dict):
        return anthropic.error(status, said if isinstance(said, str) else str(said), None)
    message, code = said.get("message"), said.get("code")
    coded = code if isinstance(code, str) and code else said.get("type") or said.get("status")
    return anthropic.error(
        status, message if isinstance(message, str) else str(said)[:_MESSAGE_LIMIT], word(coded) or None
    )
