"""Usage x Price -> money. Integers of nano-USD (1e-9 USD) everywhere; dollars only at the edges."""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.usage import Usage

NANO_PER_USD = 1_000_000_000


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
    """Self-hosted hardware: it costs by the hour; a request is charged its share at rated speed (contract section 5)."""

    nano_usd_per_hour: int  # all GPUs of one endpoint together
    input_tokens_per_second: float
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
    raise NotImplementedError


def baseline_cost(usage: Usage, price: Price) -> int:
    """What the baseline model would have cost for the same work, in nano-USD.

    Contract section 5: input plus visible output at the baseline's prices; reasoning tokens excluded; cached input at
    its cached price.
    """
    raise NotImplementedError


def dollars(nano: int) -> str:
    """Nano-USD as a plain decimal string of dollars without trailing zeros and without exponent, exact: 1500 -> "0.0000015"."""
    raise NotImplementedError
