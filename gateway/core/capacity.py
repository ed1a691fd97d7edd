"""What self-hosted hardware costs, busy or not, and what its traffic makes of that. docs/cost.md has an example.

Three figures for the same hours: **capacity** is what the machines cost, **charged** is what requests were charged at
rated speed (`pricing.cost`), **idle** is the rest. A request's charge does not depend on the load; the effective price
of a token does: arXiv:2606.11690 measured 2.5 to 36 times the price at full load.

Money is in integer nano-USD, speeds are in tokens a second.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.pricing import Machine, Price, baseline_cost
from gateway.core.usage import Usage

_MILLION = 1_000_000
_SECONDS_PER_HOUR = 3600


class Traffic(NamedTuple):
    """What a model did in a stretch of time."""

    seconds: float
    usage: Usage  # of all requests together
    mean_input: int = 0  # tokens of input of one request: prices that depend on its length need it


class Served(NamedTuple):
    """Tokens as self-hosted servers count them: of every client, not only of this gateway."""

    input: int
    output: int


def per_hour(machine: Machine, endpoints: int) -> int:
    """What all endpoints of a model cost, in nano-USD an hour. Each of them is one `machine`."""
    return machine.nano_usd_per_hour * endpoints


def capacity_cost(nano_per_hour: int, seconds: float) -> int:
    """What the machines cost in that time, in nano-USD, busy or not."""
    return round(nano_per_hour * seconds / _SECONDS_PER_HOUR)


def idle(capacity: int, charged: int) -> int:
    """What no request paid for, in nano-USD. Negative: the rated speeds are set lower than what the machines do."""
    return capacity - charged


def utilisation(capacity: int, charged: int) -> float | None:
    """Charged by capacity: 1 is rated speed all the time. None where there is no capacity, as in no time."""
    return charged / capacity if capacity else None


def effective_price(capacity: int, tokens: int) -> int | None:
    """Nano-USD that a million tokens came to, all capacity included. None without tokens: no price is high enough."""
    return (2 * capacity * _MILLION + tokens) // (2 * tokens) if tokens > 0 else None


def rated_speed(machine: Machine, endpoints: int, usage: Usage) -> float | None:
    """Tokens a second, input and output together, that the endpoints can do at this mix. None without a mix."""
    tokens = usage.total_input + usage.total_output
    busy = usage.total_input / machine.input_tokens_per_second + usage.total_output / machine.output_tokens_per_second
    return endpoints * tokens / busy if tokens else None


def break_even(nano_per_hour: int, traffic: Traffic, alternative: Price) -> float | None:
    """Tokens a second at which an API's bill for this mix equals what the machines cost.

    Below it the API is the cheaper one, above it the machines are. It may lie above `rated_speed`: then the API is
    cheaper at any load that the machines can bear. The opposite does not exist: without traffic an API costs nothing.

    The bill is made by the baseline's rule (contract section 5): reasoning tokens count as traffic, but the API is not
    billed for them. None without traffic, which has no mix; and where the bill is 0 at any traffic: a free API, one
    that is unmetered, or nothing but reasoning.
    """
    usage = traffic.usage
    tokens = usage.total_input + usage.total_output
    longer = (tier.rates for tier in reversed(alternative.tiers) if traffic.mean_input > tier.above)
    rates = next(longer, alternative.rates)
    if rates is None or not tokens:
        return None
    flat = Price(alternative.source, rates=rates)
    fresh, cached, written, visible, _ = (count * _MILLION for count in usage[:5])  # exact: rates are for a million
    bill = baseline_cost(Usage(fresh, cached, written, visible), flat)
    return nano_per_hour / _SECONDS_PER_HOUR * tokens * _MILLION / bill if bill else None


def with_served(traffic: Traffic, served: Served) -> Traffic:
    """Traffic as the servers saw it, where they saw more: other gateways and clients use the same machines.

    Of each direction the larger count is taken: llama.cpp does not count the input that it had cached, we do. Kinds of
    token that a server does not tell apart are split as ours are.
    """
    usage = traffic.usage
    fresh, cached, written = _grown((usage.input, usage.cached_input, usage.cache_write), served.input)
    visible, reasoning = _grown((usage.output, usage.reasoning), served.output)
    return traffic._replace(usage=Usage(fresh, cached, written, visible, reasoning, usage.estimated))


def _grown(ours: tuple[int, ...], total: int) -> tuple[int, ...]:
    """`ours` in the same proportions, with the sum `total` where that is more. What is rounded goes to the first."""
    before = sum(ours)
    if total <= before:
        return ours
    rest = [count * total // before if before else 0 for count in ours[1:]]
    return (total - sum(rest), *rest)
