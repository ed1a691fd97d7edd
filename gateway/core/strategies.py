"""Orders of a route's candidates. To add one: a function from candidates to targets, and its name in STRATEGIES."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

from gateway.core.call import Call
from gateway.core.pieces import assumed
from gateway.core.pricing import cost, dollars
from gateway.core.rules import Candidate, Model, Signals, Target
from gateway.core.usage import More, Usage

Strategy = Callable[[Sequence[tuple[Target, Candidate]], Call, Signals], "list[Target]"]

UNKNOWN_OUTPUT = 4096  # tokens a model may write where neither client nor model has a cap (contract section 3)
ASSUMED_OUTPUT = 512  # tokens, where the client sets no cap
_SERVICE_TIER = frozenset({"service_tier"})


def expected_cost(target: Target, call: Call) -> int | None:
    """What this request may be expected to cost on a target, in nano-USD; None where its price is unknown."""
    if target.price is None:
        return None
    return cost(_usage(target, call, expected_output(target.model, call)), target.price)


def highest_cost(target: Target, call: Call) -> int | None:
    """What this request may cost at most on a target if its input is as estimated, in nano-USD; None where unpriced."""
    if target.price is None:
        return None
    output = call.max_output or target.model.max_output_tokens or UNKNOWN_OUTPUT
    return cost(_usage(target, call, output), target.price)


def _usage(target: Target, call: Call, output: int) -> Usage:
    """`output`: tokens of one answer. In the service tier that is asked for."""
    if (pieces := assumed(call, target.price)) is not None:
        return pieces
    usage = Usage(input=call.estimated_input, output=output * call.n)
    if target.price is None or not target.price.services:
        return usage
    asked = service_tier(target.model, call)
    return usage._replace(more=More(asked)) if asked in target.price.services else usage


def service_tier(model: Model, call: Call) -> str:
    """That the upstream will be asked for; empty where it is not asked for any, "?" where it makes no sense."""
    asked = model.set.get("service_tier")
    if asked is None and "service_tier" not in model.drop and call.holds(_SERVICE_TIER):
        asked = call.decoded("service_tier")
    return "" if asked is None else asked if isinstance(asked, str) else "?"


def expected_output(model: Model, call: Call) -> int:
    wanted = call.max_output or ASSUMED_OUTPUT
    return min(wanted, model.max_output_tokens or wanted)


def ordinal(number: int) -> str:
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def listed(candidates: Sequence[tuple[Target, Candidate]], _call: Call, _signals: Signals) -> list[Target]:
    return [target for target, _ in candidates]


def cheapest(candidates: Sequence[tuple[Target, Candidate]], call: Call, _signals: Signals) -> list[Target]:
    """By what this request may be expected to cost: unmetered first, unpriced last, ties as listed."""
    priced: list[tuple[int, Target, str]] = []
    unpriced: list[Target] = []
    for target, _ in candidates:
        expected = expected_cost(target, call)
        if target.price is None or expected is None:
            unpriced.append(target._replace(why="no known price, so after the priced ones"))
        elif target.price.unmetered:
            priced.append((-1, target, "unmetered"))
        else:
            priced.append((expected, target, f"${dollars(expected)} expected for this request"))
    priced.sort(key=itemgetter(0))
    return [
        target._replace(why=f"{_rank(place)}: {why}") for place, (_, target, why) in enumerate(priced, 1)
    ] + unpriced


def _rank(place: int) -> str:
    return "cheapest" if place == 1 else f"{ordinal(place)} cheapest"


def weighted(candidates: Sequence[tuple[Target, Candidate]], _call: Call, signals: Signals) -> list[Target]:
    """A shuffle without replacement: each place is drawn in proportion to the weights that are left.

    One roll is enough for all draws: where it falls within the drawn candidate's share is again uniform in [0, 1).
    Candidates of weight 0 come last, as listed.
    """
    left = [pair for pair in candidates if pair[1].weight > 0]
    roll = signals.roll
    drawn: list[Target] = []
    while left:
        total = sum(candidate.weight for _, candidate in left)
        index, roll = _draw([candidate.weight / total for _, candidate in left], roll)
        target, candidate = left.pop(index)
        drawn.append(target._replace(why=f"weight {candidate.weight:g} of {total:g}, drawn {ordinal(len(drawn) + 1)}"))
    return drawn + [target._replace(why="weight 0") for target, candidate in candidates if candidate.weight <= 0]


def _draw(shares: Sequence[float], roll: float) -> tuple[int, float]:
    """Which share the roll falls into, and where in it, in [0, 1)."""
    below = 0.0
    for index, share in enumerate(shares):
        if roll < below + share:
            return index, min((roll - below) / share, _ALMOST_ONE)
        below += share
    return len(shares) - 1, _ALMOST_ONE  # the shares' rounded sum fell short of the roll


def least_busy(candidates: Sequence[tuple[Target, Candidate]], _call: Call, signals: Signals) -> list[Target]:
    """By requests in flight, those of a server's other clients too where it tells of them; ties as listed."""
    busy = [(signals.busy(target.model.name), target) for target, _ in candidates]
    busy.sort(key=itemgetter(0))
    return [target._replace(why=f"{count} in flight{_others(target, signals)}") for count, target in busy]


def _others(target: Target, signals: Signals) -> str:
    count = signals.elsewhere.get(target.model.name, 0)
    return f", {count} of them from elsewhere" if count else ""


_ALMOST_ONE = 1.0 - 2.0**-53

STRATEGIES: Mapping[str, Strategy] = {
    "listed": listed,
    "cheapest": cheapest,
    "weighted": weighted,
    "least_busy": least_busy,
}
