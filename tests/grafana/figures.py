"""Panel -> the same figures from the ledger: `FIGURES`. A panel that is not there stands in `NOT_IN_THE_LEDGER`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from gateway import __version__
from gateway.telemetry.families import (
    FIRST_TOKEN_SECONDS,
    OVERHEAD_SECONDS,
    REQUEST_SECONDS,
    TOKEN_SECONDS,
)
from tests.grafana.ledger import PLACE, Choice, Figures, Ledger, minus, over, quantiles, times
from tests.grafana.scenario import LIMITS, MACHINE_USD_PER_HOUR

MACHINE = "qwen"
RULE = 300  # seconds: the window of recorded rates


class Run(NamedTuple):
    """What was seen of the gateway."""

    range: int  # seconds: `$__range` and `$__rate_interval`
    seen: float  # seconds between the first scrape and the last
    gap: float  # the most seconds from one scrape to the next: more than one on a busy machine
    stretch: float  # how many times what was counted the recorded rates show (`test_panels.stretch`)


Compute = Callable[[Ledger, Choice, Run], Figures]


class Figure(NamedTuple):
    """Of one query. `by`: the labels that tell its series apart.

    How near it must come: `exact` but for 0.1%; `time`: the machine's time is counted in steps of a scrape, and ends up
    to a step and a scrape too early; `usd`: a sum with the machine's cost in it, which the same makes up to so much
    smaller; `share`: such a sum as a share of the whole baseline.
    """

    by: tuple[str, ...]
    compute: Compute
    near: Literal["exact", "time", "usd", "share"] = "exact"


def per_hour(figures: Figures, seconds: float) -> Figures:
    return times(3600 / seconds, figures)


def recorded(figures: Figures, run: Run) -> Figures:
    """Per hour, as the recorded rates have it."""
    return times(run.stretch, per_hour(figures, RULE))


EVERYTHING = Choice()


def hardware(run: Run, choice: Choice = EVERYTHING) -> Figures:
    return {(MACHINE,): MACHINE_USD_PER_HOUR * run.seen / 3600} if choice.model in ("", MACHINE) else {}


def charged(ledger: Ledger, choice: Choice) -> Figures:
    """To the machine, whatever the team and route."""
    spent = ledger.cost(Choice(model=choice.model), ["model"], ["model"])
    return {(MACHINE,): spent.get((MACHINE,), 0)} if choice.model in ("", MACHINE) else {}


def machine_tokens(ledger: Ledger, choice: Choice) -> Figures:
    served = ledger.tokens(Choice(model=choice.model), ["model"])
    return {(MACHINE,): served.get((MACHINE,), 0)} if choice.model in ("", MACHINE) else {}


def total(figures: Figures) -> Figures:
    return {(): sum(figures.values())}


def api(ledger: Ledger) -> Figures:
    """What was charged for models that have no machine of their own."""
    return total({key: usd for key, usd in ledger.cost(EVERYTHING, ["model"]).items() if key != (MACHINE,)})


def net(ledger: Ledger, run: Run) -> Figures:
    return minus(minus(ledger.baseline(EVERYTHING), api(ledger)), total(hardware(run)))


def tokens_by_hosting(ledger: Ledger, choice: Choice) -> Figures:
    hosted = {row["model"]: row["hosting"] for row in ledger.attempts}
    return {(model, hosted[model]): count for (model,), count in ledger.tokens(choice, ["model"]).items()}


def first_tokens(ledger: Ledger, choice: Choice, *labels: str) -> Figures:
    rows = [row for row in ledger.requests if row["first_token"] is not None and choice.takes(row, "route", "model")]
    found = ((tuple(row[label] for label in labels), row["first_token"]) for row in rows)
    return quantiles(0.95, FIRST_TOKEN_SECONDS, found)


def durations(ledger: Ledger, choice: Choice) -> Figures:
    rows = [row for row in ledger.requests if choice.takes(row, "route", "model")]
    return quantiles(0.95, REQUEST_SECONDS, (((row["route"],), row["duration"]) for row in rows))


def paces(ledger: Ledger, choice: Choice) -> Figures:
    found = [
        ((row["model"],), (row["duration"] - row["first_token"]) / (row["output_tokens"] + row["reasoning_tokens"] - 1))
        for row in ledger.attempts
        if row["result"] == "ok" and row["first_token"] is not None and not row["usage_estimated"]
        if row["output_tokens"] + row["reasoning_tokens"] > 1 and choice.takes(row, "model")
    ]
    return quantiles(0.5, TOKEN_SECONDS, found)


def overheads(q: float) -> Compute:
    return lambda ledger, choice, run: quantiles(
        q, OVERHEAD_SECONDS, (((), row["overhead"]) for row in ledger.requests)
    )


def used(ledger: Ledger, choice: Choice) -> Figures:
    return {key: value / LIMITS[key[0]] for key, value in ledger.settled(choice).items()}


def left(ledger: Ledger, choice: Choice) -> Figures:
    return {key: LIMITS[key[0]] - value for key, value in ledger.settled(choice).items()}


def held(ledger: Ledger, choice: Choice) -> Figures:
    return {key: nano / 1e9 for key, nano in ledger.held.items() if choice.budget in ("", key[0])}


def against(label: str) -> Mapping[str, Figure]:
    """The tables of the cost dashboard."""
    return {
        "A": Figure((label,), lambda it, c, r: it.cost(c, [label], PLACE)),
        "B": Figure((label,), lambda it, c, r: it.baseline(c, [label])),
        "C": Figure((label,), lambda it, c, r: minus(it.baseline(c, [label]), it.cost(c, [label], PLACE))),
        "D": Figure(
            (label,),
            lambda it, c, r: over(minus(it.baseline(c, [label]), it.cost(c, [label], PLACE)), it.baseline(c, [label])),
        ),
        "E": Figure((label,), lambda it, c, r: it.finished(c, [label], PLACE)),
    }


def spent_per_hour(label: str) -> Mapping[str, Figure]:
    return {"A": Figure((label,), lambda it, c, r: per_hour(it.cost(c, [label]), r.range))}


def spent(label: str) -> Figure:
    return Figure((label,), lambda it, c, r: it.cost(c, [label]))


def answered_by(label: str) -> Mapping[str, Figure]:
    return {"A": Figure((label,), lambda it, c, r: times(1 / r.range, it.finished(c, [label], outcome="ok")))}


COST: Mapping[str, Mapping[str, Figure]] = {
    "Spent": {"A": Figure((), lambda it, c, r: it.cost(c, (), PLACE))},
    "Would have cost": {"A": Figure((), lambda it, c, r: it.baseline(c))},
    "Saved": {"A": Figure((), lambda it, c, r: minus(it.baseline(c), it.cost(c, (), PLACE)))},
    "Saved, share": {
        "A": Figure((), lambda it, c, r: over(minus(it.baseline(c), it.cost(c, (), PLACE)), it.baseline(c)))
    },
    "Hardware": {"A": Figure((), lambda it, c, r: total(hardware(r)), "time")},
    "Idle hardware": {
        "A": Figure((), lambda it, c, r: total(minus(hardware(r), charged(it, EVERYTHING))), "usd"),
    },
    "Net saving": {"A": Figure((), lambda it, c, r: net(it, r), "usd")},
    "Net saving, share": {"A": Figure((), lambda it, c, r: over(net(it, r), it.baseline(EVERYTHING)), "share")},
    "Spent against the baseline, per hour": {
        "A": Figure((), lambda it, c, r: per_hour(it.cost(c, (), PLACE), r.range)),
        "B": Figure((), lambda it, c, r: per_hour(it.baseline(c), r.range)),
    },
    "Saved per hour, whole gateway": {
        "A": Figure((), lambda it, c, r: recorded(minus(it.baseline(EVERYTHING), it.cost(EVERYTHING)), r)),
        "B": Figure(
            (),
            lambda it, c, r: minus(
                recorded(minus(it.baseline(EVERYTHING), api(it)), r),
                {(): MACHINE_USD_PER_HOUR},
            ),
        ),
    },
    **{f"Spent per hour by {label}": spent_per_hour(label) for label in ("task", "team", "model", "hosting")},
    "Utilisation": {
        "A": Figure(("model",), lambda it, c, r: times(1 / MACHINE_USD_PER_HOUR, recorded(charged(it, c), r))),
    },
    "Hardware and its idle part, per hour": {
        "A": Figure(("model",), lambda it, c, r: per_hour(hardware(r, c), r.seen)),
        "B": Figure(("model",), lambda it, c, r: minus(per_hour(hardware(r, c), r.seen), recorded(charged(it, c), r))),
    },
    "Traffic against break-even": {
        "A": Figure(("model",), lambda it, c, r: times(1 / r.range, machine_tokens(it, c))),
    },
    "Machines over the range": {
        "A": Figure(("model",), lambda it, c, r: hardware(r, c), "time"),
        "B": Figure(("model",), lambda it, c, r: charged(it, c)),
        "C": Figure(("model",), lambda it, c, r: minus(hardware(r, c), charged(it, c)), "usd"),
        "D": Figure(("model",), lambda it, c, r: over(charged(it, c), hardware(r, c)), "time"),
        "E": Figure(("model",), lambda it, c, r: times(1 / MACHINE_USD_PER_HOUR, hardware(r, c)), "time"),
    },
    "Tokens by type": {"A": Figure(("type",), lambda it, c, r: times(1 / r.range, it.tokens(c, ["type"])))},
    "Tokens by model": {"A": Figure(("model",), lambda it, c, r: times(1 / r.range, it.tokens(c, ["model"])))},
    "By task": against("task"),
    "By team": against("team"),
    "By model": {
        "A": Figure(("model", "hosting"), lambda it, c, r: it.cost(c, ["model", "hosting"])),
        "B": Figure(("model", "hosting"), lambda it, c, r: tokens_by_hosting(it, c)),
        "C": Figure(
            ("model", "hosting"),
            lambda it, c, r: times(1e6, over(it.cost(c, ["model", "hosting"]), tokens_by_hosting(it, c))),
        ),
    },
    "By hosting": {"A": Figure(("hosting",), lambda it, c, r: it.cost(c, ["hosting"]))},
}

WHO = ("route", "task", "model")
ROUTING: Mapping[str, Mapping[str, Figure]] = {
    "Requests": {"A": Figure((), lambda it, c, r: it.finished(c))},
    "Answered": {
        "A": Figure(
            (), lambda it, c, r: over(it.finished(c, outcome="ok"), it.finished(c, outcome="ok|upstream_error"))
        )
    },
    "First token, 95%": {"A": Figure((), lambda it, c, r: first_tokens(it, c))},
    "Fallbacks per 100": {
        "A": Figure((), lambda it, c, r: times(100, over(it.fallbacks(c), it.finished(c, (), ["route"]))))
    },
    "Failed attempts": {"A": Figure((), lambda it, c, r: over(it.tries(c, failed=True), it.tries(c)))},
    "Hedges that won": {"A": Figure((), lambda it, c, r: over(it.hedges(c, won="true"), it.hedges(c)))},
    "Wasted": {"A": Figure((), lambda it, c, r: it.wasted(c))},
    "Requests by outcome": {
        "A": Figure(("outcome",), lambda it, c, r: times(1 / r.range, it.finished(c, ["outcome"])))
    },
    "Share of answers by model": answered_by("model"),
    "Share of answers by task": answered_by("task"),
    "Time to the first token, 95% by model": {"A": Figure(("model",), lambda it, c, r: first_tokens(it, c, "model"))},
    "Duration, 95% by route": {"A": Figure(("route",), lambda it, c, r: durations(it, c))},
    "Time per output token, median by model": {"A": Figure(("model",), lambda it, c, r: paces(it, c))},
    "Failed attempts by kind": {
        "A": Figure(("result",), lambda it, c, r: times(1 / r.range, it.tries(c, ["result"], failed=True)))
    },
    "Fallbacks by reason": {"A": Figure(("reason",), lambda it, c, r: times(1 / r.range, it.fallbacks(c, ["reason"])))},
    "Hedges": {"A": Figure(("won",), lambda it, c, r: times(1 / r.range, it.hedges(c, ["won"])))},
    "Wasted, per hour": {"A": Figure(("purpose",), lambda it, c, r: per_hour(it.wasted(c, ["purpose"]), r.range))},
    "Refused by the gateway": {"A": Figure(("reason",), lambda it, c, r: times(1 / r.range, it.rejections()))},
    "Who answered what": {
        "A": Figure(WHO, lambda it, c, r: it.finished(c, WHO)),
        "B": Figure(WHO, lambda it, c, r: over(it.finished(c, WHO, outcome="ok"), it.finished(c, WHO))),
    },
    "Fallbacks": {
        "A": Figure(
            ("route", "from", "to", "reason"), lambda it, c, r: it.fallbacks(c, ["route", "from", "to", "reason"])
        )
    },
    "Attempts": {
        "A": Figure(("model", "result"), lambda it, c, r: it.tries(c, ["model", "result"])),
        "B": Figure(
            ("model", "result"),
            lambda it, c, r: {
                key: count / it.tries(c, ["model"])[(key[0],)]
                for key, count in it.tries(c, ["model", "result"]).items()
            },
        ),
    },
    "Usage estimated": {"A": Figure(("model",), lambda it, c, r: it.estimated(c))},
    "Unpriced": {"A": Figure(("model",), lambda it, c, r: it.unpriced(c))},
}

ACCOUNT = ("budget", "scope")
BUDGETS: Mapping[str, Mapping[str, Figure]] = {
    "Fullest budget": {"A": Figure((), lambda it, c, r: {(): max(used(it, c).values())})},
    "Accounts at their limit": {
        "A": Figure((), lambda it, c, r: {(): sum(share >= 1 for share in used(it, c).values())})
    },
    "Held now": {"A": Figure((), lambda it, c, r: total(held(it, c)))},
    "Refused": {"A": Figure((), lambda it, c, r: it.refused(c))},
    "Overrun": {"A": Figure((), lambda it, c, r: it.overrun(c))},
    "Used of the limit": {"A": Figure(ACCOUNT, lambda it, c, r: used(it, c))},
    "Burn-down": {"A": Figure(ACCOUNT, lambda it, c, r: left(it, c))},
    "Used of the limit over time": {"A": Figure(ACCOUNT, lambda it, c, r: used(it, c))},
    "Accounts": {
        "A": Figure(ACCOUNT, lambda it, c, r: used(it, c)),
        "B": Figure(ACCOUNT, lambda it, c, r: {key: LIMITS[key[0]] for key in used(it, c)}),
        "C": Figure(ACCOUNT, lambda it, c, r: it.settled(c)),
        "D": Figure(ACCOUNT, lambda it, c, r: held(it, c)),
        "E": Figure(ACCOUNT, lambda it, c, r: left(it, c)),
    },
    "Refused by budget": {"A": Figure(("budget",), lambda it, c, r: times(1 / r.range, it.refused(c, ["budget"])))},
    "Held for calls under way": {"A": Figure(ACCOUNT, lambda it, c, r: held(it, c))},
    "Overrun, per hour": {"A": Figure(("budget",), lambda it, c, r: per_hour(it.overrun(c, ["budget"]), r.range))},
    **{f"Spent by {label}": {"A": spent(label)} for label in ("team", "route", "model")},
}

ITSELF: Mapping[str, Mapping[str, Figure]] = {
    "Request rate": {"A": Figure((), lambda it, c, r: times(1 / r.range, it.finished(c)))},
    "Overhead, median": {"A": Figure((), overheads(0.5))},
    "Overhead, 99%": {"A": Figure((), overheads(0.99))},
    "Overhead": {ref: Figure((), overheads(q)) for ref, q in (("A", 0.5), ("B", 0.95), ("C", 0.99))},
    "Version": {"A": Figure(("version",), lambda it, c, r: {(__version__,): 1})},
    "Requests by outcome": ROUTING["Requests by outcome"],
    "Refused": ROUTING["Refused by the gateway"],
    "Lines left out of streams": {"A": Figure(("model",), lambda it, c, r: times(1 / r.range, it.lines_dropped(c)))},
    "Configuration": {"A": Figure(("hash",), lambda it, c, r: {(it.requests[-1]["config_hash"],): 1})},
}

FIGURES = {"cost": COST, "routing": ROUTING, "budgets": BUDGETS, "itself": ITSELF}

STATE = "a state, not an event: the ledger has no row of it"
SLOPE = "a slope over samples: the ledger does not say between which scrapes a cost was settled"
WINDOW = "of the gateway's own window of an hour, in steps of 15 s: tests/telemetry compare it with the traffic"
MACHINERY = "what the kernel says of processes"
NOT_IN_THE_LEDGER: Mapping[str, Mapping[str, str]] = {
    "cost": {
        "Price of a million tokens on your own hardware": WINDOW,
        "Traffic against break-even": f"{WINDOW} (its second query)",
    },
    "routing": {"Breakers open": STATE, "Breakers": STATE},
    "budgets": {
        "First to run out": SLOPE,
        "Pace, USD per hour": SLOPE,
        "Accounts": f"{SLOPE} (its last two columns)",
    },
    "itself": {
        "Stages, 95%": "stages leave no row: they are seen in traces",
        "In flight now": STATE,
        "In flight": STATE,
        "Memory": MACHINERY,
        "Memory by process": MACHINERY,
        "CPU by process": MACHINERY,
        "Open files": MACHINERY,
        "Since when": MACHINERY,
        "Last reload": STATE,
        "Reloads": "reloads leave no row",
        "Ledger queue": STATE,
        "Ledger failures": "what failed to be written cannot be there",
        "Ledger failures and dropped rows": "what failed to be written cannot be there",
    },
}
