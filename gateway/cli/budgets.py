"""`gateway budgets`: what is spent and held, and the two ways to change it by hand, each with its reason on record."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from pathlib import Path

from gateway.cli.changes import change, common, store
from gateway.cli.table import table
from gateway.config import load
from gateway.config.spending import principal
from gateway.config.types import Config
from gateway.core.budgets import Budget, Periods
from gateway.core.pricing import NANO_PER_USD, dollars
from gateway.errors import StoreUnavailable
from gateway.keyring import settings_of
from gateway.stores import counters, keys
from gateway.stores.counters import Row
from gateway.stores.keys import StoredKey


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
            return _list(config, args)
        return _change(config, args)
    except StoreUnavailable as error:
        print(f"gateway budgets: {error.message}", file=sys.stderr)
        return 1


def _list(config: Config, args: argparse.Namespace) -> int:
    with store(config) as connection:
        budgets, now = budgets_of(config, keys.stored(connection)), time.time()
        found = list(standing(budgets, counters.rows(connection, now), now))
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    if not found:
        print(f"{config.path.name} has no budgets.")
        return 0
    header = ("BUDGET", "SCOPE", "SPENT", "HELD", "LIMIT", "LEFT", "WINDOW")
    print(table(header, [_cells(row) for row in found]))
    return 0


def budgets_of(config: Config, created: Iterable[StoredKey]) -> dict[str, Budget]:
    """By name; of the file, of its keys and of the created ones."""
    own = [budget for key in config.keys for budget in key.principal.budgets]
    own += [budget for key in created if key.settings.get("budget") for budget in principal(settings_of(key)).budgets]
    return {budget.name: budget for budget in (*own, *config.rules.budgets)}


def standing(budgets: dict[str, Budget], rows: Iterable[Row], now: float) -> Iterable[dict[str, object]]:
    """One entry for each account that was used in its window, and for each budget without `per`."""
    periods = Periods()
    used = {row.account: row for row in rows}
    for budget in budgets.values():
        if not budget.per:
            touch = periods.touch(budget, "", now)
            used.setdefault(touch.account, Row(touch.account, touch.ends, 0, 0))
    for account, row in sorted(used.items()):
        known = budgets.get(account.budget)
        limit = None if known is None else known.limit_nano
        yield {
            "budget": account.budget,
            "scope": account.scope,
            "window": account.window,
            "settled_usd": row.settled / NANO_PER_USD,
            "held_usd": row.held / NANO_PER_USD,
            "limit_usd": None if limit is None else limit / NANO_PER_USD,
            "left_usd": None if limit is None else (limit - row.settled - row.held) / NANO_PER_USD,
            "ends": None if row.ends == float("inf") else _moment(row.ends),
        }


def _cells(row: dict[str, object]) -> list[str]:
    usd = [_money(row[name]) for name in ("settled_usd", "held_usd", "limit_usd", "left_usd")]
    return [str(row["budget"]), str(row["scope"]), *usd, str(row["window"])]


def _money(value: object) -> str:
    return "-" if not isinstance(value, float) else dollars(round(value * NANO_PER_USD))


def _change(config: Config, args: argparse.Namespace) -> int:
    with store(config) as connection:
        budgets = budgets_of(config, keys.stored(connection))
        budget = budgets.get(args.name)
        if budget is None:
            return _usage(f"there is no budget {args.name!r}; there are: {', '.join(sorted(budgets)) or 'none'}")
        if bool(budget.per) != bool(args.scope):
            wanted = f"is `per: {budget.per}`: say --scope" if budget.per else "has no `per`: leave --scope out"
            return _usage(f"{args.name} {wanted}")
        touch = Periods().touch(budget, args.scope or "", time.time())
        told = change(f"budgets.{args.action}", args.name, args.reason)
        by = getattr(args, "by_usd", None)
        before, after = counters.change(
            connection, touch.account, touch.ends, lambda settled: 0 if by is None else settled + by, told
        )
    where = {"budget": args.name, "scope": touch.account.scope, "window": touch.account.window}
    if args.json:
        print(json.dumps({**where, "before_usd": before / NANO_PER_USD, "settled_usd": after / NANO_PER_USD}))
    else:
        print(f"{', '.join(where.values())}: {dollars(before)} -> {dollars(after)} USD")
    return 0


def _usage(why: str) -> int:
    print(f"gateway budgets: {why}", file=sys.stderr)
    return 2


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()


def _usd(text: str) -> int:
    """Nano-USD."""
    try:
        return int(Decimal(text) * NANO_PER_USD)
    except (InvalidOperation, ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount in USD") from None
