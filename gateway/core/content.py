"""What a request's content shows: the facts that rules and limits ask for, found in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gateway.core.usage import text_bytes as size_of

ATTACHMENT_TOKENS = 800  # of one image, sound or file: the middle of what providers count for an image (258 to 1,600)

# The `type` of a part that is no text -> what the model must be able to take. OpenAI's chat and responses APIs. vLLM
# takes parts without a type, or with an id to keep them by: then it is the name of their member.
_ATTACHMENTS: Mapping[str, str] = {
    "image_url": "images",
    "input_image": "images",
    "image": "images",
    "computer_screenshot": "images",
    "input_audio": "audio",
    "audio_url": "audio",  # vLLM's
    "file": "",  # servers turn it into text or images themselves
    "input_file": "",
    "document": "",  # Anthropic's
    "video_url": "",  # vLLM's, likewise
    "video": "",  # DashScope's: a list of frames
    "container_upload": "",  # Anthropic's, by the id of a file
    "document_url": "",  # Mistral's
    "image_embeds": "images",  # vLLM's, and the two below
    "audio_embeds": "audio",
    "prompt_embeds": "",
}


# Members of a message or of a part that hold signed thinking: Anthropic's, LiteLLM's, OpenRouter's, Gemini's.
_THINKING = ("thinking_blocks", "reasoning_details", "redacted_thinking", "thinking", "extra_content")
_SIGNATURES = ("signature", "thought_signature", "encrypted_content", "data")
_THINKING_PARTS = frozenset({"thinking", "redacted_thinking", "reasoning"})
# Where an attachment's address stands, in OpenAI's chat and responses and in Anthropic's sources; or a file's id.
_ADDRESSES = ("url", "image_url", "video_url", "audio_url", "document_url", "file_url", "file_id")
# Where the data themselves stand; some servers take an address there, too: openrouter.ai/docs/features/multimodal/pdfs,
# alibabacloud.com/help/en/model-studio/qwen-omni.
_DATA = ("data", "file_data")
_SCHEME = 16  # characters in which an address shows that it is one
_PLAIN = 2  # members of a message: its role and its content
_DEPTH = 4  # levels in which a signature is looked for: extra_content.google.thought_signature, and one for a list


class Content(NamedTuple):
    """Facts about messages, a prompt or an input."""

    has: frozenset[str] = frozenset()  # of images, audio
    system_prompt: str = ""
    last_message: str = ""
    last_role: str = ""  # of the last message
    text_bytes: int = 0  # UTF-8
    tokens: int = 0  # known without measuring text: attachments, and input that is already tokens
    tied: bool = False  # the history holds tool calls or signed thinking, which another model could not go on with
    attachments: int = 0  # images, sounds and files
    remote: bool = False  # one of them is only an address: what it will count cannot be known
    items: int = 1  # prompts or inputs in one request


def read_messages(messages: Sequence[Mapping[str, Any]]) -> Content:
    """Of a chat. Members of unexpected types count as absent: to refuse them is the upstream's business."""
    system: list[str] = []
    last: Any = None
    text_bytes = attachments = 0
    has: set[str] = set()
    tied = remote = False
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            text_bytes += size_of(content)
        elif isinstance(content, list):
            size, count = _measure_parts(content, has)
            text_bytes += size
            attachments += count
            remote = remote or (count > 0 and any(map(_is_remote, content)))
        role = message.get("role")
        if role == "user":
            last = content
        elif role in ("system", "developer"):
            system.append(text_of(content))
        elif role != "assistant" or len(message) != _PLAIN or not isinstance(content, str):
            text_bytes += _tool_call_bytes(message.get("tool_calls"))
            tied = tied or _ties(message)
    final = messages[-1]
    role = "tool" if _answers_a_tool(final.get("content")) else str(final.get("role", ""))
    return Content(
        *(frozenset(has), "\n".join(system), text_of(last), role, text_bytes),
        *(attachments * ATTACHMENT_TOKENS, tied, attachments, remote),
    )


def _ties(message: Mapping[str, Any]) -> bool:
    """Whether a message, not the user's, can only be gone on with by the model that wrote it."""
    if message.get("tool_calls") or message.get("function_call") or message.get("role") in ("tool", "function"):
        return True
    if any(name in message and _is_signed(message[name]) for name in _THINKING):
        return True
    parts = message.get("content")
    return isinstance(parts, list) and any(isinstance(part, dict) and _part_ties(part) for part in parts)


def _answers_a_tool(content: object) -> bool:
    """Anthropic has no role for what a tool said: it is a part of a message of the user."""
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") == "tool_result" for part in content
    )


def _part_ties(part: Mapping[str, Any]) -> bool:
    kind = part.get("type")
    return kind == "tool_use" or (isinstance(kind, str) and kind in _THINKING_PARTS and _is_signed(part))


def _is_signed(value: object, depth: int = _DEPTH) -> bool:
    if isinstance(value, list):
        return depth > 0 and any(_is_signed(each, depth - 1) for each in value)
    if not isinstance(value, dict) or not depth:
        return False
    return any(map(value.get, _SIGNATURES)) or any(_is_signed(inner, depth - 1) for inner in value.values())


def with_system(content: Content, system: object) -> Content:
    """With a system prompt that stands outside of the messages: Anthropic's `system`, `instructions` of responses."""
    if not (text := text_of(system)):
        return content
    whole = "\n".join(filter(None, (text, content.system_prompt)))
    return content._replace(system_prompt=whole, text_bytes=content.text_bytes + size_of(text))


def read_items(given: object) -> Content:
    """Of the `input` of a response: a string, or messages, tool calls, their results and reasoning in their order."""
    if isinstance(given, str):
        return Content(last_message=given, last_role="user", text_bytes=size_of(given))
    items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
    if not items:
        return Content()
    content = read_messages([item for item in items if "role" in item] or [{}])
    others = [item for item in items if "role" not in item]
    has = set(content.has)
    text_bytes, attachments, remote = content.text_bytes, content.attachments, content.remote
    for item in others:
        text_bytes += sum(size_of(text_of(item.get(name))) for name in ("arguments", "input"))
        output = item.get("output")  # of a tool: a text, parts, or one part
        parts = [output] if isinstance(output, dict) else output
        if not isinstance(parts, list):
            text_bytes += size_of(text_of(parts))
            continue
        size, count = _measure_parts(parts, has)
        text_bytes, attachments = text_bytes + size, attachments + count
        remote = remote or any(map(_is_remote, parts))
    last = items[-1]
    role = str(last.get("role") or ("tool" if str(last.get("type", "")).endswith("_output") else "assistant"))
    return content._replace(
        has=frozenset(has),
        text_bytes=text_bytes,
        tokens=attachments * ATTACHMENT_TOKENS,
        last_role=role,
        tied=content.tied or bool(others),
        attachments=attachments,
        remote=remote,
    )


def read_input(given: object) -> Content:
    """Of a completion's prompt or an embedding's input: a string, strings, token ids, or lists of token ids."""
    if isinstance(given, str):
        return Content(last_message=given, text_bytes=size_of(given))
    if not isinstance(given, list):
        return Content()
    texts = [item for item in given if isinstance(item, str)]
    tokens = sum(len(item) if isinstance(item, list) else isinstance(item, int) for item in given)
    items = 1 if any(isinstance(item, int) for item in given) else max(1, len(given))
    return Content(last_message="\n".join(texts), text_bytes=sum(map(size_of, texts)), tokens=tokens, items=items)


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
    """Bytes of text, and attachments; adds to `has` what the parts ask of a model."""
    text_bytes = attachments = 0
    for part in parts:
        if not isinstance(part, dict):
            continue
        kind = _kind(part)
        if kind in _ATTACHMENTS:
            attachments += 1
            has.add(_ATTACHMENTS[kind])
        elif kind == "tool_result":  # Anthropic's: text, or parts again
            inner = part.get("content")
            size, count = _measure_parts(inner, has) if isinstance(inner, list) else (size_of(text_of(inner)), 0)
            text_bytes, attachments = text_bytes + size, attachments + count
        elif kind == "tool_use":
            text_bytes += size_of(str(part.get("input", "")))
    has.discard("")
    return text_bytes + sum(map(size_of, _texts(parts))), attachments


def _kind(part: Mapping[str, Any]) -> str:
    """Its `type`, or the name of the member by which a server tells it (vLLM, vllm/entrypoints/chat_utils.py)."""
    kind = part.get("type")
    named = kind if isinstance(kind, str) else ""
    if kind is None or part.get("uuid") is not None:
        return next((name for name in part if name in _ATTACHMENTS), named)
    return named


def _is_remote(part: object) -> bool:
    """Whether a part brings something that is not in the request itself: a URL, or the id of a file."""
    if not isinstance(part, dict):
        return False
    kind = _kind(part)
    if kind == "tool_result":  # Anthropic's: parts again
        inner = part.get("content")
        return isinstance(inner, list) and any(map(_is_remote, inner))
    if kind not in _ATTACHMENTS:
        return False
    holders = [value for value in part.values() if isinstance(value, dict)] + [part]
    if any(_leads_elsewhere(holder.get(name)) for holder in holders for name in _ADDRESSES):
        return True  # whatever else stands beside it
    named = [holder for holder in holders if not (kind == "document" and _is_plain_text(holder))]
    if any(_leads_elsewhere(data) and "://" in data[:_SCHEME] for data in _data(named)):
        return True
    return (
        not any(isinstance(holder.get("url"), str) and holder["url"].startswith("data:") for holder in holders)
        and not any(name in holder for holder in holders for name in _DATA)
        and not any(isinstance(value, str) and value.startswith("data:") for value in part.values())
    )


def _is_plain_text(source: Mapping[str, Any]) -> bool:
    """Of Anthropic's documents, whose text may begin with an address that nobody follows: their "Plain text" source
    (platform.claude.com/docs/en/build-with-claude/citations).
    """
    return source.get("type") == "text"


def _data(holders: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for holder in holders:
        for name in _DATA:
            if isinstance(data := holder.get(name), str):
                yield data


def _leads_elsewhere(address: object) -> bool:
    return isinstance(address, str) and not address.startswith("data:")


def _tool_call_bytes(calls: object) -> int:
    functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    texts = [value for function in functions if isinstance(function, dict) for value in function.values()]
    return sum(size_of(text) for text in texts if isinstance(text, str))
