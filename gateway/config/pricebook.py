"""The price book: litellm's JSON, read from inside its wheel without importing litellm (seconds, and it calls home).

One entry a model, under `<provider>/<model>` or the plain name; prices are USD for one token as JSON numbers, whose
shortest decimal form is what the provider's page says. Fields: `input_cost_per_token`, `output_cost_per_token`,
`cache_read_input_token_cost`, `cache_creation_input_token_cost`, `output_cost_per_reasoning_token`, each also with
`_above_<N>k_tokens`; or `tiered_pricing`, a list of the same with `range: [from, to]` in input tokens. Batch, flex and
priority prices are other products. `off_peak_pricing` is not applied: the full price is charged all day.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gateway.core.call import Source
from gateway.core.pricing import NANO_PER_USD, Price, Rates, Tier
from gateway.wire import CODEC

_FILE = "litellm/model_prices_and_context_window_backup.json"

# The date of the files inside each release's wheel (its zip time stamps). Installing loses them, and the data itself
# holds only dates to come. A new pin needs a line here; a test says so.
WHEEL_DATES = {"1.106.2": "2026-10-21"}

# Whose prices hold at an API's host. OpenRouter's models are named after other providers ("deepseek/deepseek-chat") and
# cost other prices; this book has none for it.
HOSTS = {
    "api.openai.com": "openai",
    "api.deepseek.com": "deepseek",
    "dashscope.aliyuncs.com": "dashscope",
    "dashscope-intl.aliyuncs.com": "dashscope",
    "dashscope-us.aliyuncs.com": "dashscope",
    "api.moonshot.ai": "moonshot",
    "api.moonshot.cn": "moonshot",
    "volces.com": "volcengine",
    "bytepluses.com": "volcengine",
    "generativelanguage.googleapis.com": "gemini",
    "openrouter.ai": "openrouter",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.together.xyz": "together_ai",
    "api.together.ai": "together_ai",
    "api.fireworks.ai": "fireworks_ai",
    "api.deepinfra.com": "deepinfra",
    "api.x.ai": "xai",
    "api.cerebras.ai": "cerebras",
    "api.sambanova.ai": "sambanova",
    "api.novita.ai": "novita",
    "api.minimax.io": "minimax",
    "api.z.ai": "zai",
}

_SUPPORTS = {
    "tools": "supports_function_calling",
    "json_schema": "supports_response_schema",
    "images": "supports_vision",
    "audio": "supports_audio_input",
    "reasoning": "supports_reasoning",
    "prefill": "supports_assistant_prefill",
}
_BY_TYPE = {
    "input": "input_cost_per_token",
    "cached_input": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "output": "output_cost_per_token",
    "reasoning": "output_cost_per_reasoning_token",
}
_ABOVE = re.compile(r"input_cost_per_token_above_([0-9]+)k_tokens")


class Listing(NamedTuple):
    """What the book says of one model."""

    name: str  # its name in the book
    price: Price | None
    context_window: int | None
    max_output_tokens: int | None
    supports: frozenset[str]


def book_provider(base_url: str) -> str:
    """The book's name for whoever serves at `base_url`; empty where the host is not known."""
    host = urlsplit(base_url).hostname or ""
    return next((name for known, name in HOSTS.items() if host == known or host.endswith(f".{known}")), "")


class PriceBook:
    """One opened book. Entries are decoded when they are looked up; the rest stays bytes until the book is dropped."""

    def __init__(self, entries: Mapping[str, Source], name: str) -> None:
        self.entries = entries
        self.name = name  # "litellm 1.106.2 price book (2026-10-21)"; empty: there is no book

    def find(self, model: str, provider: str) -> Listing | None:
        """`provider` as in `book_provider`: where it is known, nobody else's price is taken; else the name counts."""
        for name in (f"{provider}/{model}", model) if provider else (model,):
            if name in self.entries:
                entry = CODEC.loads(memoryview(self.entries[name]))
                if not provider or entry.get("litellm_provider") == provider:
                    return self._listing(name, entry)
        return None

    def prices_of(self, provider: str) -> dict[str, Price]:
        """Every priced model of a provider, by the name it has upstream: for wildcards."""
        mark = b'"litellm_provider": ' + CODEC.dumps(provider)
        prices = {}
        for name, source in self.entries.items():
            raw = bytes(source)
            if mark in raw and "/" not in name.removeprefix(f"{provider}/"):
                price = self._listing(name, CODEC.loads(raw)).price
                if price is not None:
                    prices[name.removeprefix(f"{provider}/")] = price
        return prices

    def _listing(self, name: str, entry: Mapping[str, Any]) -> Listing:
        window, most = entry.get("max_input_tokens"), entry.get("max_output_tokens")
        return Listing(
            name=name,
            price=_price(entry, self.name),
            context_window=window if isinstance(window, int) and window > 0 else None,
            max_output_tokens=most if isinstance(most, int) and most > 0 else None,
            supports=frozenset(ability for ability, flag in _SUPPORTS.items() if entry.get(flag) is True),
        )


def open_book() -> PriceBook:
    """The book of the installed litellm; an empty one where litellm or its file is not there."""
    try:
        distribution = importlib.metadata.distribution("litellm")
        body = distribution.locate_file(_FILE).read_bytes()  # type: ignore[attr-defined]  # a Path: it is installed
    except (importlib.metadata.PackageNotFoundError, OSError):
        return PriceBook({}, "")
    date = WHEEL_DATES.get(distribution.version, "date unknown")
    return PriceBook(CODEC.members(body), f"litellm {distribution.version} price book ({date})")


def _price(entry: Mapping[str, Any], source: str) -> Price | None:
    bands = [band for band in entry.get("tiered_pricing", ()) if isinstance(band.get("range"), list)]
    base = _rates(entry if "input_cost_per_token" in entry or not bands else bands[0], "")
    if base is None or not any(base):  # nobody's paid API is free: 0 says that the book does not know
        return None
    return Price(source, rates=base, tiers=tuple(sorted(_tiers(entry, bands))))


def _tiers(entry: Mapping[str, Any], bands: list[Mapping[str, Any]]) -> Iterator[Tier]:
    for band in bands[1:]:
        rates = _rates(band, "")
        if rates is not None:
            yield Tier(int(band["range"][0]), rates)
    for field in entry:
        match = _ABOVE.fullmatch(field)
        rates = _rates(entry, f"_above_{match[1]}k_tokens") if match else None
        if match and rates is not None:
            yield Tier(int(match[1]) * 1000, rates)


def _rates(entry: Mapping[str, Any], suffix: str) -> Rates | None:
    """None where input or output has no price. A type without a price costs what input (reasoning: output) does.

    A cache write at 0 is the book's way to say "no such price".
    """
    found = {kind: _nano(entry.get(field + suffix)) for kind, field in _BY_TYPE.items()}
    input, output = found["input"], found["output"]  # noqa: A001 - the field's own names
    if input is None or (output is None and entry.get("mode") != "embedding"):
        return None
    cached, reasoning = found["cached_input"], found["reasoning"]
    return Rates(
        input=input,
        cached_input=input if cached is None else cached,
        cache_write=found["cache_write"] or input,
        output=output or 0,
        reasoning=(output or 0) if reasoning is None else reasoning,
    )


def _nano(usd_per_token: object) -> int | None:
    """USD a token -> nano-USD a million tokens, exact for the decimal that was written."""
    if isinstance(usd_per_token, bool) or not isinstance(usd_per_token, (int, float)) or usd_per_token < 0:
        return None
    exact = Decimal(repr(usd_per_token)) * 1_000_000 * NANO_PER_USD
    return int(exact.to_integral_value(ROUND_HALF_UP))
