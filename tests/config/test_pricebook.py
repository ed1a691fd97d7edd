"""The price book of the pinned litellm, read without importing litellm."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from gateway.config.pricebook import HOSTS, WHEEL_DATES, PriceBook, book_provider, open_book
from gateway.core.pricing import NANO_PER_USD, Price, Rates, Tier, cost, dollars, price_at, sources
from gateway.core.usage import More, Usage
from gateway.wire import CODEC

ROOT = Path(__file__).parents[2]
UNLISTED = {"openrouter"}  # known to be absent: see HOSTS


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return open_book()


def entries(**fields: object) -> PriceBook:
    return PriceBook({"m": CODEC.dumps({"litellm_provider": "p", "mode": "chat"} | fields)}, "a book")


def test_its_name_has_the_date_of_the_pinned_wheel(book: PriceBook) -> None:
    version = importlib.metadata.version("litellm")
    pin = re.search(r'"litellm==([0-9.]+)"', (ROOT / "pyproject.toml").read_text())
    assert pin is not None
    assert pin[1] == version
    assert book.name == f"litellm {version} price book ({WHEEL_DATES[version]})"


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "bedrock"),  # listed under bedrock_converse
        ("gemini-2.5-pro", "vertex_ai"),  # under vertex_ai-language-models
        ("gemini-2.5-flash", "gemini"),
        ("claude-sonnet-4-5", "anthropic"),
    ],
)
def test_services_of_one_house(book: PriceBook, model: str, provider: str) -> None:
    found = book.find(model, provider)
    assert found is not None
    assert found.price is not None
    assert book.find(model, "groq") is None


def test_litellm_is_not_imported() -> None:
    code = "import sys; from gateway.config.pricebook import open_book as o; o(); print('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_every_provider_named_is_in_the_book(book: PriceBook) -> None:
    known = {CODEC.loads(bytes(source)).get("litellm_provider") for source in book.entries.values()}
    assert set(HOSTS.values()) - known == UNLISTED


@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ("https://ark.cn-beijing.volces.com/api/v3", "volcengine"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini"),
        ("https://api.moonshot.cn/v1", "moonshot"),
        ("https://api.openai.com.example.org/v1", ""),
        ("https://notvolces.com/v1", ""),
        ("http://127.0.0.1:8000/v1", ""),
        ("", ""),
    ],
)
def test_the_host_says_whose_prices_hold(base_url: str, provider: str) -> None:
    assert book_provider(base_url) == provider


def nano(*usd: str) -> Rates:
    """USD per million tokens: input, cached input, cache write, output and reasoning."""
    fresh, cached, written, output, reasoning = (int(Decimal(each) * NANO_PER_USD) for each in usd)
    return Rates(fresh, cached, written, output, reasoning)


def price_in(book: PriceBook, model: str, provider: str) -> Price:
    listing = book.find(model, provider)
    assert listing is not None
    assert listing.price is not None
    return listing.price


# From the providers' price pages.
@pytest.mark.parametrize(
    ("model", "provider", "rates", "tiers"),
    [
        ("gpt-5", "openai", nano("1.25", "0.125", "1.25", "10", "10"), {}),
        ("deepseek-chat", "deepseek", nano("0.28", "0.028", "0.28", "0.42", "0.42"), {}),
        (
            "gemini-2.5-pro",
            "gemini",
            nano("1.25", "0.125", "1.25", "10", "10"),
            {200_000: nano("2.5", "0.25", "2.5", "15", "15")},
        ),
        (
            "qwen3.7-plus",
            "dashscope",
            nano("0.4", "0.08", "0.4", "1.6", "1.6"),
            {256_000: nano("1.2", "0.24", "1.2", "4.8", "4.8")},
        ),
        (
            "gpt-6-astra",
            "openai",
            nano("10", "1", "12.5", "50", "50"),
            {272_000: nano("20", "2", "25", "75", "75")},
        ),
        ("text-embedding-3-small", "openai", nano("0.02", "0.02", "0.02", "0", "0"), {}),
    ],
)
def test_prices(book: PriceBook, model: str, provider: str, rates: Rates, tiers: dict[int, Rates]) -> None:
    price = price_in(book, model, provider)
    assert (price.rates, price.source) == (rates, book.name)
    assert {tier.above: tier.rates for tier in price.tiers} == tiers
    assert [tier.source for tier in price.tiers] == [f"{book.name}, above {above} input tokens" for above in tiers]


def test_service_tiers(book: PriceBook) -> None:
    services = price_in(book, "gpt-6-astra", "openai").services
    assert set(services) == {"flex", "priority", "batch", "ultrafast"}
    assert services["flex"].rates == nano("5", "0.5", "6.25", "25", "25")
    assert services["priority"].tiers == (
        Tier(272_000, nano("40", "4", "50", "150", "150"), f"{book.name}, priority, above 272000 input tokens"),
    )
    assert services["batch"].source == f"{book.name}, batch"


def test_a_service_tier_without_a_price_for_thinking_has_its_own_output_s(book: PriceBook) -> None:
    gemini = price_in(book, "gemini-2.5-flash", "gemini")
    assert gemini.services["flex"].rates is not None
    assert (gemini.services["flex"].rates.output, gemini.services["flex"].rates.reasoning) == (1_250_000_000,) * 2


def test_off_peak_hours(book: PriceBook) -> None:
    """DeepSeek V4: dearer on working days 09:00-12:00 and 14:00-18:00 in Beijing: 01:00-04:00 and 06:00-10:00 UTC."""
    price = price_in(book, "deepseek-v4-flash", "deepseek")
    usual, cheap = nano("0.3", "0.006", "0.3", "1.2", "1.2"), nano("0.15", "0.003", "0.15", "0.6", "0.6")
    for day, clock, rates in (
        ("2026-11-25", "00:59:59", cheap),  # a Wednesday
        ("2026-11-25", "01:00:00", usual),
        ("2026-11-25", "03:59:59", usual),
        ("2026-11-25", "04:00:00", cheap),
        ("2026-11-25", "06:00:00", usual),
        ("2026-11-25", "09:59:59", usual),
        ("2026-11-25", "10:00:00", cheap),
        ("2026-11-25", "23:59:59", cheap),
        ("2026-11-28", "07:00:00", cheap),  # a Saturday
        ("2026-11-30", "07:00:00", usual),
    ):
        at = price_at(price, datetime.fromisoformat(f"{day}T{clock}Z").timestamp())
        assert at is not None
        assert at.rates == rates, (day, clock)
        assert at.source == book.name + (", off-peak" if rates == cheap else "")


def test_sound_and_pictures(book: PriceBook) -> None:
    spoken = price_in(book, "gpt-realtime", "openai").rates
    assert spoken is not None
    assert spoken.more is not None
    assert (spoken.more.audio_input, spoken.more.cached_audio_input, spoken.more.audio_output) == (
        32 * NANO_PER_USD,
        400_000_000,
        64 * NANO_PER_USD,
    )
    drawn = price_in(book, "gpt-image-1", "openai").rates
    assert drawn is not None
    assert drawn.more is not None
    assert (drawn.output, drawn.more.image_input, drawn.more.cached_image_input) == (40 * 10**9, 10 * 10**9, 25 * 10**8)


@pytest.mark.parametrize(
    ("model", "provider", "more", "usd"),
    [
        ("whisper-1", "openai", More(milliseconds=90_500), "0.00905"),  # USD 0.006 a minute
        ("tts-1", "openai", More(characters=1_000), "0.015"),
        ("whisper-large-v3", "groq", More(milliseconds=3_600_000), "0.110988"),
    ],
)
def test_what_is_sold_by_the_piece(book: PriceBook, model: str, provider: str, more: More, usd: str) -> None:
    assert dollars(cost(Usage(more=more), price_in(book, model, provider))) == usd


def test_an_hour_in_the_cache_and_searches(book: PriceBook) -> None:
    """docs.anthropic.com/en/docs/about-claude/pricing: USD 6 a million tokens, and USD 10 a thousand searches."""
    price = price_in(book, "claude-sonnet-4-5", "")
    usage = Usage(cache_write=1_500_000, more=More(cache_write_1h=1_000_000, searches=3))
    assert dollars(cost(usage, price)) == "7.905"


def test_every_entry_of_the_book_is_read(book: PriceBook) -> None:
    """What it has is what its fields say, and a tier that costs more than it should is not made up."""
    priced = 0
    for name, source in book.entries.items():
        entry = CODEC.loads(bytes(source))
        listing = book.find(name, "")
        assert listing is not None
        price = listing.price
        if price is None:
            continue
        priced += 1
        assert price.rates is not None
        free = "moderation" in name  # OpenAI's, by its own word
        assert any(price.rates[:5]) or price.rates.more is not None or free, name
        for field, rate in (("input_cost_per_token", price.rates.input), ("output_cost_per_token", price.rates.output)):
            if entry.get(field) and "input_cost_per_token" in entry and price.rates.input:
                exact = Fraction(Decimal(repr(entry[field]))) * 10**15
                assert abs(rate - exact) <= Fraction(1, 2), (name, field)
        for found in sources(price):
            assert found.startswith(book.name)
        above = [tier.above for tier in price.tiers]
        assert above == sorted(set(above)), name
    assert priced > 2500


def test_what_a_model_can_do(book: PriceBook) -> None:
    listing = book.find("gpt-5", "openai")
    assert listing is not None
    assert (listing.context_window, listing.max_output_tokens) == (272_000, 128_000)
    assert listing.supports == {"tools", "json_schema", "images", "reasoning"}


def test_whose_price_it_is(book: PriceBook) -> None:
    assert book.find("gpt-5", "deepseek") is None
    assert book.find("deepseek/deepseek-chat", "openrouter") is None
    unknown_host = book.find("gpt-5", "")
    assert unknown_host is not None
    assert unknown_host.name == "gpt-5"


def test_reasoning_and_cache_writes() -> None:
    listing = entries(
        input_cost_per_token=1e-6,
        output_cost_per_token=2e-6,
        output_cost_per_reasoning_token=3e-6,
        cache_creation_input_token_cost=1.25e-6,
    ).find("m", "p")
    assert listing is not None
    assert listing.price is not None
    assert listing.price.rates == Rates(10**9, 10**9, 1_250_000_000, 2 * 10**9, 3 * 10**9)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"input_cost_per_token": 1e-6},
        {"input_cost_per_token": "1e-6", "output_cost_per_token": 1e-6},
        {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0},  # nobody's API is free: the book does not know
        {"input_cost_per_token": -1e-6, "output_cost_per_token": 1e-6},
        {"output_cost_per_image": 0.04},  # a chat model that draws: its tokens have no price
        {"output_cost_per_image": 0.0, "mode": "image_generation"},
    ],
)
def test_no_price_is_better_than_a_wrong_one(fields: dict[str, object]) -> None:
    listing = entries(**fields).find("m", "p")
    assert listing is not None
    assert listing.price is None


def test_wildcards_take_the_provider_s_models(book: PriceBook) -> None:
    openai, gemini = book.prices_of("openai"), book.prices_of("gemini")
    assert {"gpt-5", "gpt-4.1-mini", "text-embedding-3-small"} <= set(openai)
    assert "gemini-2.5-flash" in gemini
    assert not [name for name in (*openai, *gemini) if "/" in name]
