"""`gateway keys`: makes, lists, replaces and ends the keys that clients show. A running gateway follows at once."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path

from gateway import operations
from gateway.cli.changes import change, common
from gateway.cli.table import table
from gateway.config import load
from gateway.config.types import Config
from gateway.errors import StoreUnavailable
from gateway.operations import Impossible

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key and show it, once")
    create.add_argument("name", help="what it is called in metrics and the ledger")
    create.add_argument("--team", metavar="NAME", help="for routes, budgets and reports")
    create.add_argument("--user", metavar="NAME", help="recorded with each request")
    create.add_argument("--allow", action="append", metavar="GLOB", help="a model name it may ask for; may be repeated")
    create.add_argument("--tag", action="append", metavar="NAME", help="added to its requests; may be repeated")
    create.add_argument("--expires", metavar="DATE", help="from then on it opens nothing: 2027-01-01")
    create.add_argument("--budget-usd", type=_number, metavar="USD", help="what it may spend in each window")
    create.add_argument("--budget-window", metavar="WINDOW", help="hour, day, week, month (default) or total")
    create.add_argument("--requests-per-minute", type=int, metavar="N", help="how many it may make")
    create.add_argument("--tokens-per-minute", type=int, metavar="N", help="input and output together")
    create.add_argument("--max-in-flight", type=int, metavar="N", help="requests at a time")
    listed = actions.add_parser("list", help="show the keys of the file and the created ones, never their values")
    listed.add_argument("--all", action="store_true", help="also those that open nothing any more")
    rotate = actions.add_parser("rotate", help="give a key a new value and show it, once")
    rotate.add_argument("name", help="as it was made")
    rotate.add_argument("--overlap", type=_seconds, default=0, metavar="TIME",
                        help="how long the old value goes on opening: 10m, 24h (default: not at all)")  # fmt: skip
    revoke = actions.add_parser("revoke", help="end a key; within a second it opens nothing")
    revoke.add_argument("name", help="as it was made")
    for action in (create, listed, rotate, revoke):
        common(action)
    for action in (create, rotate, revoke):
        action.add_argument("--reason", default="", metavar="TEXT", help="for the audit trail")


def run(args: argparse.Namespace) -> int:
    config = load(Path(args.config))
    actions: Mapping[str, Callable[[Config, argparse.Namespace], None]] = {
        "create": _create,
        "list": _list,
        "rotate": _rotate,
        "revoke": _revoke,
    }
    try:
        actions[args.action](config, args)
    except (Impossible, StoreUnavailable) as error:
        print(f"gateway keys: {error.message}", file=sys.stderr)
        return 2 if error.status == 400 else 1
    return 0


def _create(config: Config, args: argparse.Namespace) -> None:
    value = operations.create_key(config, _written(args), change("keys.create", args.name, args.reason))
    _show(args, value, f"key {args.name}")


def _written(args: argparse.Namespace) -> dict[str, object]:
    """The settings as routes.yaml would have them; only what was given."""
    budget = {"limit_usd": args.budget_usd, "window": args.budget_window}
    limits = {name: getattr(args, name) for name in ("requests_per_minute", "tokens_per_minute", "max_in_flight")}
    given = {
        "name": args.name,
        "team": args.team,
        "user": args.user,
        "allow": args.allow,
        "tags": args.tag,
        "expires": args.expires,
        "budget": {name: value for name, value in budget.items() if value is not None},
        "limits": {name: value for name, value in limits.items() if value is not None},
    }
    return {name: value for name, value in given.items() if value or name == "name"}


def _rotate(config: Config, args: argparse.Namespace) -> None:
    value = operations.rotate_key(config, args.overlap, change("keys.rotate", args.name, args.reason))
    _show(args, value, f"key {args.name}, its new value")


def _revoke(config: Config, args: argparse.Namespace) -> None:
    ended = operations.revoke_key(config, change("keys.revoke", args.name, args.reason))
    print(json.dumps({"name": args.name, "revoked": ended}) if args.json else f"key {args.name} opens nothing any more")


def _list(config: Config, args: argparse.Namespace) -> None:
    shown = operations.list_keys(config, all=args.all)
    if args.json:
        print(json.dumps(shown, indent=2, default=float))
    elif not shown:
        print("No key is in force. `gateway keys create NAME` makes one.")
    else:
        lines = [[str(row.get(column) or "-") for column in ("name", "team", "state", "from")] for row in shown]
        more = [_more(row) for row in shown]
        print(table(("NAME", "TEAM", "STATE", "FROM", "SETTINGS"), [[*a, b] for a, b in zip(lines, more, strict=True)]))


def _more(row: Mapping[str, object]) -> str:
    rest = {name: value for name, value in row.items() if name not in ("name", "team", "state", "from")}
    return ", ".join(f"{name} {json.dumps(value, default=float)}" for name, value in rest.items())


def _show(args: argparse.Namespace, value: str, what: str) -> None:
    if args.json:
        print(json.dumps({"name": args.name, "value": value}))
        return
    print(value)
    print(f"{what}: this is the only time it is shown.", file=sys.stderr)


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 10m or 24h")
    return int(found[1]) * _UNITS[found[2]]
