"""`gateway report`: what requests have cost and saved, added up from the ledger."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from gateway.cli import period as periods
from gateway.cli.table import table
from gateway.config import load
from gateway.config.types import Config
from gateway.core.pricing import NANO_PER_USD, dollars
from gateway.core.reporting import OUTCOMES, Group, Hardware, Headline, hardware, headline
from gateway.core.usage import Usage
from gateway.stores.summary import DIMENSIONS, Summary, Summing

_TOKENS = Usage._fields[:5]


def configure(parser: argparse.ArgumentParser) -> None:
    periods.configure(parser, since="30d")
    parser.add_argument("--by", default=(), type=_dimensions, metavar="WHAT",
                        help=f"groups, parted by commas: {', '.join(DIMENSIONS)}")  # fmt: skip
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the same for programs")
    form.add_argument("--csv", action="store_true", help="the groups for spreadsheets")
    parser.add_argument("-o", "--output", metavar="FILE", help="write it there rather than on standard output")


def run(args: argparse.Namespace) -> int:
    try:
        period = periods.period(args)
    except ValueError as error:
        print(f"gateway report: {error}", file=sys.stderr)
        return 2
    config = load(Path(args.config))
    path = periods.ledger(config, args)
    try:
        found = _found(config, path, period, args)
    except sqlite3.Error as error:
        print(f"gateway report: {periods.unreadable(path, error)}", file=sys.stderr)
        return 1
    text = _written(found, args)
    if args.output is None:
        sys.stdout.write(text)
        return 0
    try:
        Path(args.output).write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        print(f"gateway report: {args.output}: {(error.strerror or 'cannot be written').lower()}", file=sys.stderr)
        return 2
    return 0


def _written(found: _Found, args: argparse.Namespace) -> str:
    if args.json:
        return json.dumps(_as_json(found), indent=2) + "\n"
    return _as_csv(found) if args.csv else _as_text(found)


class _Found(NamedTuple):
    period: periods.Period  # from the first request in the ledger on, where that is later
    summary: Summary
    machines: list[Hardware]
    headline: Headline


def _found(config: Config, path: Path, period: periods.Period, args: argparse.Namespace) -> _Found:
    summary = Summary(args.by)
    with closing(Summing(path)) as ledger:
        first = ledger.first()
        # Hardware is counted from when there was a gateway to use it.
        since = period.since if first is None else max(period.since, min(first, period.until))
        period = periods.Period(since, period.until)
        with periods.progress(ledger.count(*period), "adding up", shown=args.progress) as bar:
            for added in ledger.sum(summary, *period):
                bar.update(added)
    seconds = period.until - period.since if first is not None else 0.0
    machines = hardware(config.rules.models, summary.charged, seconds, period.until)
    return _Found(period, summary, machines, headline(summary.total, machines))


def _dimensions(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in DIMENSIONS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(DIMENSIONS)}")
    return names


def _sorted(summary: Summary) -> list[tuple[tuple[str, ...], Group]]:
    """In the order of time where that is asked for, else the dearest first."""
    timed = summary.by and summary.by[0] in ("day", "hour")
    key = (lambda pair: pair[0]) if timed else (lambda pair: (-pair[1].cost, pair[0]))
    return sorted(summary.groups.items(), key=key)


# For programs.


def _as_json(found: _Found) -> dict[str, Any]:
    best = found.headline
    return {
        "from": periods.moment(found.period.since),
        "to": periods.moment(found.period.until),
        "by": list(found.summary.by),
        "totals": _figures(found.summary.total),
        "groups": [
            dict(zip(found.summary.by, values, strict=True)) | _figures(group)
            for values, group in (_sorted(found.summary) if found.summary.by else ())
        ],
        "hardware": [
            {
                "model": each.model,
                "capacity_usd": _usd(each.capacity),
                "charged_usd": _usd(each.charged),
                "idle_usd": _usd(each.idle),
                "utilisation": each.utilisation,
            }
            for each in found.machines
        ],
        "headline": {
            "baseline_usd": _usd(best.baseline),
            "api_cost_usd": _usd(best.api_cost),
            "capacity_usd": _usd(best.capacity),
            "saving_usd": _usd(best.saving),
            "saving_percent": round(best.saving * 100 / best.baseline, 3) if best.baseline else None,
        },
    }


def _figures(group: Group) -> dict[str, Any]:
    return {
        "requests": group.requests,
        "outcomes": group.outcomes,
        "attempts": group.attempts,
        "cost_usd": _usd(group.cost),
        "api_cost_usd": _usd(group.api_cost),
        "self_hosted_cost_usd": _usd(group.self_hosted),
        "cost_by_purpose_usd": {name: _usd(nano) for name, nano in sorted(group.purposes.items())},
        "tokens": dict(zip(_TOKENS, group.tokens, strict=True)),
        "baseline_usd": _usd(group.baseline),
        "savings_usd": _usd(group.savings),
        "extra_usd": _usd(group.extra),
        "unpriced_requests": group.unpriced,
        "estimated_attempts": group.estimated,
    }


def _usd(nano: int | None) -> float | None:
    """A float holds a nano-dollar exactly up to 9 million dollars (2 to the 53rd)."""
    return None if nano is None else nano / NANO_PER_USD


def _as_csv(found: _Found) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    summary = found.summary
    purposes = sorted(summary.total.purposes)
    writer.writerow(
        [*summary.by, "requests", *OUTCOMES, "attempts", "cost_usd", "api_cost_usd", "self_hosted_cost_usd"]
        + [f"cost_{name}_usd" for name in purposes]
        + [f"{name}_tokens" for name in _TOKENS]
        + ["baseline_usd", "savings_usd", "extra_usd", "unpriced_requests", "estimated_attempts"]
    )
    for values, group in _sorted(summary) if summary.by else [((), summary.total)]:
        writer.writerow(
            [*map(_cell, values), group.requests, *group.outcomes.values(), group.attempts]
            + [dollars(nano) for nano in (group.cost, group.api_cost, group.self_hosted)]
            + [dollars(group.purposes.get(name, 0)) for name in purposes]
            + [*group.tokens]
            + [dollars(nano) for nano in (group.baseline, group.savings, group.extra)]
            + [group.unpriced, group.estimated]
        )
    return out.getvalue()


def _cell(text: str) -> str:
    """A client's own word must not become a formula (owasp.org, "CSV Injection")."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


# For people.


def _as_text(found: _Found) -> str:
    total, best = found.summary.total, found.headline
    spoken = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in total.outcomes.items() if count)
    costs = ", ".join(f"{name} {_money(nano)}" for name, nano in sorted(total.purposes.items()))
    tokens = ", ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in zip(_TOKENS, total.tokens, strict=True) if count
    )
    facts = [
        ("requests", f"{total.requests}" + (f": {spoken}" if spoken else "")),
        ("cost", _money(total.cost) + (f": {costs}" if costs else "")),
        ("tokens", tokens or "0"),
        ("baseline", f"{_money(total.baseline)}; saved {_money(total.savings)}, extra {_money(total.extra)}"),
        ("unpriced", f"{total.unpriced} requests"),
        ("estimated", f"{total.estimated} attempts"),
    ]
    sections = [table((f"{found.period.words()}", ""), facts), "Headline\n" + _headline_table(best)]
    if found.machines:
        rows = [
            (
                each.model,
                *("-" if nano is None else _money(nano) for nano in (each.capacity, each.charged, each.idle)),
                "-" if each.utilisation is None else f"{each.utilisation:.1%}",
            )
            for each in found.machines
        ]
        sections.append("Own hardware\n" + table(("MODEL", "CAPACITY", "CHARGED", "IDLE", "USED"), rows))
    if found.summary.by:
        sections.append(_groups_table(found.summary))
    return "\n\n".join(sections) + "\n"


def _headline_table(best: Headline) -> str:
    share = f" ({best.saving / best.baseline:.1%} of the baseline)" if best.baseline else ""
    rows = [
        ("baseline", _money(best.baseline)),
        ("API cost", _money(-best.api_cost)),
        ("own hardware, idle included", _money(-best.capacity)),
        ("saved", _money(best.saving) + share),
    ]
    return table(("", "USD"), rows)


def _groups_table(summary: Summary) -> str:
    header = ("REQUESTS", "OK", "COST", "BASELINE", "SAVED", "EXTRA", "INPUT", "OUTPUT")
    rows = [
        (
            *(value or "-" for value in values),
            *(str(group.requests), str(group.outcomes["ok"])),
            *map(_money, (group.cost, group.baseline, group.savings, group.extra)),
            *(str(group.usage.total_input), str(group.usage.total_output)),
        )
        for values, group in _sorted(summary)
    ]
    return table((*map(str.upper, summary.by), *header), rows)


def _money(nano: int) -> str:
    return f"{'-' if nano < 0 else ''}${dollars(abs(nano))}"
