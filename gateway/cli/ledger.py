"""`gateway ledger`: what happened to requests, and what was said where a route keeps that."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.cli.changes import common
from gateway.cli.period import unreadable
from gateway.cli.table import table
from gateway.config import load
from gateway.config.types import Config
from gateway.core.pricing import dollars
from gateway.core.record import AttemptRecord, Record
from gateway.stores import content
from gateway.stores.reader import latest, read_requests
from gateway.telemetry.lines import clean, stamp

MOST = 1000
PICKED = ("route", "task", "model", "team", "key", "outcome", "trace_id")


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listed = actions.add_parser("list", help="show the latest requests, newest first")
    listed.add_argument("--limit", type=_limit, default=20, metavar="N", help="how many (default %(default)s)")
    for name in PICKED:
        listed.add_argument(f"--{name.replace('_', '-')}", metavar="NAME", help=f"only those of this {name}")
    show = actions.add_parser("show", help="show one request and its attempts")
    said = actions.add_parser("content", help="show what was said, where its route keeps that (`capture:`)")
    for action in (show, said):
        action.add_argument("id", help="the gateway's id of the request: req_...")
    for action in (listed, show, said):
        common(action)


def run(args: argparse.Namespace) -> int:
    config = load(Path(args.config))
    actions: Mapping[str, Callable[[Config, argparse.Namespace], int]] = {
        "list": _list,
        "show": _show,
        "content": _content,
    }
    try:
        return actions[args.action](config, args)
    except sqlite3.Error as error:
        path = Path(config.ledger.removeprefix("sqlite:///"))
        print(f"gateway ledger: {unreadable(path, error)}", file=sys.stderr)
        return 1


def _list(config: Config, args: argparse.Namespace) -> int:
    where = {name: value for name in PICKED if (value := getattr(args, name))}
    rows = latest(config.ledger, args.limit, where)
    if args.json:
        print(json.dumps([_readable(row) for row in rows], indent=2))
    elif not rows:
        print("No such request is in the ledger.")
    else:
        header = ("ID", "TIME", "STATUS", "OUTCOME", "ROUTE", "MODEL", "SECONDS", "COST", "TEAM")
        print(table(header, map(_line, rows)))
    return 0


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    """As the ledger's columns name them; times and lists as programs want them."""
    return {**row, "started": row["started"] / 1e6, **{name: json.loads(row[name]) for name in ("tags", "has")}}


def _line(row: Mapping[str, Any]) -> list[str]:
    names = [clean(str(row[name] or "-"), 40) for name in ("outcome", "route", "model")]
    spent = [f"{row['duration']:.3f}", f"${dollars(row['cost_nano'])}", clean(str(row["team"] or "-"), 40)]
    return [row["id"], stamp(row["started"] / 1e6), str(row["status"]), *names, *spent]


def _show(config: Config, args: argparse.Namespace) -> int:
    path = Path(config.ledger.removeprefix("sqlite:///"))
    record = next(iter(read_requests(path, ids=[args.id], attempts=True)), None)
    if record is None:
        print(f"gateway ledger: {config.ledger} has no request {args.id}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(_whole(record), indent=2))
        return 0
    fields = [(name, clean(_text(value))) for name, value in _whole(record).items() if name != "attempts"]
    print("\n".join(f"  {name:<18} {value}" for name, value in fields if value not in ("", "None", "[]")))
    header = ("#", "MODEL", "REASON", "RESULT", "STATUS", "SECONDS", "IN", "OUT", "COST", "DETAIL")
    rows = [[str(number), *_attempt(attempt)] for number, attempt in enumerate(record.attempts, 1)]
    print(f"\nAttempts\n{table(header, rows)}" if rows else "\nNo attempt was made.")
    return 0


def _whole(record: Record) -> dict[str, Any]:
    apart = {"attempts", "span", "stages", "content"}
    found = {name: value for name, value in record._asdict().items() if name not in apart}
    untold = {"stages", "span_id", "upstream_model", "response_model", "finish"}
    tried = [
        {name: value for name, value in attempt._asdict().items() if name not in untold} | {"usage": _usage(attempt)}
        for attempt in record.attempts
    ]
    return found | {"usage": _usage(record), "attempts": tried}


def _usage(of: Record | AttemptRecord) -> dict[str, Any]:
    usage = of.usage._asdict()
    return usage | {"more": of.usage.more._asdict() if of.usage.more is not None else None}


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict | list | tuple) else str(value)


def _attempt(a: AttemptRecord) -> list[str]:
    used = [str(a.usage.total_input), str(a.usage.total_output), f"${dollars(a.cost_nano)}"]
    return [a.model, a.reason, a.result, str(a.status or "-"), f"{a.duration:.3f}", *used, clean(a.detail) or "-"]


def _content(config: Config, args: argparse.Namespace) -> int:
    path = Path(config.ledger.removeprefix("sqlite:///"))
    found = content.read(path, args.id, time.time())
    if found is None:
        print(
            f"gateway ledger: nothing was kept of {args.id}: its route has no `capture:`, or its time is over",
            file=sys.stderr,
        )
        return 1
    if args.json:
        print(json.dumps(found._asdict(), indent=2))
        return 0
    took = f"{found.redacted} secrets taken out, " if found.redacted else ""
    print(f"{found.request_id}, {stamp(found.at)}, {took}kept until {stamp(found.expires)}")
    print(f"\nPrompt ({found.prompt_bytes} bytes)\n{_printable(found.prompt)}")
    print(f"\nAnswer ({found.answer_bytes} bytes)\n{_printable(found.answer)}")
    return 0


def _printable(text: str) -> str:
    """Nothing in it can play with the reader's terminal."""
    return "\n".join(clean(line, len(line)) for line in text.split("\n"))


def _limit(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MOST}")
    return int(text)
