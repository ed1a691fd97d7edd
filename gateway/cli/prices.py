"""Prices in words, for `check` and `explain`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gateway.config.prices import moment_text
from gateway.core.hours import DAY, EVERY_DAY, Window
from gateway.core.pricing import ALWAYS, NANO_PER_USD, Hours, Price, Rates, Tier, dollars, price_at

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# Kind -> what it is called, and of which kind it is a part: it is left out where it costs the same.
_WORDS = {
    "input": ("in", ""),
    "cached_input": ("cached", "input"),
    "cache_write": ("cache write", "input"),
    "cache_write_1h": ("cache write 1h", "cache_write"),
    "output": ("out", ""),
    "reasoning": ("reasoning", "output"),
    "audio_input": ("audio in", "input"),
    "cached_audio_input": ("cached audio", "cached_input"),
    "image_input": ("image in", "input"),
    "cached_image_input": ("cached image", "cached_input"),
    "audio_output": ("audio out", "output"),
    "image_output": ("image out", "output"),
}
# In nano-USD per million of them; the name in `price:`, for people, how many make one, the name in MoreRates.
_PIECES = (
    ("per_image", "an image", 1, "images"),
    ("per_second", "a second", 1000, "milliseconds"),
    ("per_character", "a character", 1, "characters"),
    ("per_search", "a search", 1, "searches"),
)


def price_text(price: Price | None) -> str:
    """In dollars per million tokens: "$0.28 in, $0.028 cached, $0.42 out"; what the hours cost for a machine.

    The usual price, with its tiers; `other_prices` has the rest.
    """
    if price is None:
        return "unknown"
    if price.machine is not None:
        speed = price.machine
        rated = f"{speed.input_tokens_per_second:g} in, {speed.output_tokens_per_second:g} out tokens/s"
        return f"${dollars(speed.nano_usd_per_hour)}/hour at {rated}"
    return "unmetered" if price.rates is None else _terms(price.rates, price.tiers)


def usual_price(price: Price | None, now: float) -> Price | None:
    """Of the prices with dates, the one in force; None before the first. `now`: unix seconds."""
    dated = () if price is None else (price, *price.later)
    return next((each for each in reversed(dated) if each.starts <= now), None)


def other_prices(price: Price | None, now: float) -> list[tuple[str, str]]:
    """When another price holds than the usual one, and which: service tiers, hours, dates that are over or to come."""
    usual = usual_price(price, now)
    rows = [] if usual is None else list(_within(usual, ""))
    dated = () if price is None else (price, *price.later)
    for place, each in enumerate(dated):
        if each is not usual:
            ends = dated[place + 1].starts if place + 1 < len(dated) else None
            over = ends is not None and each.starts == ALWAYS
            when = f"until {moment_text(ends or 0)}" if over else f"from {moment_text(each.starts)}"
            rows += [(when, price_text(each)), *_within(each, f"{when}, ")]
    return rows


def _within(price: Price, when: str) -> Iterator[tuple[str, str]]:
    usual = price.rates
    for name, each in price.services.items():
        if each.rates is not None:
            yield f"{when}{name}", _terms(each.rates, each.tiers, usual)
    for hours in price.hours:
        if hours.price.rates is not None:
            name, span = hours_text(price, hours)
            terms = _terms(hours.price.rates, hours.price.tiers, usual)
            yield f"{when}{name}", f"{terms}\n{span}" if span else terms


def _terms(rates: Rates, tiers: Sequence[Tier], usual: Rates | None = None) -> str:
    """`usual`: whose prices for pieces need not be said again."""
    parts = [_tokens(rates)] if any(rates[:5]) or rates.more is None else []
    if rates.more is not None and (usual is None or usual.more is None or usual.more[7:] != rates.more[7:]):
        special = rates.more._asdict()
        parts += [f"${dollars_each(special[kind] * count)} {word}" for _, word, count, kind in _PIECES if special[kind]]
    return "; ".join([", ".join(parts), *(f"above {tier.above} tokens {_tokens(tier.rates)}" for tier in tiers)])


def _tokens(rates: Rates) -> str:
    of = rates.all_tokens
    shown = [(kind, word) for kind, (word, plain) in _WORDS.items() if not plain or of[kind] != of[plain]]
    return ", ".join(f"${dollars(of[kind])} {word}" for kind, word in shown)


def dollars_each(nano_per_million: int) -> str:
    """Of one thing that is sold by the piece: a millionth, and still exact."""
    whole, part = divmod(nano_per_million, 1_000_000 * NANO_PER_USD)
    return f"{whole}.{part:015}".rstrip("0").rstrip(".")


def hours_text(price: Price, hours: Hours) -> tuple[str, str]:
    """What they are called, and when that is where the name does not say it: "off-peak", "04:00-06:00 mon-fri UTC"."""
    label = hours.price.source.removeprefix(f"{price.source}, ")
    return label, "" if label[:1].isdigit() else _windows_text(hours.windows)


def _windows_text(windows: Iterable[Window]) -> str:
    spans: dict[tuple[str, frozenset[int]], list[str]] = {}
    for window in windows:
        span = "all day" if window.end - window.start == DAY else f"{_clock(window.start)}-{_clock(window.end)}"
        spans.setdefault((str(window.zone), window.days), []).append(span)
    return ", ".join(f"{' '.join(each)}{_days_text(days)} {zone}" for (zone, days), each in spans.items())


def _days_text(days: frozenset[int]) -> str:
    if days == EVERY_DAY:
        return ""
    first, last = min(days), max(days)
    if len(days) > 2 and len(days) == last - first + 1:
        return f" {_DAYS[first - 1]}-{_DAYS[last - 1]}"
    return " " + " ".join(_DAYS[day - 1] for day in sorted(days))


def _clock(second: int) -> str:
    text = f"{second // 3600:02}:{second // 60 % 60:02}"
    return f"{text}:{second % 60:02}" if second % 60 else text


def price_json(price: Price | None, now: float | None = None) -> dict[str, object] | None:
    """Dollars per million tokens (per hour for a machine), as numbers. `now`: unix seconds; then `in_force`."""
    if price is None:
        return None
    about = _json(price)
    if price.starts != ALWAYS:
        about["from"] = moment_text(price.starts)
    if price.later:
        about["later"] = [_json(each) | {"from": moment_text(each.starts)} for each in price.later]
    if now is not None and price.timed:
        current = price_at(price, now)
        about["in_force"] = None if current is None else current.source
    return about


def _json(price: Price) -> dict[str, object]:
    about: dict[str, object] = {"source": price.source}
    if price.machine:
        about["usd_per_hour"] = price.machine.nano_usd_per_hour / NANO_PER_USD
        about["tokens_per_second"] = {
            "input": price.machine.input_tokens_per_second,
            "output": price.machine.output_tokens_per_second,
        }
    if price.rates:
        about |= _rates_json(price.rates)
    if price.tiers:
        about["tiers"] = [{"above": tier.above} | _rates_json(tier.rates) for tier in price.tiers]
    if price.services:
        about["service_tiers"] = {name: _json(each) for name, each in price.services.items()}
    if price.hours:
        about["hours"] = [_hours_json(price, hours) for hours in price.hours]
    return about


def _hours_json(price: Price, hours: Hours) -> dict[str, object]:
    shown = _json(hours.price._replace(services={}))
    return {"when": " ".join(filter(None, hours_text(price, hours)))} | shown


def _rates_json(rates: Rates) -> dict[str, float]:
    shown = {name: rate / NANO_PER_USD for name, rate in rates.of_tokens.items()}
    if rates.more is not None:
        special = rates.more._asdict()
        shown |= {n: special[kind] * count / 10**15 for n, _, count, kind in _PIECES if special[kind]}
    return shown
