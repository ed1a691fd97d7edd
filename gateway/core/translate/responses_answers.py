"""Answers of OpenAI's chat as responses: whole, streamed, and refused.

Events, and the order they come in: developers.openai.com/api/reference/resources/responses/streaming-events and
developers.openai.com/api/docs/guides/streaming-responses (2026-11). An **item** (message, reasoning, tool call) is
added, filled and done before the next begins; so is each **part** of a message or of reasoning. The last event holds
the whole response. There is no `[DONE]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.core.call import Call, Json
from gateway.core.failures import finish_is_broken
from gateway.core.sse import Event
from gateway.core.translate.chat import failure, first_choice, json_object, reported_usage, texts, tool_calls, word
from gateway.core.translate.responses_input import INPUT
from gateway.core.translate.responses_object import ending, error_event, failed, identity, opening

_DONE = b"[DONE]"


class _Part:
    """What a kind of text is called: its item, its part, the member that holds it, its events."""

    def __init__(self, item: str, kind: str, member: str) -> None:
        self.item, self.kind, self.member = item, kind, member

    def begun(self) -> dict[str, Any]:
        more: dict[str, Any] = {"annotations": [], "logprobs": []} if self.kind == "output_text" else {}
        return {"type": self.kind, **more, self.member: ""}


_PARTS: Mapping[str, _Part] = {
    "text": _Part("message", "output_text", "text"),
    "refusal": _Part("message", "refusal", "refusal"),
    "thinking": _Part("reasoning", "reasoning_text", "text"),
}
_ITEM_IDS: Mapping[str, str] = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
}


def read_answer(call: Call, body: bytes, json: Json) -> bytes:
    """A whole answer. What is no answer of a chat passes as it is, for whoever judges it."""
    answer = json_object(body, json)
    if answer is None:
        return body
    if (error := failure(answer)) is not None:
        return json.dumps({"error": error})
    choice = first_choice(answer.get("choices"))
    if choice is None:
        return body
    stream = Stream(call, json)
    stream.begin(answer, body)
    message = choice.get("message")
    finish = word(choice.get("finish_reason")) or "stop"
    for _ in stream.take_choice({"delta": message, "logprobs": choice.get("logprobs"), "finish_reason": finish}):
        pass  # events are for streams; what they tell of is in the response
    stream.reported = reported_usage(answer, choice)
    return json.dumps(stream.response())


def read_error(_status: int, body: bytes, _json: Json) -> bytes:
    """An upstream's refusal: both APIs have the same envelope."""
    return body


class Stream:
    """Implements `base.Events`. What has come of the answer is in `output`, item by item."""

    def __init__(self, call: Call, json: Json) -> None:
        self.over = False
        self.reported: dict[str, Any] = {}  # usage, as the upstream said it
        self.output: list[dict[str, Any]] = []
        self._call = call
        self._json = json
        self._opened: dict[str, Any] = {}  # the response as it was when it began; empty: it has not
        self._base = ""
        self._sequence = 0
        self._finish = ""
        self._ended = False
        self._open = False  # whether the last item is; if not a tool call, its last part too
        self._pieces: list[str] = []  # of the text of the part that is open
        self._logprobs: list[Any] = []
        self._calls: list[_ToolCall] = []  # not done; the first may be open
        self._custom = _custom_names(call)

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
            return self._event("error", **error_event(error))
        choice = first_choice(chunk.get("choices"))
        self.reported = reported_usage(chunk, choice or {}) or self.reported
        if choice is None:
            return b""  # Azure's first, say, which has no id either
        begun = [] if self._opened else self.begin(chunk, event.data)
        return b"".join([*begun, *self.take_choice(choice)])

    def end(self) -> bytes:
        return self._end() if self.over and not self._ended else b""

    def begin(self, chunk: Mapping[str, Any], data: bytes) -> list[bytes]:
        self._base = identity(chunk, data)
        self._opened = opening(self._call, chunk, self._base)
        return [self._event(f"response.{name}", response=self._opened) for name in ("created", "in_progress")]

    def response(self) -> dict[str, Any]:
        """As it stands at its end."""
        if finish_is_broken(self._finish):
            return failed(self._opened, self.output, f"the upstream ended with {self._finish!r}", self.reported)
        return ending(self._opened, self.output, self._finish, self.reported)

    def take_choice(self, choice: Mapping[str, Any]) -> Iterator[bytes]:
        """A piece of the answer, in a chunk's `delta`."""
        delta = choice.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        logprobs = _logprobs(choice)
        for kind, text in texts(delta):
            yield from self._say(_PARTS[kind], text, logprobs if kind == "text" else [])
        for annotation in _annotations(delta):
            yield from self._annotate(annotation)
        for place, given in enumerate(tool_calls(delta)):
            yield from self._take_call(given, place)
        finish = word(choice.get("finish_reason"))
        if finish:
            self._finish, self.over = finish, True
            yield from self._close_calls()
            yield from self._close_item("completed" if finish not in ("length", "content_filter") else "incomplete")

    def _say(self, part: _Part, text: str, logprobs: list[Any]) -> Iterator[bytes]:
        yield from self._open_part(part)
        self._pieces.append(text)
        self._logprobs += logprobs
        more = {"logprobs": logprobs} if part.kind == "output_text" else {}
        yield self._of_part(f"{part.kind}.delta", delta=text, **more)

    def _open_part(self, part: _Part) -> Iterator[bytes]:
        """Begins a part, unless one of its kind is open, and an item for it, unless one is."""
        item = self.output[-1] if self._open else {}
        if item.get("type") != part.item:
            yield from self._close_calls()
            yield from self._close_item()
            more: dict[str, Any] = {"role": "assistant"} if part.item == "message" else {"summary": []}
            item = {"status": "in_progress", "content": [], **more}
            yield from self._open_item(part.item, item)
            item = self.output[-1]
        content = item["content"]
        if not content or content[-1]["type"] != part.kind:
            yield from self._close_part()
            content.append(part.begun())
            yield self._of_part("content_part.added", part=content[-1])

    def _annotate(self, annotation: dict[str, Any]) -> Iterator[bytes]:
        yield from self._open_part(_PARTS["text"])
        annotations = self.output[-1]["content"][-1]["annotations"]
        annotations.append(annotation)
        more = {"annotation_index": len(annotations) - 1, "annotation": annotation}
        yield self._of_part("output_text.annotation.added", **more)

    def _close_part(self) -> Iterator[bytes]:
        content = self.output[-1].get("content") if self._open else None
        if not content:
            return
        part, text = content[-1], "".join(self._pieces)
        member = "refusal" if part["type"] == "refusal" else "text"
        part[member] = text
        more: dict[str, Any] = {member: text}
        if part["type"] == "output_text":
            part["logprobs"] = more["logprobs"] = self._logprobs
        yield self._of_part(f"{part['type']}.done", **more)
        yield self._of_part("content_part.done", part=part)
        self._pieces, self._logprobs = [], []

    def _take_call(self, given: Mapping[str, Any], place: int) -> Iterator[bytes]:
        """The first call goes out as it comes. Others wait until it is done: items never mix, and calls may."""
        said = given.get("index")
        index = said if isinstance(said, int) else place
        same = [call for call in self._calls if call.goes_on(index, word(given.get("id")))]
        call = same[-1] if same else _ToolCall(index)
        if not same:
            self._calls.append(call)
        call.add(given)
        if call is self._calls[0] and call.name:
            yield from self._show(call)

    def _show(self, call: _ToolCall) -> Iterator[bytes]:
        """What is known of a call and has not been told. A custom tool's input is told at its end, when it is whole."""
        custom = call.name in self._custom
        if not call.shown:
            yield from self._close_item()
            call.shown = True
            kind, member = ("custom_tool_call", INPUT) if custom else ("function_call", "arguments")
            known = {"call_id": call.id or f"call_{self._base}_{len(self.output)}", "name": call.name}
            yield from self._open_item(kind, {"status": "in_progress", **known, member: ""})
        if not custom and (piece := call.rest()):
            yield self._of_item("function_call_arguments.delta", delta=piece)

    def _close_calls(self) -> Iterator[bytes]:
        """All to their ends, in the order in which they began; the last stays open."""
        for call in self._calls:
            yield from self._show(call)
            item = self.output[-1]
            if item["type"] == "custom_tool_call":
                item[INPUT] = _free_text(call.arguments, self._json)
                yield self._of_item("custom_tool_call_input.delta", delta=item[INPUT])
                yield self._of_item("custom_tool_call_input.done", **{INPUT: item[INPUT]})
            else:
                item["arguments"] = call.arguments
                more = {"name": call.name, "arguments": call.arguments}
                yield self._of_item("function_call_arguments.done", **more)
        self._calls = []

    def _open_item(self, kind: str, members: dict[str, Any]) -> Iterator[bytes]:
        self._open = True
        self.output.append({"id": f"{_ITEM_IDS[kind]}_{self._base}_{len(self.output)}", "type": kind, **members})
        yield self._event("response.output_item.added", output_index=len(self.output) - 1, item=self.output[-1])

    def _close_item(self, status: str = "completed") -> Iterator[bytes]:
        if self._open:
            yield from self._close_part()
            self._open = False
            self.output[-1]["status"] = status
            yield self._event("response.output_item.done", output_index=len(self.output) - 1, item=self.output[-1])

    def _end(self) -> bytes:
        events = [] if self._opened else self.begin({}, b"")
        events += [*self._close_calls(), *self._close_item()]
        response = self.response()
        self._ended = True
        return b"".join([*events, self._event(f"response.{response['status']}", response=response)])

    def _of_part(self, kind: str, **members: Any) -> bytes:  # noqa: ANN401 - JSON can be anything
        return self._of_item(kind, content_index=len(self.output[-1]["content"]) - 1, **members)

    def _of_item(self, kind: str, **members: Any) -> bytes:  # noqa: ANN401 - as above
        place = {"item_id": self.output[-1]["id"], "output_index": len(self.output) - 1}
        return self._event(f"response.{kind}", **place, **members)

    def _event(self, kind: str, **members: Any) -> bytes:  # noqa: ANN401 - as above
        data = self._json.dumps({"type": kind, "sequence_number": self._sequence, **members})
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


class _ToolCall:
    """A tool call, whole or as far as it has come."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._pieces: list[str] = []  # of the arguments
        self._told = 0  # of the pieces
        self.id = self.name = ""
        self.shown = False

    def goes_on(self, index: int, given_id: str) -> bool:
        """Whether a piece is of this call. Gemini's calls all have the index 0, each with an id of its own."""
        return index == self._index and (not given_id or not self.id or given_id == self.id)

    def add(self, given: Mapping[str, Any]) -> None:
        function = given.get("function")
        function = function if isinstance(function, dict) else {}
        self.id = self.id or word(given.get("id"))
        self.name = self.name or word(function.get("name"))
        self._pieces.append(word(function.get("arguments")))

    @property
    def arguments(self) -> str:
        return "".join(self._pieces)

    def rest(self) -> str:
        """What came since it was last asked for."""
        told, self._told = self._told, len(self._pieces)
        return "".join(self._pieces[told:])


def _custom_names(call: Call) -> frozenset[str]:
    """Of the custom tools, which went upstream as functions."""
    tools = call.decoded("tools")
    given = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return frozenset(word(tool.get("name")) for tool in given if tool.get("type") == "custom")


def _free_text(arguments: str, json: Json) -> str:
    """The text that a function got which stands for a custom tool; as it came where a model took no notice of that."""
    made = json_object(arguments.encode(errors="replace"), json)
    return made[INPUT] if made is not None and isinstance(made.get(INPUT), str) else arguments


def _logprobs(choice: Mapping[str, Any]) -> list[Any]:
    given = choice.get("logprobs")
    content = given.get("content") if isinstance(given, dict) else None
    return content if isinstance(content, list) else []


def _annotations(delta: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Chat puts what it says of an URL into an object of its own, named as the type."""
    given = delta.get("annotations")
    for each in given if isinstance(given, list) else []:
        if isinstance(each, dict):
            kind = word(each.get("type"))
            inner = each.get(kind)
            yield {"type": kind, **inner} if isinstance(inner, dict) else each
