"""The kinds of upstream failure (contract section 2, "Fallback kinds") and how each is recognised."""

from __future__ import annotations

import calendar
import email.utils
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from gateway.core.answers import Seen


class Kind(StrEnum):
    """What went wrong with an attempt. The names are those of `fallback_on` in routes.yaml."""

    CONNECT = "connect"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    ACCOUNT = "account"
    CONTEXT_LENGTH = "context_length"
    EMPTY = "empty"
    MALFORMED = "malformed"
    STREAM_CUT = "stream_cut"
    CONTENT_FILTER = "content_filter"


DEFAULT_FALLBACK_ON = frozenset(Kind) - {Kind.CONTENT_FILTER}

# These say something about the request itself: where no target is left, the client sees the upstream's own words.
RELAYED = frozenset({Kind.CONTEXT_LENGTH, Kind.CONTENT_FILTER})


class Refusal(NamedTuple):
    """What the body of an upstream's 4xx or 5xx says. Empty where it says nothing."""

    message: str = ""
    type: str = ""
    code: str = ""


# Codes and types, lower case, exact. Where two servers share one, the first source is named.
_CODES: Mapping[str, Kind] = {
    "context_length_exceeded": Kind.CONTEXT_LENGTH,  # OpenAI, Groq, Azure: platform.openai.com/docs/guides/error-codes
    "string_above_max_length": Kind.CONTEXT_LENGTH,  # OpenAI: one string is too long
    "exceed_context_size_error": Kind.CONTEXT_LENGTH,  # llama.cpp: tools/server/README.md, "type"
    "request_too_large": Kind.CONTEXT_LENGTH,  # Anthropic: docs.anthropic.com/en/api/errors
    "tokens_limit_reached": Kind.CONTEXT_LENGTH,  # GitHub Models
    "content_filter": Kind.CONTENT_FILTER,  # Azure: learn.microsoft.com, "Content filtering"; Moonshot
    "content_policy_violation": Kind.CONTENT_FILTER,  # OpenAI and Azure: BerriAI/litellm#19372
    "responsibleaipolicyviolation": Kind.CONTENT_FILTER,  # Azure's inner code
    "data_inspection_failed": Kind.CONTENT_FILTER,  # DashScope: help.aliyun.com/zh/model-studio/error-code
    "datainspectionfailed": Kind.CONTENT_FILTER,  # the same, native spelling
    "sensitivecontentdetected": Kind.CONTENT_FILTER,  # Volcengine Ark (Doubao): volcengine.com/docs/82379/1299023
    "inputtextsensitivecontentdetected": Kind.CONTENT_FILTER,  # the same
    "inputimagesensitivecontentdetected": Kind.CONTENT_FILTER,
    "outputtextsensitivecontentdetected": Kind.CONTENT_FILTER,
    "inputtextriskdetection": Kind.CONTENT_FILTER,
    "outputtextriskdetection": Kind.CONTENT_FILTER,
    "insufficient_quota": Kind.ACCOUNT,  # OpenAI, DashScope
    "exceeded_current_quota_error": Kind.ACCOUNT,  # Moonshot: platform.moonshot.ai/docs/api-reference, "Errors"
    "billing_hard_limit_reached": Kind.ACCOUNT,  # OpenAI
    "billing_not_active": Kind.ACCOUNT,  # OpenAI
    "arrearage": Kind.ACCOUNT,  # DashScope, a 400: help.aliyun.com/zh/dashscope/return-status-code-description
    "1113": Kind.ACCOUNT,  # Zhipu: no balance
}

# Parts of messages, lower case. Wordings drift: each is as short as stays unmistakable.
_WORDINGS: tuple[tuple[str, Kind], ...] = (
    ("maximum context length", Kind.CONTEXT_LENGTH),  # OpenAI, vLLM, DeepSeek, Mistral, OpenRouter: vllm#20409
    ("exceeds the context window", Kind.CONTEXT_LENGTH),  # OpenAI responses
    ("reduce the length of the messages", Kind.CONTEXT_LENGTH),  # OpenAI, Groq
    ("longer than the maximum model length", Kind.CONTEXT_LENGTH),  # vLLM, multi-modal prompts
    ("longer than the model's context length", Kind.CONTEXT_LENGTH),  # SGLang
    ("exceeds the available context size", Kind.CONTEXT_LENGTH),  # llama.cpp
    ("prompt is too long", Kind.CONTEXT_LENGTH),  # Anthropic: "prompt is too long: 215000 tokens > 200000 maximum"
    ("exceed context limit", Kind.CONTEXT_LENGTH),  # Anthropic: input and max_tokens together
    ("prompt too long", Kind.CONTEXT_LENGTH),  # Ollama
    ("input length exceeds the context length", Kind.CONTEXT_LENGTH),  # Ollama, embeddings
    ("exceeds the maximum number of tokens", Kind.CONTEXT_LENGTH),  # Gemini: "The input token count (1594712) ..."
    ("range of input length should be", Kind.CONTEXT_LENGTH),  # DashScope: QwenLM/qwen-code#98
    ("exceeded model token limit", Kind.CONTEXT_LENGTH),  # Moonshot
    ("maximum prompt length is", Kind.CONTEXT_LENGTH),  # xAI
    ("exceed max message tokens", Kind.CONTEXT_LENGTH),  # Volcengine Ark
    ("context window exceeds limit", Kind.CONTEXT_LENGTH),  # MiniMax
    ("prompt exceeds max length", Kind.CONTEXT_LENGTH),  # Zhipu
    ("input is too long", Kind.CONTEXT_LENGTH),  # Bedrock
    ("tokens + `max_new_tokens` must be", Kind.CONTEXT_LENGTH),  # Hugging Face TGI, a 422
    ("content management policy", Kind.CONTENT_FILTER),  # Azure: stanford-crfm/helm#3327
    ("datainspectionfailed", Kind.CONTENT_FILTER),  # DashScope, inside the message
    ("may contain inappropriate content", Kind.CONTENT_FILTER),  # DashScope
    ("content exists risk", Kind.CONTENT_FILTER),  # DeepSeek
    ("considered high risk", Kind.CONTENT_FILTER),  # Moonshot
    ("exceeded your current quota", Kind.ACCOUNT),  # OpenAI, Gemini
    ("check your plan and billing", Kind.ACCOUNT),  # OpenAI, Moonshot
    ("please check your billing", Kind.ACCOUNT),  # OpenAI: "Your account is not active, ..."
    ("insufficient balance", Kind.ACCOUNT),  # DeepSeek, Zhipu
    ("credit balance is too low", Kind.ACCOUNT),  # Anthropic, a 400
    ("api key not valid", Kind.ACCOUNT),  # Gemini, a 400
    ("api key expired", Kind.ACCOUNT),  # Gemini, a 400
    ("account is in good standing", Kind.ACCOUNT),  # DashScope's Arrearage
)

# How llama.cpp begins a 500 about what it cannot read of a request: ggml-org/llama.cpp#12947, #13566; seen of
# xllamacpp's server, 2026-11-26.
_UNREADABLE = (
    *("failed to parse messages", "failed to parse tools"),
    *("image input is not supported", "audio input is not supported"),
)

# Finish reasons that say the answer is not one: OpenRouter; vLLM and SGLang; DeepSeek (api-docs.deepseek.com,
# "finish_reason").
_BROKEN_FINISHES = frozenset({"error", "abort", "insufficient_system_resource"})

_LONGEST_WAIT = 86400.0  # seconds; a Retry-After beyond a day is a mistake


def judge_refusal(status: int, headers: Mapping[str, str], refusal: Refusal) -> Kind | None:
    """What an upstream's 4xx or 5xx means; None where it is the request's own fault and is relayed as it is.

    Contract section 2, "Fallback kinds". Any 404 counts against our account: the path is ours, so it is the model that
    the upstream does not know. A 400 about our key or balance (Gemini, DashScope and Anthropic send those) does too.
    """
    if status >= 500 or status == 408:
        return Kind.SERVER_ERROR
    if status in (401, 402, 403, 404):
        return Kind.ACCOUNT
    coded = _CODES.get(refusal.code.lower()) or _CODES.get(refusal.type.lower())
    said = coded or _worded(refusal.message)
    if status == 429:
        spent = coded is Kind.ACCOUNT or (said is Kind.ACCOUNT and not _comes_back(headers, refusal.message))
        return Kind.ACCOUNT if spent else Kind.RATE_LIMITED
    if status == 413:
        return said or Kind.CONTEXT_LENGTH
    if status in (400, 422):
        return said
    return None


def blames_request(status: int, refusal: Refusal) -> bool:
    """Whether a 500 is about the request all the same. The route goes on as after any other, for another model may be
    able to read it, but nothing is said about the server: else a client could shut out a model for all.
    """
    return status == 500 and refusal.message.lower().startswith(_UNREADABLE)


def judge_answer(seen: Seen | None, *, ends_in_tool_result: bool) -> Kind | None:
    """Whether a 200 is an answer: None where it is; `seen` is None where the body is not a JSON object."""
    if seen is None or seen.error is not None or seen.finish in _BROKEN_FINISHES:
        return Kind.MALFORMED
    if seen.choices == 0:
        return Kind.EMPTY
    return judge_end(useful=seen.useful, finish=seen.finish, ends_in_tool_result=ends_in_tool_result)


def judge_end(*, useful: bool, finish: str, ends_in_tool_result: bool) -> Kind | None:
    """Whether what came, whole or streamed, is worth having. After a tool result a model may have nothing to add."""
    if useful or finish == "length":
        return None
    if finish == "content_filter":
        return Kind.CONTENT_FILTER
    return None if ends_in_tool_result else Kind.EMPTY


def finish_is_broken(finish: str) -> bool:
    """Whether a finish reason says that the server gave up."""
    return finish in _BROKEN_FINISHES


def retry_after(headers: Mapping[str, str], now_unix: float) -> float | None:
    """Seconds that an upstream asks us to stay away, from 0 to a day; None where it does not say.

    `retry-after-ms` (OpenAI, Azure) before `retry-after`: seconds, fractions tolerated, or an HTTP date (RFC 9110
    10.2.3). `x-ratelimit-reset-*` is not read: it tells when a window is full again, not when the next request fits.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    value = headers.get("retry-after")
    seconds = milliseconds / 1000 if milliseconds is not None else _number(value)
    if seconds is None and value is not None:
        date = _http_date(value)
        seconds = None if date is None else date - now_unix
    return None if seconds is None else min(max(seconds, 0.0), _LONGEST_WAIT)


def _worded(message: str) -> Kind | None:
    lower = message.lower()
    return next((kind for part, kind in _WORDINGS if part in lower), None)


def _comes_back(headers: Mapping[str, str], message: str) -> bool:
    """Gemini words its per-minute limits as a spent quota, but says when to come back: continuedev/continue#10062."""
    return "retry-after" in headers or "please retry in" in message.lower()


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _http_date(text: str) -> float | None:
    parsed = email.utils.parsedate_tz(text)
    if parsed is None:
        return None
    try:
        return calendar.timegm(parsed[:9]) - (parsed[9] or 0)
    except (ValueError, OverflowError):
        return None


def describe(kind: Kind, error: object) -> str:
    """A failure inside a 200, for people. Only a provider's error message is repeated, never content."""
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("code") or error.get("type")
    if error:
        return f"an error inside a 200: {str(error)[:200]}"
    return {
        Kind.EMPTY: "an empty answer",
        Kind.MALFORMED: "a 200 that is not an answer",
        Kind.STREAM_CUT: "the stream ended before its finish",
        Kind.CONTENT_FILTER: "refused by the provider's filter",
    }.get(kind, str(kind))
