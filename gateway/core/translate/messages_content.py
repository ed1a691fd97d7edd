"""Messages of Anthropic's API as messages of OpenAI's chat.

Anthropic's blocks: docs.anthropic.com/en/api/messages, and the types of its Python SDK 2.12; chat's messages:
platform.openai.com/docs/api-reference/chat/create (both read 2026-11).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gateway.core.call import Json
from gateway.core.translate.base import Notes

Part = dict[str, Any]
Message = dict[str, Any]
_MESSAGE = frozenset({"role", "content"})
_RESULT = frozenset({"type", "tool_use_id", "content", "is_error"})
_USE = frozenset({"type", "id", "name", "input"})


def system_text(system: object, notes: Notes) -> str:
    """The system prompt, or an inline message of the role `system`: a text, or blocks of text, one a line."""
    if system is None or isinstance(system, str):
        return system or ""
    if not isinstance(system, list):
        notes.refuse("system (neither a text nor blocks of text)")
        return ""
    texts: list[str] = []
    for block in system:
        part = _part(block, "system", notes)
        if part is not None:
            texts.append(part["text"]) if part["type"] == "text" else notes.refuse(f"system: a block {block['type']!r}")
    return "\n".join(texts)


def chat_messages(messages: list[Any], json: Json, notes: Notes) -> list[Message]:
    made: list[Message] = []
    for message in messages:
        notes.drop_others("messages", message, _MESSAGE)
        role, content = message.get("role"), message.get("content")
        if role == "system":
            made.append({"role": "system", "content": system_text(content, notes)})
        elif role not in ("user", "assistant"):
            notes.refuse(f"messages: the role {role!r}")
        elif isinstance(content, str):
            made.append({"role": role, "content": content})
        elif not isinstance(content, list):
            notes.refuse("messages: content that is neither a text nor blocks")
        else:
            made += _of_user(content, notes) if role == "user" else [_of_assistant(content, json, notes)]
    return made


def _of_user(blocks: list[Any], notes: Notes) -> list[Message]:
    """What tools said goes first, as messages of their own: chat wants them right after the calls."""
    results: list[Message] = []
    shown: list[Part] = []  # pictures of results: chat's tool messages hold text alone, so the user shows them
    parts: list[Part] = []
    for block in blocks:
        if isinstance(block, dict) and block.get("type") == "tool_result":
            text, pictures = _result(block, notes)
            identity = str(block.get("tool_use_id", ""))
            results.append({"role": "tool", "tool_call_id": identity, "content": text})
            if pictures:
                shown += [{"type": "text", "text": f"{identity}:"}, *pictures]
        else:
            parts += _parts(block, "user", notes)
    parts = shown + parts
    return results if results and not parts else [*results, {"role": "user", "content": _plainest(parts)}]


def _result(block: Mapping[str, Any], notes: Notes) -> tuple[str, list[Part]]:
    """What a tool said, as text, and the pictures that it shows."""
    notes.drop_others("tool_result", block, _RESULT)
    content = block.get("content")
    if isinstance(content, str) or content is None:
        text, pictures = content or "", []
    elif isinstance(content, list):
        parts = [part for each in content for part in _parts(each, "tool_result", notes)]
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        pictures = [part for part in parts if part["type"] != "text"]
    else:
        notes.refuse("tool_result: content that is neither a text nor blocks")
        return "", []
    return (f"Error: {text}" if block.get("is_error") is True else text), pictures


def _of_assistant(blocks: list[Any], json: Json, notes: Notes) -> Message:
    texts: list[str] = []
    calls: list[Part] = []
    thoughts: list[str] = []
    for block in blocks:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "tool_use":
            calls.append(_call(block, json, notes))
        elif kind == "thinking" and not block.get("signature"):
            thoughts.append(str(block.get("thinking", "")))
        elif kind in ("thinking", "redacted_thinking"):
            notes.drop(f"messages.{kind}")  # another model signed it, and no other can read it
        else:
            for part in _parts(block, "assistant", notes):
                if part["type"] == "text":
                    texts.append(part["text"])
                else:
                    notes.refuse(f"messages: a block {kind!r} of the assistant")
    message: Message = {"role": "assistant", "content": "".join(texts)}
    if calls:
        message |= {"content": message["content"] or None, "tool_calls": calls}
    if thoughts and calls:
        # DeepSeek and Kimi want their thoughts back within a turn that calls tools, and nobody wants older ones:
        # api-docs.deepseek.com/guides/thinking_mode, platform.moonshot.ai/docs/guide/use-kimi-k2-thinking-model.
        message["reasoning_content"] = "\n".join(thoughts)
    elif thoughts:
        notes.drop("messages.thinking")
    return message


def _call(block: Mapping[str, Any], json: Json, notes: Notes) -> Part:
    caller = block.get("caller")
    if caller == {"type": "direct"}:
        block = {name: value for name, value in block.items() if name != "caller"}
    notes.drop_others("tool_use", block, _USE)
    arguments = json.dumps(block.get("input") or {}).decode()
    function = {"name": str(block.get("name", "")), "arguments": arguments}
    return {"id": str(block.get("id", "")), "type": "function", "function": function}


def _parts(block: object, where: str, notes: Notes) -> Iterator[Part]:
    if (part := _part(block, where, notes)) is not None:
        yield part


def _part(block: object, where: str, notes: Notes) -> Part | None:
    """A block as a part of chat's content; None, and a refusal, where it cannot be one."""
    kind = block.get("type") if isinstance(block, dict) else None
    make = PARTS.get(kind) if isinstance(kind, str) else None
    if make is None or not isinstance(block, dict):
        notes.refuse(f"messages: a block {kind!r}" if where != "system" else f"system: a block {kind!r}")
        return None
    return make(block, notes)


def _text(block: Mapping[str, Any], notes: Notes) -> Part | None:
    notes.drop_others("text", block, frozenset({"type", "text"}))
    text = block.get("text")
    if not isinstance(text, str):
        notes.refuse("messages: a block 'text' without a text")
        return None
    return {"type": "text", "text": text}


def _image(block: Mapping[str, Any], notes: Notes) -> Part | None:
    """platform.openai.com/docs/guides/images-vision: an address, or the data within one."""
    notes.drop_others("image", block, frozenset({"type", "source"}))
    url = _address(block.get("source"))
    if not url:
        notes.refuse("messages: an image that is neither data nor an address")
        return None
    return {"type": "image_url", "image_url": {"url": url}}


def _address(source: object) -> str:
    if not isinstance(source, dict):
        return ""
    kind, data, url = source.get("type"), source.get("data"), source.get("url")
    if kind == "base64" and isinstance(data, str):
        return f"data:{source.get('media_type', '')};base64,{data}"
    return url if kind == "url" and isinstance(url, str) else ""


def _document(block: Mapping[str, Any], notes: Notes) -> Part | None:
    """A text as text; a PDF as chat's `file`, which few servers but OpenAI's take (docs: guides/pdf-files)."""
    notes.drop_others("document", block, frozenset({"type", "source", "title", "context", "citations"}))
    _no_citations(block, notes)
    source = block.get("source")
    kind = source.get("type") if isinstance(source, dict) else None
    title, context = (each if isinstance(each := block.get(name), str) else "" for name in ("title", "context"))
    if isinstance(source, dict) and kind == "text" and isinstance(source.get("data"), str):
        return {"type": "text", "text": "\n".join(filter(None, (title, context, source["data"])))}
    if isinstance(source, dict) and kind == "content":
        inner = source.get("content")
        text = system_text(inner, notes)  # text alone: pictures in it are refused
        return {"type": "text", "text": "\n".join(filter(None, (title, context, text)))}
    if kind == "base64" and (data := _address(source)):
        if context:
            notes.drop("document.context")
        return {"type": "file", "file": {"filename": title or "document.pdf", "file_data": data}}
    notes.refuse(f"messages: a document whose source is {kind!r}")
    return None


def _search_result(block: Mapping[str, Any], notes: Notes) -> Part | None:
    notes.drop_others("search_result", block, frozenset({"type", "source", "title", "content", "citations"}))
    _no_citations(block, notes)
    text = system_text(block.get("content"), notes)
    return {
        "type": "text",
        "text": "\n".join(str(each) for each in (block.get("title"), block.get("source"), text) if each),
    }


def _no_citations(block: Mapping[str, Any], notes: Notes) -> None:
    """An answer with citations is another answer than one without."""
    citations = block.get("citations")
    if isinstance(citations, dict) and citations.get("enabled") is True:
        notes.refuse("citations")


def _plainest(parts: list[Part]) -> str | list[Part]:
    """A text alone as a string, which every server takes; some know no parts."""
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


PARTS: Mapping[str, Callable[[Mapping[str, Any], Notes], Part | None]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
}
