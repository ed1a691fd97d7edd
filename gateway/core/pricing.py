"""Usage x Price -> money. Integers of nano-USD (1e-9 USD) everywhere; dollars only at the edges."""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.usage import Usage

NANO_PER_USD = 1_000_000_000

_TOKENS_PER_RATE = 1_000_000
_SECONDS_PER_HOUR = 3600


class Rates(NamedTuple):
    """Nano-USD per million tokens, by type: USD 0.28 per million is 280_000_000."""

    input: int
    cached_input: int
    cache_write: int
    output: int
    reasoning: int


class Tier(NamedTuple):
    """Rates that hold for the whole request once its input is longer than `above` tokens."""

    above: int
    rates: Rates


class Machine(NamedTuple):
    """Self-hosted hardware, paid by the hour; a request is charged its share at rated speed (contract section 5)."""

    nano_usd_per_hour: int  # all GPUs of one endpoint together
    input_tokens_per_second: float  # at rated speed; above 0
    output_tokens_per_second: float


class Price(NamedTuple):
    """What a model costs and where that came from. Exactly one of: per token, machine, unmetered."""

    source: str  # e.g. "routes.yaml", "litellm 1.106.2 price book (2026-10-30)", "machine-hour at rated speed"
    rates: Rates | None = None
    tiers: tuple[Tier, ...] = ()  # ascending by `above`
    machine: Machine | None = None

    @property
    def unmetered(self) -> bool:
        return self.rates is None and self.machine is None


def cost(usage: Usage, price: Price) -> int:
    """What `usage` costs at `price`, in nano-USD, rounded once, half up. 0 where unmetered."""
    if price.machine is not None:
        return _machine_cost(usage, price.machine)
    rates = _rates(price, usage.total_input)
    if rates is None:
        return 0
    exact = (
        usage.input * rates.input
        + usage.cached_input * rates.cached_input
        + usage.cache_write * rates.cache_write
        + usage.output * rates.output
        + usage.reasoning * rates.reasoning
    )
    return _half_up(exact, _TOKENS_PER_RATE)


def baseline_cost(usage: Usage, price: Price) -> int:
    """What the baseline model would have cost for the same work, in nano-USD.

    Contract section 5: input plus visible output at the baseline's prices; reasoning tokens excluded; cached input at
    its cached price. What was written to another provider's cache is plain input to the baseline.
    """
    return cost(usage._replace(input=usage.input + usage.cache_write, cache_write=0, reasoning=0), price)


def expected(price: Price, input_tokens: int, output_tokens: int) -> int:
    """What a request of about this size would cost, in nano-USD: for `order: cheapest` and `explain`."""
    return cost(Usage(input=input_tokens, output=output_tokens), price)


def dollars(nano: int) -> str:
    """Nano-USD as a plain decimal string of dollars: no trailing zeros, no exponent, exact: 1500 -> "0.0000015"."""
    whole, part = divmod(abs(nano), NANO_PER_USD)
    fraction = f".{part:09}".rstrip("0").rstrip(".")
    return f"{'-' if nano < 0 else ''}{whole}{fraction}"


def _rates(price: Price, total_input: int) -> Rates | None:
    """The rates for a request with this much input: a tier applies to the whole request, not to what lies above it."""
    rates = price.rates
    for tier in price.tiers:
        if total_input <= tier.above:
            break
        rates = tier.rates
    return rates


def _machine_cost(usage: Usage, machine: Machine) -> int:
    """Cost per second x (input / input rate + output / output rate), in integers: a float is an exact ratio."""
    in_rate, in_per = machine.input_tokens_per_second.as_integer_ratio()
    out_rate, out_per = machine.output_tokens_per_second.as_integer_ratio()
    seconds = usage.total_input * in_per * out_rate + usage.total_output * out_per * in_rate
    return _half_up(machine.nano_usd_per_hour * seconds, _SECONDS_PER_HOUR * in_rate * out_rate)


def _half_up(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
