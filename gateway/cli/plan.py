"""`gateway plan`: what a changed routes.yaml would have done with the requests of the past. Calls nobody."""

from __future__ import annotations

import argparse
import gc
import json
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

from gateway.cli import period as periods
from gateway.cli.reading import reader
from gateway.cli.table import table
from gateway.config import load
from gateway.config.types import Config
from gateway.core.forecast import Forecast
from gateway.core.gate import Condition, read_condition
from gateway.core.pricing import NANO_PER_USD, dollars
from gateway.core.redecide import Side
from gateway.core.tally import METRICS, UNKNOWNS, Tally, together
from gateway.errors import StoreUnavailable
from gateway.operations import holders
from gateway.stores.history import History


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--routes", required=True, metavar="FILE", help="the changed configuration")
    periods.configure(parser, since="7d")
    parser.add_argument("--fail-if", action="append", default=[], type=_condition, metavar="CONDITION",
                        help="exit with 1 where it holds: METRIC OP [+-]NUMBER[%%], such as 'cost > +10%%'; with a "
                        f"sign it is about the change. Metrics: {', '.join(METRICS)}. May be repeated")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="the same for programs")


def run(args: argparse.Namespace) -> int:
    try:
        period = periods.period(args)
    except ValueError as error:
        print(f"gateway plan: {error}", file=sys.stderr)
        return 2
    before, after = load(Path(args.config)), load(Path(args.routes))
    path = periods.ledger(before, args)
    try:
        with closing(History(path)) as history:
            forecast = _forecast(history, (before, after), period, shown=args.progress)
    except StoreUnavailable as error:
        print(f"gateway plan: {error}", file=sys.stderr)
        return 1
    except sqlite3.Error as error:
        print(f"gateway plan: {periods.unreadable(path, error)}", file=sys.stderr)
        return 1
    totals = together(forecast.before.values()), together(forecast.after.values())
    failed = [each for each in args.fail_if if _holds(each, totals)]
    if args.json:
        print(json.dumps(_as_json(forecast, totals, period, (args.fail_if, failed)), indent=2))
    else:
        print(_as_text(forecast, totals, period))
    for condition in failed:
        change = _change(condition.metric, *(each.values[condition.metric] for each in totals))
        print(f"gateway plan: {condition.text}: {condition.metric} goes {change}", file=sys.stderr)
    return 1 if failed else 0


@reader
def _condition(text: str) -> Condition:
    return read_condition(text, METRICS)


def _forecast(history: History, configs: tuple[Config, Config], period: periods.Period, *, shown: bool) -> Forecast:
    before, after = (Side(config.rules, holders(config, configs[0]), config.hash) for config in configs)
    forecast = Forecast(before, after, history.usual(*period))
    begins = forecast.begins(period.since)
    gc.disable()  # rows are no garbage that goes in circles, and to look for it takes a tenth of the time
    with periods.progress(history.count(begins, period.until), "re-deciding", shown=shown) as bar:
        for page in history.pages(begins, period.since) if forecast.budgets else ():
            tried = history.attempts([row.id for row in page])
            for row in page:
                forecast.spent(row, tried.get(row.id, ()))
            bar.update(len(page))
        for page in history.pages(*period):
            tried = history.attempts([row.id for row in page if forecast.needs(row)])
            for row in page:
                forecast.take(row, tried.get(row.id, ()))
            bar.update(len(page))
    gc.enable()
    return forecast


def _holds(condition: Condition, totals: tuple[Tally, Tally]) -> bool:
    unit = NANO_PER_USD if METRICS[condition.metric] == "USD" else 1
    before, after = (Fraction(each.values[condition.metric], unit) for each in totals)
    return condition.holds(before, after)


def _routes(forecast: Forecast) -> list[str]:
    return sorted({*forecast.before, *forecast.after})


_Gate = tuple[list[Condition], list[Condition]]


def _as_json(forecast: Forecast, totals: tuple[Tally, Tally], period: periods.Period, gate: _Gate) -> dict[str, Any]:
    """`gate`: the conditions, and those of them that hold."""
    conditions, failed = gate
    nothing = Tally()
    return {
        "from": periods.moment(period.since),
        "to": periods.moment(period.until),
        "changed_requests": forecast.changed,
        "totals": _figures(*totals),
        "routes": {
            name: _figures(forecast.before.get(name, nothing), forecast.after.get(name, nothing))
            for name in _routes(forecast)
        },
        "unknown": [
            {"what": name, "requests": count, "meaning": f"requests {UNKNOWNS[name]}"}
            for name, count in forecast.unknown.items()
            if count
        ],
        "fail_if": [{"condition": each.text, "holds": each in failed} for each in conditions],
    }


def _figures(before: Tally, after: Tally) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, unit in METRICS.items():
        first, second = before.values[name], after.values[name]
        scale = NANO_PER_USD if unit else 1
        found[f"{name}_usd" if unit else name] = {
            "before": first / scale if unit else first,
            "after": second / scale if unit else second,
            "change": (second - first) / scale if unit else second - first,
            "change_percent": None if not first else round((second - first) * 100 / abs(first), 3),
        }
    models = sorted({*before.models, *after.models})
    found["models"] = {
        name: {"before": before.models.get(name, 0), "after": after.models.get(name, 0)} for name in models
    }
    return found


def _as_text(forecast: Forecast, totals: tuple[Tally, Tally], period: periods.Period) -> str:
    requests = totals[0].values["requests"]
    sections = [
        f"{requests} requests, {period.words()}; {forecast.changed} of them are decided otherwise.",
        "In all\n" + _figures_table(*totals),
    ]
    nothing = Tally()
    for name in _routes(forecast):
        before, after = forecast.before.get(name, nothing), forecast.after.get(name, nothing)
        if before.values != after.values or before.models != after.models:
            sections.append(f"Route {name or '(none)'}\n" + _figures_table(before, after))
    same = [
        name or "(none)"
        for name in _routes(forecast)
        if (first := forecast.before.get(name)) is not None
        and (second := forecast.after.get(name)) is not None
        and first.values == second.values
        and first.models == second.models
    ]
    if same:
        sections.append(f"Unchanged: {', '.join(same)}")
    unknown = [(str(count), UNKNOWNS[name]) for name, count in forecast.unknown.items() if count]
    if unknown:
        sections.append("What this cannot know\n" + table(("REQUESTS", ""), unknown))
    return "\n\n".join(sections)


def _figures_table(before: Tally, after: Tally) -> str:
    rows = [
        (name.replace("_", " "), *_cells(name, before.values[name], after.values[name]))
        for name in METRICS
        if before.values[name] or after.values[name]
    ]
    rows += [
        (f"  by {model}", *_cells("", before.models.get(model, 0), after.models.get(model, 0)))
        for model in sorted({*before.models, *after.models})
    ]
    return table(("", "BEFORE", "AFTER", "CHANGE"), rows)


def _cells(metric: str, before: int, after: int) -> Sequence[str]:
    change = after - before
    percent = f" ({change * 100 / abs(before):+.1f}%)" if before and change else ""
    changed = f"{'+' if change > 0 else ''}{_amount(metric, change)}{percent}"
    return _amount(metric, before), _amount(metric, after), changed if change else "-"


def _change(metric: str, before: int, after: int) -> str:
    first, second, change = _cells(metric, before, after)
    return f"from {first} to {second} ({'no change' if change == '-' else change})"


def _amount(metric: str, value: int) -> str:
    return f"{'-' if value < 0 else ''}${dollars(abs(value))}" if METRICS.get(metric) else str(value)
