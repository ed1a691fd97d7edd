"""`price:` of routes.yaml -> the core's Price: exact decimals of USD -> integers of nano-USD."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from gateway.config.schema import GpuPrice, MachinePrice, Rates, TokenPrice
from gateway.core.pricing import NANO_PER_USD, Machine, Price, Tier
from gateway.core.pricing import Rates as NanoRates

FROM_FILE = "routes.yaml"
MACHINE_HOUR = "machine-hour at rated speed"
UNMETERED = "unmetered"


def price_of(written: TokenPrice | GpuPrice | MachinePrice | str) -> Price:
    if isinstance(written, TokenPrice):
        tiers = tuple(Tier(tier.above, _nano_rates(tier)) for tier in written.tiers or ())
        return Price(FROM_FILE, rates=_nano_rates(written), tiers=tiers)
    if isinstance(written, GpuPrice):
        return Price(MACHINE_HOUR, machine=_machine(written.gpu_hour_usd * written.gpus, written))
    if isinstance(written, MachinePrice):
        return Price(MACHINE_HOUR, machine=_machine(written.usd_per_hour, written))
    return Price(UNMETERED)


def _nano_rates(rates: Rates) -> NanoRates:
    return NanoRates(
        input=_nano(rates.input),
        cached_input=_nano(rates.input if rates.cached_input is None else rates.cached_input),
        cache_write=_nano(rates.input if rates.cache_write is None else rates.cache_write),
        output=_nano(rates.output),
        reasoning=_nano(rates.output if rates.reasoning is None else rates.reasoning),
    )


def _machine(usd_per_hour: Decimal, written: GpuPrice | MachinePrice) -> Machine:
    speed = written.tokens_per_second
    return Machine(_nano(usd_per_hour), float(speed.input), float(speed.output))


def _nano(usd: Decimal) -> int:
    return int((usd * NANO_PER_USD).to_integral_value(ROUND_HALF_UP))
