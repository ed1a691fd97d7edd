"""What a request's content shows: the facts that rules and limits ask for, found in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

CHARACTERS_PER_TOKEN = 4
ATTACHMENT_TOKENS = 800  # of one image, sound or file: the middle of what providers count for an image (258 to 1,600)

# The `type` of a part that is no text -> what the model must be able to take. OpenAI's chat and responses APIs.
_ATTACHMENTS: Mapping[str, str] = {
    "image_url": "images",
    "input_image": "images",
    "image": "images",
    "input_audio": "audio",
    "file": "",  # servers turn it into text or images themselves
    "input_file": "",
    "video_url": "",  # vLLM's, likewise
}


class Content(NamedTuple):
    """Facts about messages, a prompt or an input."""

    has: frozenset[str] = frozenset()  # of images, audio
    system_prompt: str = ""
    last_message: str = ""
    ends_in_tool_result: bool = False
    characters: int = 0
    tokens: int = 0  # known without counting characters: attachments, and input that is already tokens


def read_messages(messages: Sequence[Mapping[str, Any]]) -> Content:
    """Of a chat. Members of unexpected types count as absent: to refuse them is the upstream's business."""
    system: list[str] = []
    last: Any = None
    characters = attachments = 0
    has: set[str] = set()
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            characters += len(content)
        elif isinstance(content, list):
            size, count = _measure_parts(content, has)
            characters += size
            attachments += count
        role = message.get("role")
        if role == "user":
            last = content
        elif role in ("system", "developer"):
            system.append(text_of(content))
        elif "tool_calls" in message:
            characters += _tool_call_characters(message["tool_calls"])
    ends_in_tool_result = messages[-1].get("role") in ("tool", "function")
    tokens = attachments * ATTACHMENT_TOKENS
    return Content(frozenset(has), "\n".join(system), text_of(last), ends_in_tool_result, characters, tokens)


def read_input(given: object) -> Content:
    """Of a completion's prompt or an embedding's input: a string, strings, token ids, or lists of token ids."""
    if isinstance(given, str):
        return Content(last_message=given, characters=len(given))
    if not isinstance(given, list):
        return Content()
    texts = [item for item in given if isinstance(item, str)]
    tokens = sum(len(item) if isinstance(item, list) else isinstance(item, int) for item in given)
    return Content(last_message="\n".join(texts), characters=sum(map(len, texts)), tokens=tokens)


def text_of(content: object) -> str:
    """The text of a message's `content`: a string, null, or a list of parts."""
    if isinstance(content, str):
        return content
    return "\n".join(_texts(content)) if isinstance(content, list) else ""


def _texts(parts: Sequence[object]) -> Iterator[str]:
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            yield text


def _measure_parts(parts: Sequence[object], has: set[str]) -> tuple[int, int]:
    """Characters and attachments; adds to `has` what the parts ask of a model."""
    attachments = 0
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind in _ATTACHMENTS:
            attachments += 1
            has.add(_ATTACHMENTS[kind])
    has.discard("")
    return sum(map(len, _texts(parts))), attachments


def _tool_call_characters(calls: object) -> int:
    functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    texts = [value for function in functions if isinstance(function, dict) for value in function.values()]
    return sum(len(text) for text in texts if isinstance(text, str))
