"""Prices as providers publish them -> nano-USD."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.pricing import Machine, Price, Rates, Tier, baseline_cost, cost, dollars, expected
from gateway.core.usage import Usage


def rates(input_: str, cached: str, output: str, *, write: str | None = None) -> Rates:
    """From USD per million tokens, as price pages say it."""
    fresh, read, written, out = (int(Fraction(usd) * 10**9) for usd in (input_, cached, write or input_, output))
    return Rates(fresh, read, written, out, out)


# platform.openai.com/docs/pricing
GPT_5 = Price("page", rates("1.25", "0.125", "10"))
# api-docs.deepseek.com/quick_start/pricing (V3.2)
DEEPSEEK = Price("page", rates("0.28", "0.028", "0.42"))
# ai.google.dev/gemini-api/docs/pricing: "prompts <= 200k tokens" and "prompts > 200k tokens"
GEMINI_PRO = Price("page", rates("1.25", "0.125", "10"), (Tier(200_000, rates("2.50", "0.25", "15")),))
# docs.anthropic.com/en/docs/about-claude/pricing: 5-minute writes at 1.25, reads at 0.1 of the input price
SONNET = Price("page", rates("3", "0.30", "15", write="3.75"))
# help.aliyun.com/zh/model-studio/models (international): qwen3-max, three tiers by input length
QWEN_MAX = Price(
    "page",
    rates("1.2", "0.24", "6"),
    (Tier(32_768, rates("2.4", "0.48", "12")), Tier(131_072, rates("3", "0.6", "15"))),
)
# The example of contract section 2: USD 2.40 an hour, 20,000 tokens/s in, 2,400 tokens/s out
MACHINE = Price("machine", machine=Machine(2_400_000_000, 20_000.0, 2_400.0))

# what, price, usage, USD
EXAMPLES: list[tuple[str, Price, Usage, str]] = [
    ("OpenAI: 86 fresh, 1,920 cached, 300 out", GPT_5, Usage(86, 1920, 0, 300), "0.0033475"),
    ("OpenAI: reasoning is billed as output", GPT_5, Usage(75, 0, 0, 162, 1024), "0.01195375"),
    ("OpenAI: a million of each", GPT_5, Usage(10**6, 10**6, 0, 10**6), "11.375"),
    ("DeepSeek: all missed", DEEPSEEK, Usage(10**6, 0, 0, 10**6), "0.7"),
    ("DeepSeek: 896 hit, 104 missed, 50 out", DEEPSEEK, Usage(104, 896, 0, 50), "0.000075208"),
    ("Gemini: 200,000 tokens are still the lower tier", GEMINI_PRO, Usage(200_000, 0, 0, 1_000), "0.26"),
    ("Gemini: one more token, and all of it costs more", GEMINI_PRO, Usage(200_001, 0, 0, 1_000), "0.5150025"),
    ("Gemini: cached tokens count for the tier", GEMINI_PRO, Usage(1, 200_000, 0, 0), "0.0500025"),
    ("Gemini: output does not", GEMINI_PRO, Usage(1_000, 0, 0, 300_000), "3.00125"),
    ("Anthropic: writing the book into the cache", SONNET, Usage(21, 0, 188_086, 393), "0.7112805"),
    ("Anthropic: reading it again", SONNET, Usage(21, 188_086, 0, 393), "0.0623838"),
    ("Qwen: first tier", QWEN_MAX, Usage(32_768, 0, 0, 100), "0.0399216"),
    ("Qwen: second tier", QWEN_MAX, Usage(32_769, 0, 0, 100), "0.0798456"),
    ("Qwen: third tier", QWEN_MAX, Usage(131_073, 0, 0, 100), "0.394719"),
    ("machine: a second of input and one of output", MACHINE, Usage(15_000, 5_000, 0, 2_000, 400), "0.001333333"),
    ("machine: 1,000 in, 240 out = 0.15 s", MACHINE, Usage(1_000, 0, 0, 240), "0.0001"),
    ("unmetered", Price("unmetered"), Usage(10**6, 0, 0, 10**6), "0"),
    ("nothing used", GPT_5, Usage(), "0"),
]


@pytest.mark.parametrize(("price", "usage", "usd"), [row[1:] for row in EXAMPLES], ids=[row[0] for row in EXAMPLES])
def test_published_prices(price: Price, usage: Usage, usd: str) -> None:
    assert dollars(cost(usage, price)) == usd


@pytest.mark.parametrize(
    ("rate", "tokens", "nano"),
    [(499_999, 1, 0), (500_000, 1, 1), (1_499_999, 1, 1), (1_500_000, 1, 2), (250_000, 2, 1), (400_000, 3, 1)],
)
def test_rounded_once_half_up(rate: int, tokens: int, nano: int) -> None:
    assert cost(Usage(input=tokens), Price("x", Rates(rate, 0, 0, 0, 0))) == nano


def test_each_type_is_rounded_together_not_alone() -> None:
    assert cost(Usage(1, 1, 1, 1, 1), Price("x", Rates(400_000, 400_000, 400_000, 400_000, 400_000))) == 2


def test_baseline_is_input_and_visible_output() -> None:
    usage = Usage(input=100, cached_input=50, cache_write=30, output=20, reasoning=10_000)
    assert baseline_cost(usage, SONNET) == cost(Usage(input=130, cached_input=50, output=20), SONNET)
    assert baseline_cost(usage, MACHINE) == cost(Usage(input=180, output=20), MACHINE)


def test_expected_is_uncached_and_visible() -> None:
    assert expected(SONNET, 1_000, 100) == cost(Usage(input=1_000, output=100), SONNET) == 4_500_000


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0"), (1, "0.000000001"), (1500, "0.0000015"), (10**9, "1"), (1_230_000_000, "1.23"),
        (-2_500_000_000, "-2.5"), (-1, "-0.000000001"), (10**20, "100000000000"),
    ],
)  # fmt: skip
def test_dollars(nano: int, text: str) -> None:
    assert dollars(nano) == text


@settings(deadline=None)  # a shared machine pauses at will
@given(st.integers(-(10**24), 10**24))
def test_dollars_are_exact(nano: int) -> None:
    assert Fraction(dollars(nano)) == Fraction(nano, 10**9)


TOKENS = st.integers(0, 10**7)
USAGES = st.tuples(TOKENS, TOKENS, TOKENS, TOKENS, TOKENS).map(lambda counts: Usage(*counts))
RATE = st.integers(0, 10**12)
RATES = st.builds(Rates, RATE, RATE, RATE, RATE, RATE)
SPEEDS = st.floats(0.5, 1e6, allow_nan=False)
MACHINES = st.tuples(st.integers(0, 10**12), SPEEDS, SPEEDS).map(lambda parts: Machine(*parts))
PER_TOKEN = RATES.map(lambda rates: Price("x", rates))
PER_HOUR = MACHINES.map(lambda machine: Price("x", machine=machine))
COUNTS = ("input", "cached_input", "cache_write", "output", "reasoning")


@settings(deadline=None)  # a shared machine pauses at will
@given(USAGES, st.one_of(PER_TOKEN, PER_HOUR), st.sampled_from(COUNTS), st.integers(1, 10**6))
def test_more_tokens_never_cost_less(usage: Usage, price: Price, name: str, more: int) -> None:
    larger = Usage(**{**usage._asdict(), name: getattr(usage, name) + more})
    assert 0 <= cost(usage, price) <= cost(larger, price)


@settings(deadline=None)  # a shared machine pauses at will
@given(USAGES, USAGES, st.one_of(PER_TOKEN, PER_HOUR))
def test_additive_up_to_rounding(one: Usage, two: Usage, price: Price) -> None:
    both = Usage(**{name: getattr(one, name) + getattr(two, name) for name in COUNTS})
    assert abs(cost(both, price) - cost(one, price) - cost(two, price)) <= 1


@settings(deadline=None)  # a shared machine pauses at will
@given(USAGES)
def test_a_tier_that_costs_more_never_makes_a_longer_request_cheaper(usage: Usage) -> None:
    assert cost(usage, GEMINI_PRO) <= cost(usage._replace(input=usage.input + 1), GEMINI_PRO)


@settings(deadline=None)  # a shared machine pauses at will
@given(USAGES, st.integers(0, 10**12), SPEEDS, SPEEDS)
def test_machine_cost_is_the_formula(usage: Usage, per_hour: int, into: float, out: float) -> None:
    seconds = Fraction(usage.total_input) / Fraction(into) + Fraction(usage.total_output) / Fraction(out)
    exact = Fraction(per_hour, 3600) * seconds
    assert abs(cost(usage, Price("x", machine=Machine(per_hour, into, out))) - exact) <= Fraction(1, 2)
