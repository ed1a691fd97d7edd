"""Chat, completions, embeddings and errors of OpenAI-dialect servers.

Only the members that decisions need are decoded; log probabilities, embeddings and the rest are skipped over. A member
of an unexpected type is passed over, never a reason to give up an otherwise good answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.core.answers import Seen
from gateway.core.failures import Refusal
from gateway.core.usage import text_bytes as size_of

_MESSAGE_LIMIT = 2000  # characters of a refusal's message that are kept
_TEXT_LIMIT = 200  # the same, of plain text and HTML

# What a chunk that only brings usage may hold besides: the envelope, and other words for usage.
_ENVELOPE = frozenset(
    {
        "id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier",
        "obfuscation",  # OpenAI's padding against length side channels
        "provider",  # OpenRouter
        "timings",  # llama.cpp
        "x_groq",
    }
)  # fmt: skip


class _Message(msgspec.Struct, gc=False):
    """`message` of an answer, `delta` of a chunk."""

    content: Any = None
    refusal: Any = None
    reasoning_content: Any = None  # DeepSeek, Qwen, Kimi, Doubao, llama.cpp, vLLM
    reasoning: Any = None  # OpenRouter, Groq, Ollama, newer vLLM
    thinking: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None
    images: Any = None  # OpenRouter and Gemini, where the model draws


class _Choice(msgspec.Struct, gc=False):
    delta: _Message | None = None
    message: _Message | None = None
    text: Any = None  # completions
    finish_reason: Any = None
    index: Any = None
    usage: Any = None  # Kimi: earendil-works/pi#2017


class _Answer(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    data: list[msgspec.Raw] | None = None  # embeddings
    usage: Any = None
    error: Any = None
    x_groq: Any = None
    service_tier: Any = None


_typed = msgspec.json.Decoder(_Answer)
_untyped = msgspec.json.Decoder()


def read_answer(body: bytes) -> Seen | None:
    """The view of a whole answer (chat, completions, embeddings); None where it is not a JSON object."""
    answer = _decode(body)
    return None if answer is None else _view(answer, body)


def read_chunk(data: bytes) -> Seen | None:
    """The view of one event's data (chat, completions); None where it is not a JSON object."""
    answer = _decode(data)
    if answer is None:
        return None
    choices = answer.choices
    if choices is not None and len(choices) == 1 and answer.usage is None and answer.error is None:
        seen = _usual(answer, choices[0])
        if seen is not None:
            return seen
    seen = _view(answer, data)
    if seen.usage is not None and not choices and seen.error is None:
        return seen._replace(usage_only=_holds_only_usage(data))
    return seen


def _usual(answer: _Answer, choice: _Choice) -> Seen | None:
    """The chunk that streams are made of: a piece of text or of reasoning. `_view` says the same, but slower."""
    delta = choice.delta
    if (
        delta is None
        or delta.tool_calls is not None
        or delta.refusal is not None
        or delta.thinking is not None
        or delta.function_call is not None
        or delta.audio is not None
        or delta.images is not None
        or choice.finish_reason is not None
        or choice.usage is not None
        or choice.message is not None
        or choice.text is not None
        or answer.x_groq is not None
        or answer.data is not None
    ):
        return None
    content = delta.content
    thought = delta.reasoning_content
    if thought is None:
        thought = delta.reasoning
    elif delta.reasoning is not None:
        return None
    if content is None:
        content = ""
    if thought is None:
        thought = ""
    if type(content) is not str or type(thought) is not str:
        return None
    shown = size_of(content)
    thoughts = size_of(thought)
    return tuple.__new__(Seen, (shown + thoughts > 0, 1, "", None, False, None, shown, thoughts, (), False))


def read_error(body: bytes) -> Refusal:
    """What the body of a 4xx or 5xx says, whatever its shape: OpenAI's envelope, FastAPI's, plain text, HTML."""
    value = loads(body)
    if isinstance(value, list) and value:
        value = value[0]  # Gemini's OpenAI endpoint wraps the envelope in an array: FuzzAnything/PromptFuzz#42
    if not isinstance(value, dict):
        return Refusal(_plain(value if isinstance(value, str) else body.decode(errors="replace")))
    error = value.get("error")
    inner = error if isinstance(error, dict) else value
    message = next(
        (text for text in map(_text, (inner.get("message"), error, value.get("detail"))) if text),
        "" if isinstance(error, dict) else _plain(body.decode(errors="replace")),
    )
    # Google says `status` where others say `type`.
    kind = inner.get("type") if isinstance(inner.get("type"), str) else inner.get("status")
    return Refusal(message[:_MESSAGE_LIMIT], _word(kind), _word(inner.get("code")))


def _decode(body: bytes) -> _Answer | None:
    try:
        return _typed.decode(body)
    except msgspec.ValidationError:
        value = loads(body)
        return _lenient(value) if isinstance(value, dict) else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def loads(body: bytes) -> object:
    """Any JSON value; None where it is not JSON (or null)."""
    try:
        value: object = _untyped.decode(body)
        return value
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _lenient(value: dict[str, Any]) -> _Answer:
    """The same members by hand, where one of them has a type that nobody expects."""
    data = value.get("data")
    return _Answer(
        choices=[
            _Choice(
                delta=_lenient_message(choice.get("delta")),
                message=_lenient_message(choice.get("message")),
                text=choice.get("text"),
                finish_reason=choice.get("finish_reason"),
                index=choice.get("index"),
                usage=choice.get("usage"),
            )
            for choice in _dicts(value.get("choices"))
        ],
        data=[msgspec.Raw(msgspec.json.encode(row)) for row in data] if isinstance(data, list) else None,
        usage=value.get("usage"),
        error=value.get("error"),
        x_groq=value.get("x_groq"),
        service_tier=value.get("service_tier"),
    )


def _lenient_message(value: object) -> _Message | None:
    if not isinstance(value, dict):
        return None
    return _Message(**{name: value.get(name) for name in _Message.__struct_fields__})


def _dicts(value: object) -> Iterable[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()


def _view(answer: _Answer, body: bytes) -> Seen:
    useful = bool(answer.data)
    text_bytes = reasoning = 0
    finish = ""
    finished: list[int] = []
    choices = answer.choices or []
    for position, choice in enumerate(choices):
        if isinstance(choice.finish_reason, str) and choice.finish_reason:
            finish = choice.finish_reason
            finished.append(choice.index if isinstance(choice.index, int) else position)
        shown, thought, more = _measure(choice)
        text_bytes += shown
        reasoning += thought
        useful = useful or bool(shown or thought) or more
    error = answer.error or None
    if error is None and not choices and not answer.data:
        error = _bare_error(body)
    count = len(choices) or len(answer.data or ())
    return Seen(
        *(useful, count, finish, _usage(answer), False, error, text_bytes, reasoning),
        tuple(finished),
    )


def _usage(answer: _Answer) -> dict[str, Any] | None:
    candidates = [answer.usage]
    if answer.choices:
        candidates.append(answer.choices[0].usage)
    if isinstance(answer.x_groq, dict):
        candidates.append(answer.x_groq.get("usage"))
    usage = next((usage for usage in candidates if isinstance(usage, dict) and usage), None)
    if usage is not None and answer.service_tier is not None and usage.get("service_tier") is None:
        usage["service_tier"] = answer.service_tier  # where Anthropic has it, and where it is needed
    return usage


def _measure(choice: _Choice) -> tuple[int, int, bool]:
    """(bytes of visible text, bytes of reasoning, whether there is anything useful that has neither)."""
    message = choice.message or choice.delta
    if message is None:
        return _length(choice.text), 0, False
    content = message.content
    thoughts = 0
    if isinstance(content, list):
        # Mistral's reasoning models put their thinking among the parts of the content.
        parts = list(_dicts(content))
        thoughts = sum(_length(part.get("thinking")) for part in parts)
        more = any(part.get("type") not in _TEXT_PARTS for part in parts)
        shown = sum(_length(part.get("text")) + _length(part.get("refusal")) for part in parts)
    else:
        more = bool(content) and not isinstance(content, str)
        shown = _length(content)
    shown += _length(choice.text) + _length(message.refusal)
    shown += _length(message.tool_calls) + _length(message.function_call)
    more = more or bool(message.tool_calls or message.function_call or message.audio or message.images)
    # Servers that say it twice, under an old and a new name, mean the same thoughts.
    thoughts += max(_length(message.reasoning_content), _length(message.reasoning), _length(message.thinking))
    return shown, thoughts, more


_TEXT_PARTS = (None, "text", "output_text", "thinking", "refusal")
_COUNTED = ("text", "thinking", "name", "arguments", "function")


def _length(value: object, depth: int = 4) -> int:
    """Bytes of a text, of the texts in its parts, or of a tool call's name and arguments."""
    if isinstance(value, str):
        return size_of(value)
    if depth == 0:
        return 0
    if isinstance(value, list):
        return sum(_length(item, depth - 1) for item in value)
    if isinstance(value, dict):
        return sum(_length(value.get(name), depth - 1) for name in _COUNTED)
    return 0


def _bare_error(body: bytes) -> object:
    """Older vLLM has no envelope: {"object": "error", "message": ..., "type": ..., "code": ...}."""
    value = loads(body)
    return value if isinstance(value, dict) and value.get("object") == "error" else None


def _holds_only_usage(data: bytes) -> bool:
    value = loads(data)
    return isinstance(value, dict) and all(member is None or name in _ENVELOPE for name, member in value.items())


def _word(value: object) -> str:
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _text(value: object) -> str:
    """A message: text, FastAPI's list of problems, or any object that holds one; empty where there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return next((text for name in ("message", "msg", "detail", "error") if (text := _text(value.get(name)))), "")
    if isinstance(value, list):
        return "; ".join(text for text in map(_text, value) if text)
    return ""


def _plain(text: str) -> str:
    """Plain text or HTML as one short line."""
    head = text[: _MESSAGE_LIMIT * 2]
    return " ".join(re.sub(r"<[^<>]*>", " ", head).split())[:_TEXT_LIMIT]
