"""`price:` of routes.yaml -> the core's Price: exact decimals of USD -> integers of nano-USD."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal

from gateway.config.schema_prices import DAYS, GpuPrice, HoursPrice, MachinePrice, Rates, ServicePrice, TokenPrice
from gateway.config.sheets import Band, Period, Sheet, Written, compiled, over
from gateway.core.hours import DAY, Window
from gateway.core.pricing import ALWAYS, NANO_PER_USD, Machine, Price

FROM_FILE = "routes.yaml"
MACHINE_HOUR = "machine-hour at rated speed"
UNMETERED = "unmetered"

AnyPrice = TokenPrice | GpuPrice | MachinePrice | list[TokenPrice] | str
Book = tuple[Sheet, str] | None
"""What the price book says of the model, and the book's name."""

_PIECES = {"per_image": "images", "per_second": "milliseconds", "per_character": "characters", "per_search": "searches"}
_FIELDS = tuple(name for name in Rates.model_fields if name not in _PIECES)


class NotInTheBook(Exception):
    """A price is not whole, and there is no book to take the rest from."""


def price_of(written: AnyPrice, book: Book) -> Price:
    """Raises NotInTheBook."""
    if isinstance(written, TokenPrice):
        return _dated([written], book)
    if isinstance(written, list):
        return _dated(written, book)
    if isinstance(written, GpuPrice):
        return Price(MACHINE_HOUR, machine=_machine(written.gpu_hour_usd * written.gpus, written))
    if isinstance(written, MachinePrice):
        return Price(MACHINE_HOUR, machine=_machine(written.usd_per_hour, written))
    return Price(UNMETERED)


def book_price(book: Book) -> Price | None:
    return None if book is None else compiled(*book)


def needs_book(written: AnyPrice | None) -> bool:
    """Whether the book has to be asked: for the rest of a price, or for what holds before its first date."""
    if written is None:
        return True
    prices = [written] if isinstance(written, TokenPrice) else written if isinstance(written, list) else []
    return any(price.input is None for price in prices) or any(price.from_ for price in prices[:1])


def _dated(written: Sequence[TokenPrice], book: Book) -> Price:
    prices = [_price(each, book) for each in written]
    first = prices[0]
    if first.starts != ALWAYS and (before := book_price(book)):
        return before._replace(later=tuple(prices))
    return first._replace(later=tuple(prices[1:]))


def _price(written: TokenPrice, book: Book) -> Price:
    sheet, source = _sheet(written), FROM_FILE
    if "input" not in sheet.rates and book is not None:
        sheet, source = over(sheet, book[0]), f"{FROM_FILE} over {book[1]}"
    if not sheet.whole:
        raise NotInTheBook
    if written.from_ is None:
        return compiled(sheet, source)
    starts = written.from_.timestamp()
    return compiled(sheet, f"{source}, from {moment_text(starts)}")._replace(starts=starts)


def moment_text(when: float) -> str:
    """Of unix seconds: a date where it is midnight in UTC, else to the second."""
    text = datetime.datetime.fromtimestamp(when, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return text.removesuffix("T00:00:00Z")


def _sheet(written: TokenPrice) -> Sheet:
    services = written.service_tiers or {}
    return Sheet(
        rates=_rates(written),
        bands=_bands(written),
        services={name: Sheet(_rates(each), _bands(each)) for name, each in services.items()},
        periods=None if written.hours is None else tuple(map(_period, written.hours)),
    )


def _rates(written: Rates) -> Written:
    given = {name: getattr(written, name) for name in _FIELDS}
    found = {name: _nano(usd) for name, usd in given.items() if usd is not None}
    for name, kind in _PIECES.items():
        usd = getattr(written, name)
        if usd is not None:
            found[kind] = _nano(usd * (1000 if kind == "milliseconds" else 1_000_000))
    return found


def _bands(written: ServicePrice) -> tuple[Band, ...] | None:
    return None if written.tiers is None else tuple(Band(tier.above, _rates(tier)) for tier in written.tiers)


def _period(written: HoursPrice) -> Period:
    return Period(_windows(written), _hours_text(written), _rates(written), _bands(written) or ())


def _windows(written: HoursPrice) -> tuple[Window, ...]:
    """One over midnight is two: what is left of it belongs to the days after those on which it begins."""
    zone = zoneinfo.ZoneInfo(written.timezone)
    days = frozenset(DAYS.index(day) + 1 for day in written.days)
    begins, ends = written.span
    if begins < ends:
        return (Window(begins, ends, days, zone),)
    evening = Window(begins, DAY, days, zone)
    return (evening, Window(0, ends, frozenset(day % 7 + 1 for day in days), zone)) if ends else (evening,)


def _hours_text(written: HoursPrice) -> str:
    text = f"{'-'.join(map(_clock, written.span))} {written.timezone}"
    return text if len(set(written.days)) == len(DAYS) else f"{text} on {' '.join(written.days)}"


def _clock(second: int) -> str:
    text = f"{second // 3600:02}:{second // 60 % 60:02}"
    return f"{text}:{second % 60:02}" if second % 60 else text


def _machine(usd_per_hour: Decimal, written: GpuPrice | MachinePrice) -> Machine:
    speed = written.tokens_per_second
    return Machine(_nano(usd_per_hour), float(speed.input), float(speed.output))


def _nano(usd: Decimal) -> int:
    return int((usd * NANO_PER_USD).to_integral_value(ROUND_HALF_UP))
