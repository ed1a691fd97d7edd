"""Every dialect's usage object -> Usage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

# Above this a number is not a count of tokens: no context window comes within a thousandth of it, and prices times
# counts below it fit SQLite's 64-bit integers.
_ABSURD = 1_000_000_000
# Nor does a model think that long for one answer: a total that says so beside counts that do not is a mistake.
_LONGEST_THOUGHT = 1_000_000

_BYTES_PER_TOKEN = 4
_LONGEST_SOUND = 1_000_000  # seconds


class More(NamedTuple):
    """What few answers report: how it was served, tokens that have a price of their own, what is sold by the piece.

    Some models are sold by the token and by the piece: images, milliseconds and characters are to be counted only where
    an answer reports no tokens.
    """

    service_tier: str = ""  # flex, priority, batch, ...; empty: the standard one
    cache_write_1h: int = 0  # of `cache_write`, tokens kept for an hour
    audio_input: int = 0  # of `input`
    cached_audio_input: int = 0  # of `cached_input`
    image_input: int = 0  # of `input`
    cached_image_input: int = 0  # of `cached_input`
    audio_output: int = 0  # of `output`
    image_output: int = 0  # of `output`
    images: int = 0  # made
    milliseconds: int = 0  # of sound, heard or spoken
    characters: int = 0  # spoken
    searches: int = 0  # on the web, by the provider; or its units of ranking


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
    more: More | None = None  # its tokens are among those above

    @property
    def total_input(self) -> int:
        return self.input + self.cached_input + self.cache_write

    @property
    def total_output(self) -> int:
        return self.output + self.reasoning


def read_usage(reported: Mapping[str, Any]) -> Usage | None:
    """Normalises a provider's usage object; None where it holds no count at all (an explicit zero is a count).

    Knows the names of OpenAI (chat, completions, embeddings, responses), DeepSeek, Moonshot, Anthropic, Gemini's
    OpenAI endpoint and llama.cpp; of what is sold by the piece, OpenAI's seconds of sound and Cohere's search units.
    Sources stand beside each rule.
    """
    # OpenAI: chat says prompt/completion, responses and Anthropic say input/output
    # (platform.openai.com/docs/api-reference, "usage"; docs.anthropic.com/en/api/messages, "usage").
    prompt = _first(reported, "prompt_tokens", "input_tokens")
    completion = _first(reported, "completion_tokens", "output_tokens")
    total = _first(reported, "total_tokens")
    if prompt is None and completion is None and total is None:
        pieces = _pieces(reported)
        return None if pieces is None else Usage(more=pieces)
    output = completion or 0
    if prompt is None:
        # Some embedding servers report the total alone.
        prompt = max((total or 0) - output, 0)

    into = _details(reported, "prompt_tokens_details", "input_tokens_details", "input_token_details")
    out = _details(reported, "completion_tokens_details", "output_tokens_details")
    cached, written = _cache_counts(reported, into)
    if _excludes_cache(reported):
        prompt += cached + written
    cached = min(cached, prompt)
    written = min(written, prompt - cached)

    # Gemini's OpenAI endpoint and xAI leave thinking out of completion_tokens but count it in total_tokens, and bill it
    # as output (ai.google.dev/gemini-api/docs/thinking, "Pricing"; mozilla-ai/any-llm#1290; docs.x.ai, "Reasoning").
    outside = max((total or 0) - prompt - output, 0)
    if outside > _LONGEST_THOUGHT:
        outside = 0
    inside = min(max(_reasoning(reported, out) - outside, 0), output)
    usage = Usage(prompt - cached - written, cached, written, output - inside, inside + outside)
    more = _more(reported, into, out, usage)
    return usage if more is None else usage._replace(more=more)


def lacking(reported: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether it leaves out what was read, and what was written: one of both, and no total that would tell it."""
    prompt = _first(reported, "prompt_tokens", "input_tokens")
    completion = _first(reported, "completion_tokens", "output_tokens")
    if (prompt is None) is (completion is None) or _first(reported, "total_tokens") is not None:
        return False, False
    return prompt is None, completion is None


def _pieces(reported: Mapping[str, Any]) -> More | None:
    # Whisper: platform.openai.com/docs/api-reference/audio/json-object. Cohere: docs.cohere.com/reference/rerank.
    seconds, units = reported.get("seconds"), _first(reported, "search_units")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds <= _LONGEST_SOUND:
        return More(milliseconds=round(seconds * 1000))
    return None if units is None else More(searches=units)


def text_bytes(text: str) -> int:
    """Bytes of a text in UTF-8: what `estimate_tokens` goes by."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def estimate_tokens(size: int) -> int:
    """A rough count for text of so many bytes, used only where an upstream reports none; always marked `estimated`.

    Four characters a token, rounded up, is OpenAI's own rule of thumb for English (help.openai.com, "What are tokens
    and how to count them"). By bytes it holds for other scripts too: a Chinese character is 3 bytes, and 0.6 to 1 token
    (docs/budgets.md has the measurements).
    """
    return -(-size // _BYTES_PER_TOKEN)


_STANDARD = frozenset({"", "auto", "default", "standard", "on_demand"})  # OpenAI's and Gemini's, Anthropic's, Groq's
_TIER = re.compile(r"[a-z][a-z_]{0,31}")


def _more(reported: Mapping[str, Any], into: Mapping[str, Any], out: Mapping[str, Any], usage: Usage) -> More | None:
    """None for nearly all answers. `into`, `out`: the details of input and of output."""
    service_tier = _service_tier(reported.get("service_tier"))
    if not (
        service_tier
        or into.get("audio_tokens")
        or into.get("image_tokens")
        or out.get("audio_tokens")
        or out.get("image_tokens")
        or reported.get("cache_creation")
        or reported.get("server_tool_use")
    ):
        return None
    # OpenAI's chat, images and realtime APIs: audio_tokens, image_tokens, and which of them were cached.
    cached = _details(into, "cached_tokens_details")
    audio, cached_audio = _special(into, cached, "audio_tokens", usage.input, usage.cached_input)
    image, cached_image = _special(into, cached, "image_tokens", usage.input - audio, usage.cached_input - cached_audio)
    spoken = min(_first(out, "audio_tokens") or 0, usage.output)
    # Anthropic: docs.anthropic.com, "Prompt caching", "1-hour cache duration"; "Web search tool", "Usage and pricing".
    kept = _first(_details(reported, "cache_creation"), "ephemeral_1h_input_tokens") or 0
    more = More(
        service_tier=service_tier,
        cache_write_1h=min(kept, usage.cache_write),
        audio_input=audio,
        cached_audio_input=cached_audio,
        image_input=image,
        cached_image_input=cached_image,
        audio_output=spoken,
        image_output=min(_first(out, "image_tokens") or 0, usage.output - spoken),
        searches=_first(_details(reported, "server_tool_use"), "web_search_requests") or 0,
    )
    return None if more == _NO_MORE else more


def _special(into: Mapping[str, Any], cached: Mapping[str, Any], name: str, fresh: int, kept: int) -> tuple[int, int]:
    """How many of the fresh and of the cached tokens are of a kind. Where nobody says, the dearer: fresh ones first."""
    total = _first(into, name) or 0
    known = _first(cached, name)
    of_cached = min(max(total - fresh, 0) if known is None else known, kept, total)
    return min(total - of_cached, fresh), of_cached


def _service_tier(value: object) -> str:
    """A short word, else none: it ends up in the ledger."""
    return value if isinstance(value, str) and value not in _STANDARD and _TIER.fullmatch(value) else ""


_NO_MORE = More()


def together(before: Usage, usage: Usage) -> Usage:
    """The usage of an answer that several upstreams gave: the input counts once, what each put out adds up."""
    if before == Usage():
        return usage
    return before._replace(
        output=before.output + usage.output,
        reasoning=before.reasoning + usage.reasoning,
        estimated=before.estimated or usage.estimated,
    )


def _count(value: object) -> int | None:
    """A count of tokens, or None: booleans, strings, fractions, negative and absurd numbers are none. 5.0 is one: JSON
    knows numbers only (RFC 8259, 6).
    """
    if type(value) is float and value.is_integer():
        value = int(value)
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


def _cache_counts(reported: Mapping[str, Any], details: Mapping[str, Any]) -> tuple[int, int]:
    """(cached, cache write). One number under two names means the same tokens; a zero may be mere filler."""
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


def _reasoning(reported: Mapping[str, Any], details: Mapping[str, Any]) -> int:
    # SGLang reports it at the top of usage; Anthropic says thinking: docs.anthropic.com/en/api/messages, "usage".
    return max(_first(details, "reasoning_tokens", "thinking_tokens") or 0, _first(reported, "reasoning_tokens") or 0)
