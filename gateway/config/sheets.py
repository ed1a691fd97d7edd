"""Price sheets: what the price book or routes.yaml says of a price, before gaps are filled. Sheets -> the core's Price.

A sheet can be laid over another: what it says goes first, what it leaves open is the other's. Only then are gaps
filled: a kind of token without a price costs what the plain kind does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.core.hours import Window
from gateway.core.pricing import Hours, MoreRates, Price, Rates, Tier

Written = Mapping[str, int]
"""Kind -> nano-USD per million: fields of Rates (but for `more`) and of MoreRates."""

PIECES = frozenset({"images", "milliseconds", "characters"})  # that something may be sold by, and by nothing else
SPECIAL = frozenset(MoreRates._fields)
_PLAIN = {
    "cached_input": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "reasoning": "output",
    "audio_input": "input",
    "image_input": "input",
    "audio_output": "output",
    "image_output": "output",
    "cached_audio_input": "cached_input",
    "cached_image_input": "cached_input",
}
"""A special kind -> the plain one whose price it has where it has none of its own."""


class Band(NamedTuple):
    above: int  # tokens of input
    rates: Written


class Period(NamedTuple):
    """Other prices at some hours."""

    windows: tuple[Window, ...]
    label: str  # "16:30-00:30 UTC"
    rates: Written
    bands: tuple[Band, ...] = ()


class Sheet(NamedTuple):
    rates: Written
    bands: tuple[Band, ...] | None = None  # None: not said
    services: Mapping[str, Sheet] = {}  # by service tier; only their rates and bands count
    periods: tuple[Period, ...] | None = None  # None: not said

    @property
    def whole(self) -> bool:
        """Whether it is a price by itself: for tokens, or for what is sold by the piece."""
        return {"input", "output"} <= self.rates.keys() or not PIECES.isdisjoint(self.rates)


def over(upper: Sheet, lower: Sheet) -> Sheet:
    """`upper`, and where it says nothing, `lower`. Lists are taken whole: tiers are not mixed with others."""
    nothing = Sheet({})
    names = (*lower.services, *upper.services)
    return Sheet(
        rates={**lower.rates, **upper.rates},
        bands=lower.bands if upper.bands is None else upper.bands,
        services={n: over(upper.services.get(n, nothing), lower.services.get(n, nothing)) for n in names},
        periods=lower.periods if upper.periods is None else upper.periods,
    )


def _differing(base: Written, other: Written) -> Written:
    """`base` with what `other` says otherwise. What costs in `base` just what its plain kind does follows that kind."""
    kept = {kind: rate for kind, rate in base.items() if rate != base.get(_PLAIN.get(kind, ""), -1)}
    return {**kept, **other}


def compiled(sheet: Sheet, source: str) -> Price:
    """Every price that may come to apply, each whole and with its own source, so that a request only picks one."""
    services = {
        name: _price(_differing(sheet.rates, each.rates), each.bands or (), f"{source}, {name}")
        for name, each in sheet.services.items()
    }
    plain = _price(sheet.rates, sheet.bands or (), source)._replace(services=services)
    if not sheet.periods:
        return plain
    periods = [
        _price(_differing(sheet.rates, each.rates), each.bands, f"{source}, {each.label}")._replace(services=services)
        for each in sheet.periods
    ]
    everything = (plain, *periods)
    hours = [
        Hours(each.windows, price._replace(others=tuple(other for other in everything if other is not price)))
        for each, price in zip(sheet.periods, periods, strict=True)
    ]
    return plain._replace(hours=tuple(hours), others=tuple(periods))


def _price(rates: Written, bands: Sequence[Band], source: str) -> Price:
    special = {kind: rate for kind, rate in rates.items() if kind in SPECIAL}
    tiers = [
        Tier(band.above, filled({**special, **band.rates}), f"{source}, above {band.above} input tokens")
        for band in bands
    ]
    return Price(source, rates=filled(rates), tiers=tuple(tiers))


def filled(written: Written) -> Rates:
    get = written.get
    fresh = get("input", 0)
    cached, kept = get("cached_input", fresh), get("cache_write", fresh)
    output = get("output", get("image_output", get("audio_output", 0)))  # of a model that only draws or speaks
    more = None
    if not SPECIAL.isdisjoint(written):
        more = MoreRates(
            cache_write_1h=get("cache_write_1h", kept),
            audio_input=get("audio_input", fresh),
            cached_audio_input=get("cached_audio_input", cached),
            image_input=get("image_input", fresh),
            cached_image_input=get("cached_image_input", cached),
            audio_output=get("audio_output", output),
            image_output=get("image_output", output),
            **{kind: get(kind, 0) for kind in (*PIECES, "searches")},
        )
    return Rates(fresh, cached, kept, output, get("reasoning", output), more)
