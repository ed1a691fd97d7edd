"""`gateway budgets`: what is spent and held, and the two ways to change it by hand, each with its reason on record."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from gateway import operations
from gateway.cli.changes import change, common
from gateway.cli.table import table
from gateway.config import load
from gateway.config.types import Config
from gateway.core.pricing import NANO_PER_USD, dollars
from gateway.errors import StoreUnavailable
from gateway.operations import Impossible


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listed = actions.add_parser("list", help="what is spent, held and left in the windows in force")
    adjust = actions.add_parser("adjust", help="correct what counts as spent")
    reset = actions.add_parser("reset", help="let what counts as spent begin at nothing again")
    for action in (adjust, reset):
        action.add_argument("name", help="the budget; `key:NAME` is a key's own")
        action.add_argument(
            "--scope", metavar="WHAT", help="for budgets with `per`: the team, the user, ... it is about"
        )
        action.add_argument("--reason", required=True, metavar="TEXT", help="for the audit trail")
    adjust.add_argument("--by-usd", required=True, type=_usd, metavar="USD", help="added to it: 2.50, or -10")
    for action in (listed, adjust, reset):
        common(action)


def run(args: argparse.Namespace) -> int:
    config = load(Path(args.config))
    try:
        if args.action == "list":
            _list(config, args)
        else:
            _change(config, args)
    except (Impossible, StoreUnavailable) as error:
        print(f"gateway budgets: {error.message}", file=sys.stderr)
        return 1 if isinstance(error, StoreUnavailable) else 2
    return 0


def _list(config: Config, args: argparse.Namespace) -> None:
    found = operations.list_budgets(config)
    if args.json:
        print(json.dumps(found, indent=2))
    elif not found:
        print(f"{config.path.name} has no budgets.")
    else:
        header = ("BUDGET", "SCOPE", "SPENT", "HELD", "LIMIT", "LEFT", "WINDOW")
        print(table(header, [_cells(row) for row in found]))


def _change(config: Config, args: argparse.Namespace) -> None:
    told = change(f"budgets.{args.action}", args.name, args.reason)
    found = operations.change_budget(config, args.scope or "", getattr(args, "by_usd", None), told)
    if args.json:
        print(json.dumps(found))
    else:
        where = ", ".join(str(found[name]) for name in ("budget", "scope", "window"))
        print(f"{where}: {_money(found['before_usd'])} -> {_money(found['settled_usd'])} USD")


def _cells(row: dict[str, object]) -> list[str]:
    usd = [_money(row[name]) for name in ("settled_usd", "held_usd", "limit_usd", "left_usd")]
    return [str(row["budget"]), str(row["scope"]), *usd, str(row["window"])]


def _money(value: object) -> str:
    return "-" if not isinstance(value, float) else dollars(round(value * NANO_PER_USD))


def _usd(text: str) -> int:
    """Nano-USD."""
    try:
        return operations.amount(text)
    except Impossible as error:
        raise argparse.ArgumentTypeError(f"{error.message}, not {text!r}") from None
