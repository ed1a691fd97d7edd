"""Usage x Price -> money. Integers of nano-USD (1e-9 USD) everywhere; dollars only at the edges.

A `Price` may hold other prices: for long inputs (`tiers`), for the service tier that an answer reports (`services`), at
some hours (`hours`), from some day on (`later`). `price_at` settles what depends on time, once a request, and `cost`
the rest, which only the usage tells. Each of them is a whole price with a `source` of its own, put together when the
configuration is read, so that a request only picks one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from gateway.core.hours import Window, within
from gateway.core.usage import More, Usage

NANO_PER_USD = 1_000_000_000
ALWAYS = float("-inf")

_UNITS_PER_RATE = 1_000_000
_SECONDS_PER_HOUR = 3600


class MoreRates(NamedTuple):
    """What `More` counts, each in nano-USD per million: of tokens, images, milliseconds, characters, searches."""

    cache_write_1h: int
    audio_input: int
    cached_audio_input: int
    image_input: int
    cached_image_input: int
    audio_output: int
    image_output: int
    images: int = 0
    milliseconds: int = 0
    characters: int = 0
    searches: int = 0


_SPECIAL_TOKENS = MoreRates._fields[:7]


class Rates(NamedTuple):
    """Nano-USD per million tokens, by type: USD 0.28 per million is 280_000_000."""

    input: int
    cached_input: int
    cache_write: int
    output: int
    reasoning: int
    more: MoreRates | None = None  # None: sound and images cost what other tokens do, and nothing is sold by the piece

    @property
    def all_tokens(self) -> dict[str, int]:
        """Every kind of token and its rate."""
        cached, output = self.cached_input, self.output
        special = (self.cache_write, self.input, cached, self.input, cached, output, output)
        plain = dict(zip(_SPECIAL_TOKENS, special, strict=True))
        found = {name: getattr(self, name) for name in self._fields[:5]} | plain
        return found if self.more is None else found | {kind: getattr(self.more, kind) for kind in _SPECIAL_TOKENS}

    @property
    def of_tokens(self) -> dict[str, int]:
        """The same; special kinds only where they differ from plain ones."""
        usual = self._replace(more=None).all_tokens
        special = set(_SPECIAL_TOKENS)
        return {kind: rate for kind, rate in self.all_tokens.items() if kind not in special or rate != usual[kind]}


class Tier(NamedTuple):
    """Rates that hold for the whole request once its input is longer than `above` tokens."""

    above: int
    rates: Rates
    source: str = ""  # as of a Price; empty: the price's own


class Machine(NamedTuple):
    """Self-hosted hardware, paid by the hour; a request is charged its share at rated speed (contract section 5)."""

    nano_usd_per_hour: int  # all GPUs of one endpoint together
    input_tokens_per_second: float  # at rated speed; above 0
    output_tokens_per_second: float


class _Price(NamedTuple):
    source: str  # e.g. "routes.yaml", "litellm 1.106.2 price book (2026-10-30)", "machine-hour at rated speed"
    rates: Rates | None = None
    tiers: tuple[Tier, ...] = ()  # ascending by `above`
    machine: Machine | None = None
    services: Mapping[str, Price] = {}  # by the service tier that the answer reports: flex, priority, batch
    hours: tuple[Hours, ...] = ()  # other prices at some hours; the first that is open holds
    starts: float = ALWAYS  # unix seconds: before that it is not known what the model cost
    later: tuple[Price, ...] = ()  # ascending by `starts`: each takes the place of what was before it
    others: tuple[Price, ...] = ()  # what holds at other hours: who meters by the end of a request may bill these


class Price(_Price):
    """What a model costs and where that came from. Exactly one of: per token, machine, unmetered.

    What every request asks of it is worked out once.
    """

    @cached_property
    def unmetered(self) -> bool:
        return self.rates is None and self.machine is None

    @cached_property
    def free(self) -> bool:
        """Whether nothing of it ever costs anything, however much of it there is."""
        if self.rates is None or self.timed or self.tiers or self.services:
            return False
        return not any(self.rates[:5]) and not any(self.rates.more or ())

    @cached_property
    def highest(self) -> tuple[int, int] | None:
        """The highest rates, of input and of output; None where they depend on more than the kind of token."""
        rates = self.rates
        if rates is None or rates.more is not None or self.others or self.services or self.tiers:
            return None
        return max(rates.input, rates.cached_input, rates.cache_write), max(rates.output, rates.reasoning)

    @cached_property
    def timed(self) -> bool:
        """Whether `price_at` has anything to decide."""
        return bool(self.hours or self.later) or self.starts != ALWAYS


class Hours(NamedTuple):
    windows: tuple[Window, ...]
    price: Price


def price_at(price: Price | None, when: float) -> Price | None:
    """The price in force at `when`, unix seconds; None where none is known for that time.

    A request has one time, that of its beginning, for all of its attempts and for its baseline.
    """
    if price is None or not price.timed:
        return price
    found = price if when >= price.starts else None
    for each in price.later:
        if when < each.starts:
            break
        found = each
    if found is None:
        return None
    return next((hours.price for hours in found.hours if within(hours.windows, when)), found)


def cost(usage: Usage, price: Price) -> int:
    """What `usage` costs at `price`, in nano-USD, rounded once, half up. 0 where unmetered.

    `price`: as `price_at` gave it for the time of the request.
    """
    if price.machine is not None:
        return _machine_cost(usage, price.machine)
    rates = price.rates if usage.more is None and not price.tiers else _applied(usage, price)[0]
    if rates is None:
        return 0
    exact = (
        usage.input * rates.input
        + usage.cached_input * rates.cached_input
        + usage.cache_write * rates.cache_write
        + usage.output * rates.output
        + usage.reasoning * rates.reasoning
    )
    if usage.more is not None and rates.more is not None:
        exact += _difference(usage.more, rates, rates.more)
    return _half_up(exact, _UNITS_PER_RATE)


def source_of(usage: Usage, price: Price) -> str:
    """Which of the prices `cost` takes, and where it came from: for the ledger. One of `sources(price)`."""
    return price.source if usage.more is None and not price.tiers else _applied(usage, price)[1]


def sources(price: Price) -> Iterator[str]:
    """Every text that `source_of` may say about a price, at any time."""
    yield price.source
    yield from (tier.source or price.source for tier in price.tiers)
    for each in (*price.services.values(), *(hours.price for hours in price.hours), *price.later):
        yield from sources(each)


def baseline_cost(usage: Usage, price: Price) -> int:
    """What the baseline model would have cost for the same work, in nano-USD.

    Contract section 5: input plus visible output at the baseline's prices; reasoning tokens excluded; cached input at
    its cached price. What was written to another provider's cache is plain input to the baseline, and what was asked of
    another provider at a discount would have been asked of it at its usual price.
    """
    more = usage.more
    if more is not None:
        more = more._replace(service_tier="", cache_write_1h=0)
    plain = usage._replace(input=usage.input + usage.cache_write, cache_write=0, reasoning=0, more=more)
    return cost(plain, price)


def expected(price: Price, input_tokens: int, output_tokens: int) -> int:
    """What a request of about this size would cost, in nano-USD: for `order: cheapest` and `explain`."""
    return cost(Usage(input=input_tokens, output=output_tokens), price)


def dollars(nano: int) -> str:
    """Nano-USD as a plain decimal string of dollars: no trailing zeros, no exponent, exact: 1500 -> "0.0000015"."""
    whole, part = divmod(abs(nano), NANO_PER_USD)
    fraction = f".{part:09}".rstrip("0").rstrip(".")
    return f"{'-' if nano < 0 else ''}{whole}{fraction}"


def _applied(usage: Usage, price: Price) -> tuple[Rates | None, str]:
    """The rates for this usage and their source. A tier applies to the whole request, not to what lies above it."""
    if usage.more is not None and usage.more.service_tier:
        price = price.services.get(usage.more.service_tier, price)
    rates, source = price.rates, price.source
    total_input = usage.total_input
    for tier in price.tiers:
        if total_input <= tier.above:
            break
        rates, source = tier.rates, tier.source or price.source
    return rates, source


def _difference(more: More, rates: Rates, special: MoreRates) -> int:
    """What the special kinds among the tokens cost beyond plain tokens of their type, and what is sold by the piece."""
    return (
        more.cache_write_1h * (special.cache_write_1h - rates.cache_write)
        + more.audio_input * (special.audio_input - rates.input)
        + more.cached_audio_input * (special.cached_audio_input - rates.cached_input)
        + more.image_input * (special.image_input - rates.input)
        + more.cached_image_input * (special.cached_image_input - rates.cached_input)
        + more.audio_output * (special.audio_output - rates.output)
        + more.image_output * (special.image_output - rates.output)
        + more.images * special.images
        + more.milliseconds * special.milliseconds
        + more.characters * special.characters
        + more.searches * special.searches
    )


def _machine_cost(usage: Usage, machine: Machine) -> int:
    """Cost per second x (input / input rate + output / output rate), in integers: a float is an exact ratio."""
    in_rate, in_per = machine.input_tokens_per_second.as_integer_ratio()
    out_rate, out_per = machine.output_tokens_per_second.as_integer_ratio()
    seconds = usage.total_input * in_per * out_rate + usage.total_output * out_per * in_rate
    return _half_up(machine.nano_usd_per_hour * seconds, _SECONDS_PER_HOUR * in_rate * out_rate)


def _half_up(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
