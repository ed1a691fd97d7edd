"""Every dialect's usage object -> Usage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# Above this a number is not a count of tokens: no context window comes within a thousandth of it, and prices times
# counts below it fit SQLite's 64-bit integers.
_ABSURD = 1_000_000_000

_CHARACTERS_PER_TOKEN = 4


class Usage(NamedTuple):
    """Tokens by type. The types are disjoint and sum to what was billed.

    `input` excludes cached and cache-write tokens, `output` is visible output and excludes `reasoning`.
    """

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    estimated: bool = False  # the upstream reported none; counted by us

    @property
    def total_input(self) -> int:
        return self.input + self.cached_input + self.cache_write

    @property
    def total_output(self) -> int:
        return self.output + self.reasoning


def read_usage(reported: Mapping[str, Any]) -> Usage | None:
    """Normalises a provider's usage object; None where it holds no count at all (an explicit zero is a count).

    Knows the names of OpenAI (chat, completions, embeddings, responses), DeepSeek, Moonshot, Anthropic, Gemini's
    OpenAI endpoint and llama.cpp. Sources stand beside each rule.
    """
    # OpenAI: chat says prompt/completion, responses and Anthropic say input/output
    # (platform.openai.com/docs/api-reference, "usage"; docs.anthropic.com/en/api/messages, "usage").
    prompt = _first(reported, "prompt_tokens", "input_tokens")
    completion = _first(reported, "completion_tokens", "output_tokens")
    total = _first(reported, "total_tokens")
    if prompt is None and completion is None and total is None:
        return None
    output = completion or 0
    if prompt is None:
        # Some embedding servers report the total alone.
        prompt = max((total or 0) - output, 0)

    cached, written = _cache_counts(reported)
    if _excludes_cache(reported):
        prompt += cached + written
    cached = min(cached, prompt)
    written = min(written, prompt - cached)

    # Gemini's OpenAI endpoint and xAI leave thinking out of completion_tokens but count it in total_tokens, and bill it
    # as output (ai.google.dev/gemini-api/docs/thinking, "Pricing"; mozilla-ai/any-llm#1290; docs.x.ai, "Reasoning").
    outside = max((total or 0) - prompt - output, 0)
    inside = min(max(_reasoning(reported) - outside, 0), output)
    return Usage(prompt - cached - written, cached, written, output - inside, inside + outside)


def estimate_tokens(characters: int) -> int:
    """A rough count for text of a length, used only where an upstream reports no usage; always marked `estimated`.

    Four characters a token, rounded up, is OpenAI's own rule of thumb for English (help.openai.com, "What are tokens
    and how to count them"). Code and CJK text have fewer characters a token; a tokenizer for each model would cost
    more than the rare missing report is worth.
    """
    return -(-characters // _CHARACTERS_PER_TOKEN)


def _count(value: object) -> int | None:
    """A count of tokens, or None: booleans, strings, fractions, negative and absurd numbers are none."""
    return value if type(value) is int and 0 <= value <= _ABSURD else None


def _first(mapping: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        count = _count(mapping.get(name))
        if count is not None:
            return count
    return None


def _details(reported: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        details = reported.get(name)
        if isinstance(details, Mapping):
            return details
    return {}


def _cache_counts(reported: Mapping[str, Any]) -> tuple[int, int]:
    """(cached, cache write). One number under two names means the same tokens; a zero may be mere filler."""
    details = _details(reported, "prompt_tokens_details", "input_tokens_details")
    cached = max(
        _first(details, "cached_tokens")
        or 0,  # OpenAI, vLLM, llama.cpp: platform.openai.com/docs/guides/prompt-caching
        _first(reported, "prompt_cache_hit_tokens") or 0,  # DeepSeek: api-docs.deepseek.com/guides/kv_cache
        _first(reported, "cached_tokens") or 0,  # Moonshot: platform.kimi.ai/docs/api/chat
        _first(reported, "cache_read_input_tokens") or 0,  # Anthropic: docs.anthropic.com, "Prompt caching"
    )
    written = max(
        _first(details, "cache_write_tokens", "cache_creation_tokens") or 0,  # OpenRouter; litellm
        _first(reported, "cache_creation_input_tokens") or 0,  # Anthropic
    )
    return cached, written


def _excludes_cache(reported: Mapping[str, Any]) -> bool:
    """Whether the input count leaves cached tokens out: Anthropic's own shape does, all others count them in.

    docs.anthropic.com, "Prompt caching", "Tracking cache performance": total input = cache_read_input_tokens +
    cache_creation_input_tokens + input_tokens. OpenAI's responses share the name `input_tokens`, not the cache names.
    """
    if _count(reported.get("prompt_tokens")) is not None or _count(reported.get("input_tokens")) is None:
        return False
    return "cache_read_input_tokens" in reported or "cache_creation_input_tokens" in reported


def _reasoning(reported: Mapping[str, Any]) -> int:
    details = _details(reported, "completion_tokens_details", "output_tokens_details")
    # SGLang reports it at the top of usage.
    return max(_first(details, "reasoning_tokens") or 0, _first(reported, "reasoning_tokens") or 0)
