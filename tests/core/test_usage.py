"""Usage objects as providers document or send them -> Usage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.usage import More, Usage, estimate_tokens, lacking, read_usage, text_bytes

# dialect and source, the object as sent, what it means
DIALECTS: list[tuple[str, dict[str, Any], Usage]] = [
    (
        "OpenAI chat: platform.openai.com/docs/guides/prompt-caching",
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "accepted_prediction_tokens": 0},
        },
        Usage(input=86, cached_input=1920, output=300),
    ),
    (
        "OpenAI reasoning: platform.openai.com/docs/guides/reasoning",
        {
            "prompt_tokens": 75,
            "completion_tokens": 1186,
            "total_tokens": 1261,
            "completion_tokens_details": {"reasoning_tokens": 1024},
        },
        Usage(input=75, output=162, reasoning=1024),
    ),
    (
        "OpenAI responses: platform.openai.com/docs/api-reference/responses",
        {
            "input_tokens": 328,
            "input_tokens_details": {"cached_tokens": 128},
            "output_tokens": 52,
            "output_tokens_details": {"reasoning_tokens": 2},
            "total_tokens": 380,
        },
        Usage(input=200, cached_input=128, output=50, reasoning=2),
    ),
    (
        "OpenAI embeddings: platform.openai.com/docs/api-reference/embeddings",
        {"prompt_tokens": 8, "total_tokens": 8},
        Usage(input=8),
    ),
    ("an embeddings server that reports the total alone", {"total_tokens": 8}, Usage(input=8)),
    (
        "DeepSeek: api-docs.deepseek.com/guides/kv_cache",
        {
            "prompt_tokens": 1000,
            "completion_tokens": 50,
            "total_tokens": 1050,
            "prompt_cache_hit_tokens": 896,
            "prompt_cache_miss_tokens": 104,
            "completion_tokens_details": {"reasoning_tokens": 20},
        },
        Usage(input=104, cached_input=896, output=30, reasoning=20),
    ),
    (
        "Moonshot: platform.kimi.ai/docs/api/chat, earendil-works/pi#8075",
        {"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32, "cached_tokens": 12},
        Usage(input=7, cached_input=12, output=13),
    ),
    (
        "Moonshot with both spellings is not counted twice: Bike4Mind/bike4mind#1089",
        {
            "prompt_tokens": 2989,
            "completion_tokens": 5,
            "total_tokens": 2994,
            "cached_tokens": 2989,
            "prompt_tokens_details": {"cached_tokens": 2989},
        },
        Usage(cached_input=2989, output=5),
    ),
    (
        "Anthropic, first request: docs.anthropic.com, Prompt caching (input_tokens leaves the cache out)",
        {
            "input_tokens": 21,
            "cache_creation_input_tokens": 188086,
            "cache_read_input_tokens": 0,
            "output_tokens": 393,
        },
        Usage(input=21, cache_write=188086, output=393),
    ),
    (
        "Anthropic, second request: the same page",
        {
            "input_tokens": 21,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 188086,
            "output_tokens": 393,
        },
        Usage(input=21, cached_input=188086, output=393),
    ),
    (
        "litellm's wording of Anthropic: prompt_tokens counts the cache in (BerriAI/litellm, Usage)",
        {
            "prompt_tokens": 130,
            "completion_tokens": 7,
            "total_tokens": 137,
            "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": 20,
        },
        Usage(input=10, cached_input=20, cache_write=100, output=7),
    ),
    (
        "OpenRouter's cache writes: openrouter.ai/docs, Prompt caching",
        {
            "prompt_tokens": 10339,
            "completion_tokens": 60,
            "total_tokens": 10399,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 10318},
        },
        Usage(input=21, cache_write=10318, output=60),
    ),
    (
        "Gemini's OpenAI endpoint: thinking only in the total (mozilla-ai/any-llm#1290)",
        {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623},
        Usage(input=20, output=198, reasoning=405),
    ),
    (
        "Gemini, all thinking and no answer",
        {"prompt_tokens": 20, "total_tokens": 120},
        Usage(input=20, reasoning=100),
    ),
    (
        "xAI: reasoning beside completion_tokens, both in the total (docs.x.ai, Reasoning)",
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        Usage(input=32, output=9, reasoning=94),
    ),
    (
        "SGLang: reasoning at the top",
        {"prompt_tokens": 5, "completion_tokens": 30, "total_tokens": 35, "reasoning_tokens": 20},
        Usage(input=5, output=10, reasoning=20),
    ),
    (
        "llama.cpp: tools/server/README.md",
        {
            "completion_tokens": 16,
            "prompt_tokens": 37,
            "total_tokens": 53,
            "prompt_tokens_details": {"cached_tokens": 36},
        },
        Usage(input=1, cached_input=36, output=16),
    ),
]

ODD: list[tuple[str, dict[str, Any], Usage | None]] = [
    ("nothing", {}, None),
    ("no count", {"prompt_tokens": None, "service_tier": "default"}, None),
    ("strings", {"prompt_tokens": "12", "completion_tokens": "3"}, None),
    ("an explicit zero is a count", {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, Usage()),
    ("a negative count", {"prompt_tokens": 5, "completion_tokens": -1}, Usage(input=5)),
    ("a boolean", {"prompt_tokens": True, "completion_tokens": 2}, Usage(output=2)),
    ("a fraction", {"prompt_tokens": 5.5, "completion_tokens": 2}, Usage(output=2)),
    ("a whole number with a point", {"prompt_tokens": 5.0, "completion_tokens": 2}, Usage(5, output=2)),
    ("a float that is no number", {"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, None),
    ("an absurd float", {"prompt_tokens": 1e300, "completion_tokens": 2}, Usage(output=2)),
    ("an absurd count", {"prompt_tokens": 10**12, "completion_tokens": 2}, Usage(output=2)),
    ("an absurd total", {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 10**30}, Usage(input=3, output=2)),
    (
        "a total that nobody can have thought",
        {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 99_999_999},
        Usage(input=3, output=2),
    ),
    ("details of another type", {"prompt_tokens": 3, "prompt_tokens_details": [1]}, Usage(input=3)),
    ("null details", {"completion_tokens": 3, "completion_tokens_details": None}, Usage(output=3)),
    ("more cached than there was", {"prompt_tokens": 10, "cached_tokens": 25}, Usage(cached_input=10)),
    (
        "more written than there was",
        {"prompt_tokens": 10, "cached_tokens": 4, "prompt_tokens_details": {"cache_write_tokens": 9}},
        Usage(cached_input=4, cache_write=6),
    ),
    ("more reasoning than output", {"completion_tokens": 4, "reasoning_tokens": 9}, Usage(reasoning=4)),
    ("a total that is too small", {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 3}, Usage(5, output=5)),
]


@pytest.mark.parametrize(("reported", "usage"), [row[1:] for row in DIALECTS], ids=[row[0] for row in DIALECTS])
def test_dialects(reported: dict[str, Any], usage: Usage) -> None:
    assert read_usage(reported) == usage


MORE: list[tuple[str, dict[str, Any], Usage]] = [
    (
        "OpenAI audio: platform.openai.com/docs/guides/audio; text and sound share the counts",
        {
            "prompt_tokens": 117,
            "completion_tokens": 160,
            "total_tokens": 277,
            "prompt_tokens_details": {"cached_tokens": 0, "text_tokens": 17, "audio_tokens": 100, "image_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "text_tokens": 29, "audio_tokens": 131},
        },
        Usage(117, output=160, more=More(audio_input=100, audio_output=131)),
    ),
    (
        "OpenAI realtime: which of the cached tokens were sound",
        {
            "input_tokens": 200,
            "output_tokens": 10,
            "input_token_details": {},
            "input_tokens_details": {
                "cached_tokens": 90,
                "audio_tokens": 120,
                "cached_tokens_details": {"text_tokens": 30, "audio_tokens": 60},
            },
            "output_tokens_details": {"text_tokens": 10, "audio_tokens": 0},
        },
        Usage(110, 90, output=10, more=More(audio_input=60, cached_audio_input=60)),
    ),
    (
        "nobody says which were cached: the fresh ones, which are the dearer",
        {
            "prompt_tokens": 100,
            "completion_tokens": 0,
            "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 70},
        },
        Usage(40, 60, more=More(audio_input=40, cached_audio_input=30)),
    ),
    (
        "OpenAI images: platform.openai.com/docs/api-reference/images/create",
        {
            "total_tokens": 100,
            "input_tokens": 50,
            "output_tokens": 50,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "output_tokens_details": {"text_tokens": 2, "image_tokens": 48},
        },
        Usage(50, output=50, more=More(image_input=40, image_output=48)),
    ),
    (
        "Anthropic: docs.anthropic.com/en/docs/build-with-claude/prompt-caching, 1-hour cache; web search tool",
        {
            "input_tokens": 2048,
            "cache_read_input_tokens": 1800,
            "cache_creation_input_tokens": 248,
            "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
            "output_tokens": 503,
            "server_tool_use": {"web_search_requests": 2},
            "service_tier": "standard",
        },
        Usage(2048, 1800, 248, 503, more=More(cache_write_1h=100, searches=2)),
    ),
    (
        "flex",
        {"prompt_tokens": 1, "completion_tokens": 1, "service_tier": "flex"},
        Usage(1, output=1, more=More("flex")),
    ),
    ("Anthropic's batch", {"input_tokens": 1, "service_tier": "batch"}, Usage(1, more=More("batch"))),
    ("Groq's usual", {"prompt_tokens": 1, "service_tier": "on_demand"}, Usage(1)),
    ("OpenAI's usual", {"prompt_tokens": 1, "service_tier": "default"}, Usage(1)),
    ("no word", {"prompt_tokens": 1, "service_tier": "Robert'); DROP TABLE"}, Usage(1)),
    ("a word without end", {"prompt_tokens": 1, "service_tier": "x" * 33}, Usage(1)),
    ("no text", {"prompt_tokens": 1, "service_tier": ["flex"]}, Usage(1)),
    (
        "more sound than there was",
        {
            "prompt_tokens": 10,
            "completion_tokens": 10,
            "prompt_tokens_details": {"audio_tokens": 30, "image_tokens": 30, "cached_tokens": 4},
            "completion_tokens_details": {"audio_tokens": 30, "image_tokens": 30},
        },
        Usage(6, 4, output=10, more=More(audio_input=6, cached_audio_input=4, audio_output=10)),
    ),
    (
        "details of another type",
        {"prompt_tokens": 1, "prompt_tokens_details": {"audio_tokens": "7", "cached_tokens_details": 3}},
        Usage(1),
    ),
]


@pytest.mark.parametrize(("reported", "usage"), [row[1:] for row in MORE], ids=[row[0] for row in MORE])
def test_what_few_answers_report(reported: dict[str, Any], usage: Usage) -> None:
    assert read_usage(reported) == usage


@pytest.mark.parametrize(("reported", "usage"), [row[1:] for row in ODD], ids=[row[0] for row in ODD])
def test_odd_objects(reported: dict[str, Any], usage: Usage | None) -> None:
    assert read_usage(reported) == usage


@pytest.mark.parametrize(
    ("reported", "without"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 0}, (False, False)),
        ({"prompt_tokens": 5, "completion_tokens": None}, (False, True)),
        ({"input_tokens": 5, "output_tokens": -1}, (False, True)),
        ({"prompt_tokens": 5.5, "completion_tokens": 2}, (True, False)),
        ({"completion_tokens": 2, "total_tokens": 7}, (False, False)),
        ({"total_tokens": 7}, (False, False)),
        ({"seconds": 3}, (False, False)),
        ({}, (False, False)),
    ],
)
def test_which_half_is_left_out(reported: dict[str, Any], without: tuple[bool, bool]) -> None:
    assert lacking(reported) == without


COUNTS = st.one_of(st.integers(-5, 2_000), st.none(), st.text(max_size=2), st.booleans(), st.integers())
DETAILS = st.dictionaries(st.sampled_from(["cached_tokens", "cache_write_tokens", "reasoning_tokens"]), COUNTS)
NAMES = [
    "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "reasoning_tokens",
    "cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
]  # fmt: skip
REPORTS = st.dictionaries(st.sampled_from(NAMES), COUNTS)


@settings(deadline=None)  # a shared machine pauses at will
@given(REPORTS, DETAILS, DETAILS)
def test_types_are_disjoint_and_never_negative(
    report: dict[str, Any], prompt: dict[str, Any], completion: dict[str, Any]
) -> None:
    usage = read_usage({**report, "prompt_tokens_details": prompt, "completion_tokens_details": completion})
    if usage is not None:
        assert min(usage[:5]) >= 0


@settings(deadline=None)  # a shared machine pauses at will
@given(st.integers(0, 9_999), st.integers(0, 9_999), st.integers(0, 20_000), st.integers(0, 20_000))
def test_types_sum_to_what_was_billed(prompt: int, completion: int, cached: int, reasoning: int) -> None:
    usage = read_usage(
        {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
    )
    assert usage is not None
    assert (usage.total_input, usage.total_output) == (prompt, completion)


SPECIAL = st.fixed_dictionaries(
    {}, optional={name: st.integers(0, 3_000) for name in ("audio_tokens", "image_tokens", "cached_tokens")}
)


@settings(deadline=None)  # a shared machine pauses at will
@given(st.integers(0, 2_000), st.integers(0, 2_000), SPECIAL, SPECIAL, SPECIAL, st.integers(0, 3_000))
def test_special_tokens_are_a_part_of_plain_ones(
    prompt: int, completion: int, into: dict[str, Any], cached: dict[str, Any], out: dict[str, Any], kept: int
) -> None:
    usage = read_usage(
        {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "cache_creation_input_tokens": kept,
            "cache_creation": {"ephemeral_1h_input_tokens": kept},
            "prompt_tokens_details": into | {"cached_tokens_details": cached},
            "completion_tokens_details": out,
        }
    )
    assert usage is not None
    more = usage.more or More()
    assert min(more[1:]) >= 0
    assert more.audio_input + more.image_input <= usage.input
    assert more.cached_audio_input + more.cached_image_input <= usage.cached_input
    assert more.cache_write_1h <= usage.cache_write
    assert more.audio_output + more.image_output <= usage.output


@pytest.mark.parametrize(("characters", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (400, 100)])
def test_estimate_rounds_up(characters: int, tokens: int) -> None:
    assert estimate_tokens(characters) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("Hello there.", 3), ("你好世界", 3), ("Привет", 3), ("\ud800", 1)],
)
def test_an_estimate_goes_by_bytes(text: str, tokens: int) -> None:
    """A script of three bytes a character is no cheaper than one of one byte; half a surrogate pair is no error."""
    assert estimate_tokens(text_bytes(text)) == tokens
