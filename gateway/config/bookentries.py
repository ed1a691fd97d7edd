"""An entry of litellm's price book -> a price sheet.

Prices are USD for one token (image, second, ...) as JSON numbers, whose shortest decimal form is what the provider's
page says. A kind's field may end in `_above_<N>k_tokens`, in a service tier (`_flex`, `_priority`, `_batches`,
`_ultrafast`, `_balanced`), or in both. `tiered_pricing` is a list of the same with `range: [from, to]` in input tokens.
`off_peak_pricing` has rates for UTC hours; they take the place of tiers, too, as litellm bills them.

Not applied, because no answer says when it applies: `regional_*_uplift_multiplier`, `_decisions`, prices by resolution
or quality of an image, video.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo
from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from gateway.config.sheets import Band, Period, Sheet
from gateway.core.hours import DAY, EVERY_DAY, Window
from gateway.core.pricing import NANO_PER_USD

_KINDS = {
    "input": "input_cost_per_token",
    "cached_input": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "output": "output_cost_per_token",
    "reasoning": "output_cost_per_reasoning_token",
    "audio_input": "input_cost_per_audio_token",
    "cached_audio_input": "cache_read_input_audio_token_cost",
    "image_input": "input_cost_per_image_token",
    "cached_image_input": "cache_read_input_image_token_cost",
    "audio_output": "output_cost_per_audio_token",
    "image_output": "output_cost_per_image_token",
}
_ZERO_IS_NONE = frozenset({"cache_write", "cache_write_1h"})  # the book's way to say "no such price"
_SERVICES = {name: name for name in ("flex", "priority", "ultrafast", "balanced")} | {"batch": "batches"}
"""The word in an answer -> the word in the book."""
_ABOVE = re.compile(r"input_cost_per_token_above_([0-9]+)k_tokens")
_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
_OUTPUTS = frozenset({"output", "image_output", "audio_output"})
_SOUND = frozenset({"audio_transcription", "audio_speech"})
_PICTURES = frozenset({"image_generation", "image_edit"})
OFF_PEAK = "off-peak"


def sheet_of(entry: Mapping[str, Any]) -> Sheet | None:
    """None where the book has no price. 0 for everything is none: nobody's paid API is free, but OpenAI's moderations.

    Those are by its own word: platform.openai.com/docs/guides/moderation.
    """
    bands = [band for band in entry.get("tiered_pricing", ()) if isinstance(band.get("range"), list)]
    rates = _rates(entry if "input_cost_per_token" in entry or not bands else bands[0], "")
    if entry.get("mode") == "embedding":
        rates.setdefault("output", 0)
    tokens = "input" in rates and not _OUTPUTS.isdisjoint(rates)
    rates = (rates if tokens else {}) | _pieces(entry)
    free = entry.get("mode") == "moderation" and entry.get("litellm_provider") == "openai"
    if not (any(rates.values()) or free) or not (tokens or Sheet(rates).whole):
        return None
    above = [int(match[1]) for field in entry if (match := _ABOVE.fullmatch(field))]
    found = [Band(int(band["range"][0]), _rates(band, "")) for band in bands[1:]]
    return Sheet(
        rates=rates,
        bands=_whole([*found, *_above(entry, above, "")]),
        services=dict(_services(entry, above)),
        periods=tuple(_off_peak(entry.get("off_peak_pricing"))),
    )


def _rates(entry: Mapping[str, Any], suffix: str) -> dict[str, int]:
    found = {kind: _nano(entry.get(field + suffix)) for kind, field in _KINDS.items()}
    return {kind: rate for kind, rate in found.items() if rate or (rate == 0 and kind not in _ZERO_IS_NONE)}


def _above(entry: Mapping[str, Any], thousands: list[int], suffix: str) -> list[Band]:
    return [Band(count * 1000, _rates(entry, f"_above_{count}k_tokens{suffix}")) for count in thousands]


def _whole(bands: list[Band]) -> tuple[Band, ...]:
    """Those that say what input and output cost, in their order; the rest would be half a price."""
    fine = [band for band in bands if "input" in band.rates and not _OUTPUTS.isdisjoint(band.rates)]
    return tuple(sorted(fine, key=lambda band: band.above))


def _services(entry: Mapping[str, Any], thousands: list[int]) -> Iterator[tuple[str, Sheet]]:
    for name, word in _SERVICES.items():
        if rates := _rates(entry, f"_{word}"):
            yield name, Sheet(rates, _whole(_above(entry, thousands, f"_{word}")))


def _pieces(entry: Mapping[str, Any]) -> dict[str, int]:
    """What is sold by the piece. Of two prices for a second litellm bills one, and they are the same or one is 0."""
    mode = entry.get("mode")
    found: dict[str, int | None] = {}
    if mode in _SOUND:
        seconds = [_nano(entry.get(field)) or 0 for field in ("input_cost_per_second", "output_cost_per_second")]
        found["milliseconds"] = max(seconds) // 1000
        found["characters"] = _nano(entry.get("input_cost_per_character"))
    if mode in _PICTURES:
        found["images"] = _nano(entry.get("output_cost_per_image")) or _nano(entry.get("input_cost_per_image"))
    if mode == "rerank":
        found["searches"] = _nano(entry.get("input_cost_per_query"))
    searches = entry.get("search_context_cost_per_query")
    if isinstance(searches, dict) and entry.get("litellm_provider") == "anthropic":  # others' answers count none
        found["searches"] = _nano(searches.get("search_context_size_medium"))
    return {kind: rate for kind, rate in found.items() if rate}


def _off_peak(block: object) -> Iterator[Period]:
    """The block's windows, which are in UTC; its weekdays are those of a calendar of its own."""
    if not isinstance(block, dict):
        return
    calendar = block.get("weekday_timezone")
    windows = list(_windows(block.get("hours_utc"), EVERY_DAY, None))
    for rule in block.get("windows") or ():
        days = frozenset(rule.get("weekdays", EVERY_DAY))
        windows += _windows(rule.get("hours_utc"), days, zoneinfo.ZoneInfo(calendar) if calendar else None)
    rates = _rates(block, "")
    if windows and rates:
        yield Period(tuple(windows), OFF_PEAK, rates)


def _windows(hours: object, days: frozenset[int], calendar: datetime.tzinfo | None) -> Iterator[Window]:
    """A window that ends where it begins is the whole day; one over midnight is two, on the same days."""
    for text in [hours] if isinstance(hours, str) else hours if isinstance(hours, list) else []:
        if match := _HOURS.fullmatch(text):
            begin, end = (int(match[at]) * 3600 + int(match[at + 1]) * 60 for at in (1, 3))
            if begin < end:
                yield Window(begin, end, days, calendar=calendar)
            else:
                yield Window(begin, DAY, days, calendar=calendar)
                if end:
                    yield Window(0, end, days, calendar=calendar)


def _nano(usd_each: object) -> int | None:
    """USD for one -> nano-USD for a million, exact for the decimal that was written."""
    if isinstance(usd_each, bool) or not isinstance(usd_each, (int, float)) or usd_each < 0:
        return None
    exact = Decimal(repr(usd_each)) * 1_000_000 * NANO_PER_USD
    return int(exact.to_integral_value(ROUND_HALF_UP))
