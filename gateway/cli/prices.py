"""Prices in words, for `check` and `explain`."""

from __future__ import annotations

from gateway.core.pricing import NANO_PER_USD, Price, dollars


def price_text(price: Price | None) -> str:
    """In dollars per million tokens: "$0.28 in, $0.028 cached, $0.42 out"; what the hours cost for a machine."""
    if price is None:
        return "unknown"
    machine, rates = price.machine, price.rates
    if machine:
        rated = f"{machine.input_tokens_per_second:g} in, {machine.output_tokens_per_second:g} out tokens/s"
        return f"${dollars(machine.nano_usd_per_hour)}/hour at {rated}"
    if rates is None:
        return "unmetered"
    parts = [f"${dollars(rates.input)} in"]
    if rates.cached_input != rates.input:
        parts.append(f"${dollars(rates.cached_input)} cached")
    if rates.cache_write != rates.input:
        parts.append(f"${dollars(rates.cache_write)} cache write")
    parts.append(f"${dollars(rates.output)} out")
    if rates.reasoning != rates.output:
        parts.append(f"${dollars(rates.reasoning)} reasoning")
    tiers = [
        f"above {tier.above} tokens ${dollars(tier.rates.input)} in, ${dollars(tier.rates.output)} out"
        for tier in price.tiers
    ]
    return "; ".join([", ".join(parts), *tiers])


def price_json(price: Price | None) -> dict[str, object] | None:
    """Dollars per million tokens (per hour for a machine), as numbers."""
    if price is None:
        return None
    about: dict[str, object] = {"source": price.source}
    if price.machine:
        about["usd_per_hour"] = price.machine.nano_usd_per_hour / NANO_PER_USD
        about["tokens_per_second"] = {
            "input": price.machine.input_tokens_per_second,
            "output": price.machine.output_tokens_per_second,
        }
    if price.rates:
        about |= {name: rate / NANO_PER_USD for name, rate in price.rates.of_tokens.items()}
    if price.tiers:
        about["tiers"] = [
            {"above": tier.above} | {name: rate / NANO_PER_USD for name, rate in tier.rates.of_tokens.items()}
            for tier in price.tiers
        ]
    return about
