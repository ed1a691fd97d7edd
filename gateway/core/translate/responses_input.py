"""The `input` of a response -> the messages of a chat.

Items stand one by one where a chat has messages: an answer's text, its reasoning and each of its tool calls are put
together into one message of the assistant, as they were in the turn that brought them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.core.call import Json
from gateway.core.translate.base import Notes

Message = dict[str, Any]
INPUT = "input"
"""The one parameter of a function that stands for a custom tool."""

# Members that say nothing to a model: SDKs send back what they were given.
_MESSAGE = frozenset({"type", "role", "content", "id", "status"})
_CALL = frozenset({"type", "id", "call_id", "name", "arguments", "input", "status", "parsed_arguments", "created_by"})
_RESULT = frozenset({"type", "id", "call_id", "output", "status", "name", "created_by"})
_THOUGHT = frozenset({"type", "id", "status", "summary", "content"})
_TEXT = frozenset({"type", "text", "refusal", "annotations", "logprobs", "parsed"})
_TEXT_PARTS = frozenset({"input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text"})
_SYSTEM = frozenset({"system", "developer"})
_ROLES = _SYSTEM | {"user", "assistant"}


def chat_messages(instructions: object, given: object, json: Json, notes: Notes) -> list[Message]:
    """`notes` gets what cannot be carried over; then the messages are of no use."""
    turns = _Turns(json, notes)
    if isinstance(instructions, str):
        turns.say("system", instructions)
    elif instructions is not None:
        notes.refuse("instructions (not a text)")
    if isinstance(given, str):
        turns.say("user", given)
    elif isinstance(given, list):
        for item in given:
            turns.take(item)
    else:
        notes.refuse("input (neither a text nor an array)")
    turns.forget_thought()
    if not turns.messages:
        notes.refuse("input (nothing in it to answer)")
    return turns.messages


class _Turns:
    """Messages as they come together."""

    def __init__(self, json: Json, notes: Notes) -> None:
        self.messages: list[Message] = []
        self._json = json
        self._notes = notes
        self._thought = ""  # reasoning that no tool call has followed yet

    def take(self, item: object) -> None:
        if not isinstance(item, dict):
            self._notes.refuse("input (an item that is no object)")
            return
        kind = item.get("type") or ("message" if "role" in item else None)
        take = ITEMS.get(kind) if isinstance(kind, str) else None
        if take is None:
            self._notes.refuse(f"input: {kind}")
        else:
            take(self, item)

    def say(self, role: str, content: str | list[Message]) -> None:
        """A message. Templates of many models know one message of the system, at the beginning, and no developer."""
        last = self.messages[-1] if self.messages else None
        if role == "assistant":
            if last is not None and "tool_calls" in last and last["content"] is None:
                last["content"] = content
                return
        else:
            self.forget_thought()
        if role == "system" and last is not None and len(self.messages) == 1 and last["role"] == "system":
            last["content"] += f"\n\n{content}"
            return
        self.messages.append({"role": role, "content": content})

    def message(self, item: Mapping[str, Any]) -> None:
        role = item.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            self._notes.refuse(f"input: a message of {role!r}")
            return
        self._notes.drop_others("input", item, _MESSAGE)
        content = item.get("content")
        if role == "user" and isinstance(content, list):
            parts = [made for part in content if (made := _part(part, self._notes)) is not None]
            only = parts[0] if len(parts) == 1 else {}
            self.say("user", only["text"] if only.get("type") == "text" else parts)
            return
        text = _text(content, "message", self._notes, between="" if role == "assistant" else "\n")
        self.say("system" if role in _SYSTEM else role, text)

    def call(self, item: Mapping[str, Any]) -> None:
        self._notes.drop_others("input", item, _CALL)
        arguments = item.get("arguments")
        if item.get("type") == "custom_tool_call":
            arguments = self._json.dumps({INPUT: item.get("input")}).decode()
        function = {"name": item.get("name"), "arguments": arguments if isinstance(arguments, str) else ""}
        made = {"id": item.get("call_id"), "type": "function", "function": function}
        last = self.messages[-1] if self.messages else None
        if last is None or last["role"] != "assistant":
            last = {"role": "assistant", "content": None}
            self.messages.append(last)
        if self._thought:
            # DeepSeek and vLLM want it back within a turn that calls tools: api-docs.deepseek.com/guides/thinking_mode
            last["reasoning_content"] = last.get("reasoning_content", "") + self._thought
            self._thought = ""
        last.setdefault("tool_calls", []).append(made)

    def result(self, item: Mapping[str, Any]) -> None:
        self._notes.drop_others("input", item, _RESULT)
        self.forget_thought()
        output = _text(item.get("output"), str(item.get("type")), self._notes, between="\n")
        if not isinstance(item.get("call_id"), str):
            self._notes.refuse(f"input: {item.get('type')} without call_id")
        self.messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})

    def thought(self, item: Mapping[str, Any]) -> None:
        self._notes.drop_others("input.reasoning", item, _THOUGHT)
        content = item.get("content")
        if content:
            self._thought += _text(content, "reasoning", self._notes, between="")
        elif item.get("summary"):
            self._notes.drop("input.reasoning.summary")

    def forget_thought(self) -> None:
        """Models are not shown what they thought in turns that are over; their servers leave it out themselves."""
        if self._thought:
            self._thought = ""
            self._notes.drop("input.reasoning")


def _text(content: object, what: str, notes: Notes, *, between: str) -> str:
    """The text of parts that must be texts."""
    if isinstance(content, str):
        return content
    texts = []
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(part, dict) or not isinstance(kind, str) or kind not in _TEXT_PARTS:
            notes.refuse(f"input: {what} with {kind or 'what is no text'}")
            continue
        notes.drop_others("input", part, _TEXT)
        text = part.get("refusal") if kind == "refusal" else part.get("text")
        texts.append(text if isinstance(text, str) else "")
    return between.join(texts)


def _part(part: object, notes: Notes) -> Message | None:
    """A part of the user's message; None where there is no such part in a chat."""
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str):
        notes.refuse("input: a part that is no object with a type")
        return None
    if kind in _TEXT_PARTS:
        return {"type": "text", "text": _text([part], "message", notes, between="")}
    if kind in _PARTS:
        return _PARTS[kind](part, notes)
    notes.refuse(f"input: {kind}")
    return None


def _image(part: Mapping[str, Any], notes: Notes) -> Message | None:
    notes.drop_others("input", part, frozenset({"type", "image_url", "detail", "file_id"}))
    if not isinstance(part.get("image_url"), str):
        notes.refuse("input: input_image without image_url")  # by file_id: the file is at another provider
        return None
    image = {"url": part["image_url"]}
    if part.get("detail") is not None:
        image["detail"] = part["detail"]
    return {"type": "image_url", "image_url": image}


def _file(part: Mapping[str, Any], notes: Notes) -> Message | None:
    notes.drop_others("input", part, frozenset({"type", "file_data", "filename", "file_id", "file_url"}))
    if not isinstance(part.get("file_data"), str):
        notes.refuse("input: input_file without file_data")
        return None
    file = {name: part[name] for name in ("filename", "file_data") if part.get(name) is not None}
    return {"type": "file", "file": file}


def _audio(part: Mapping[str, Any], notes: Notes) -> Message:
    notes.drop_others("input", part, frozenset({"type", "input_audio"}))
    return {"type": "input_audio", "input_audio": part.get("input_audio")}


_PARTS: Mapping[str, Callable[[Mapping[str, Any], Notes], Message | None]] = {
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}
ITEMS: Mapping[str, Callable[[_Turns, Mapping[str, Any]], None]] = {
    "message": _Turns.message,
    "function_call": _Turns.call,
    "custom_tool_call": _Turns.call,
    "function_call_output": _Turns.result,
    "custom_tool_call_output": _Turns.result,
    "reasoning": _Turns.thought,
}
