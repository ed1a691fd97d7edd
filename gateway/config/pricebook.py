"""The price book: litellm's JSON, read from inside its wheel without importing litellm (seconds, and it calls home).

One entry a model, under `<provider>/<model>` or the plain name. `bookentries` says what stands in them.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gateway.config.bookentries import sheet_of
from gateway.config.sheets import Sheet, compiled
from gateway.config.types import ProviderConfig
from gateway.core.call import Source
from gateway.core.pricing import Price
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


class Listing(NamedTuple):
    """What the book says of one model."""

    name: str  # its name in the book
    price: Price | None
    sheet: Sheet | None
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
                if not provider or _same_house(entry, provider):
                    return self._listing(name, entry)
        return None

    def prices_of(self, provider: str) -> dict[str, Price]:
        """Every priced model of a provider, by the name it has upstream: for wildcards."""
        mark = b'"litellm_provider": ' + CODEC.dumps(provider)[:-1]
        prices = {}
        for name, source in self.entries.items():
            raw = bytes(source)
            if mark in raw and "/" not in name.removeprefix(f"{provider}/"):
                entry = CODEC.loads(raw)
                price = self._listing(name, entry).price if _same_house(entry, provider) else None
                if price is not None:
                    prices[name.removeprefix(f"{provider}/")] = price
        return prices

    def _listing(self, name: str, entry: Mapping[str, Any]) -> Listing:
        sheet = sheet_of(entry)
        window, most = entry.get("max_input_tokens"), entry.get("max_output_tokens")
        return Listing(
            name=name,
            price=None if sheet is None else compiled(sheet, self.name),
            sheet=sheet,
            context_window=window if isinstance(window, int) and window > 0 else None,
            max_output_tokens=most if isinstance(most, int) and most > 0 else None,
            supports=frozenset(ability for ability, flag in _SUPPORTS.items() if entry.get(flag) is True),
        )


def _same_house(entry: Mapping[str, Any], provider: str) -> bool:
    """Whether an entry is of a provider, or of one of its services: bedrock_converse, vertex_ai-language-models."""
    given = entry.get("litellm_provider")
    return isinstance(given, str) and (given == provider or given.startswith((f"{provider}_", f"{provider}-")))


def known_by(provider: ProviderConfig) -> str:
    """The book's name for a provider; empty where it is not known."""
    given = provider.options.get("litellm_provider")
    return str(given) if given else book_provider(provider.base_url)


def open_book() -> PriceBook:
    """The book of the installed litellm; an empty one where litellm or its file is not there."""
    try:
        distribution = importlib.metadata.distribution("litellm")
        body = distribution.locate_file(_FILE).read_bytes()  # type: ignore[attr-defined]  # a Path: it is installed
    except (importlib.metadata.PackageNotFoundError, OSError):
        return PriceBook({}, "")
    date = WHEEL_DATES.get(distribution.version, "date unknown")
    return PriceBook(CODEC.members(body), f"litellm {distribution.version} price book ({date})")
