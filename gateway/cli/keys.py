"""`gateway keys`: makes, lists, replaces and ends the keys that clients show. A running gateway follows at once."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path

from pydantic import ValidationError

from gateway.cli.changes import change, common, store
from gateway.cli.table import table
from gateway.config import load
from gateway.config.schema_spending import KeySettings
from gateway.config.types import Config
from gateway.errors import StoreUnavailable
from gateway.stores import keys
from gateway.stores.keys import KeyTaken, NoSuchKey, StoredKey

PREFIX = "omg_"  # so that secret scanners can know one
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
    create.add_argument("--requests-per-minute", type=int, metavar="N")
    create.add_argument("--tokens-per-minute", type=int, metavar="N")
    create.add_argument("--max-in-flight", type=int, metavar="N")
    listed = actions.add_parser("list", help="show the keys of the file and the created ones, never their values")
    listed.add_argument("--all", action="store_true", help="also those that open nothing any more")
    rotate = actions.add_parser("rotate", help="give a key a new value and show it, once")
    rotate.add_argument("name")
    rotate.add_argument("--overlap", type=_seconds, default=0, metavar="TIME",
                        help="how long the old value goes on opening: 10m, 24h (default: not at all)")  # fmt: skip
    revoke = actions.add_parser("revoke", help="end a key; within a second it opens nothing")
    revoke.add_argument("name")
    for action in (create, listed, rotate, revoke):
        common(action)
    for action in (create, rotate, revoke):
        action.add_argument("--reason", default="", metavar="TEXT", help="for the audit trail")


def run(args: argparse.Namespace) -> int:
    config = load(Path(args.config))
    actions: Mapping[str, Callable[[Config, argparse.Namespace], int]] = {
        "create": _create,
        "list": _list,
        "rotate": _rotate,
        "revoke": _revoke,
    }
    try:
        return actions[args.action](config, args)
    except KeyTaken as error:
        return _refused(f"a key called {error} opens already; `rotate` gives it a new value, `revoke` ends it")
    except NoSuchKey as error:
        if any(key.principal.key == args.name for key in config.keys):
            return _refused(f"the key {error} stands in {config.path.name}: change it there")
        return _refused(f"no created key called {error} opens; `gateway keys list --all` shows all")
    except StoreUnavailable as error:
        return _refused(error.message)


def _create(config: Config, args: argparse.Namespace) -> int:
    if any(key.principal.key == args.name for key in config.keys):
        return _refused(f"{config.path.name} has a key called {args.name}")
    written = _written(args)
    try:
        checked = KeySettings.model_validate(written)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        print(f"gateway keys: {'; '.join(problems)}", file=sys.stderr)
        return 2
    value, digest = _new()
    expires = None if checked.expires is None else checked.expires.timestamp()
    now = change("keys.create", args.name, args.reason)
    settings = {name: value for name, value in written.items() if name not in ("name", "expires")}
    with store(config) as connection:
        keys.create(connection, StoredKey(digest, args.name, settings, now.at, expires), now)
    _show(args, value, f"key {args.name}")
    return 0


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
    return {name: value for name, value in given.items() if value}


def _rotate(config: Config, args: argparse.Namespace) -> int:
    value, digest = _new()
    now = change("keys.rotate", args.name, args.reason)
    with store(config) as connection:
        keys.rotate(connection, args.name, digest, now.at + args.overlap, now)
    _show(args, value, f"key {args.name}, its new value")
    return 0


def _revoke(config: Config, args: argparse.Namespace) -> int:
    with store(config) as connection:
        ended = keys.revoke(connection, args.name, change("keys.revoke", args.name, args.reason))
    print(json.dumps({"name": args.name, "revoked": ended}) if args.json else f"key {args.name} opens nothing any more")
    return 0


def _list(config: Config, args: argparse.Namespace) -> int:
    with store(config) as connection:
        created = keys.stored(connection)
    now = time.time()
    rows: list[dict[str, object]] = []
    for declared in config.keys:
        who, state = declared.principal, _state(declared.expires, now)
        rows.append({"name": who.key, "state": state, "from": config.path.name, "team": who.team})
    for key in created:
        ends = None if key.expires is None else datetime.datetime.fromtimestamp(key.expires, datetime.UTC)
        state = "revoked" if key.revoked is not None else _state(ends, now)
        rows.append({"name": key.name, "state": state, "from": "created", **key.settings})
    shown = [row for row in rows if args.all or not str(row["state"]).startswith(("revoked", "expired"))]
    if args.json:
        print(json.dumps(shown, indent=2, default=float))
    elif not shown:
        print("No key opens anything. `gateway keys create NAME` makes one.")
    else:
        lines = [[str(row.get(column) or "-") for column in ("name", "team", "state", "from")] for row in shown]
        more = [_more(row) for row in shown]
        print(table(("NAME", "TEAM", "STATE", "FROM", "SETTINGS"), [[*a, b] for a, b in zip(lines, more, strict=True)]))
    return 0


def _more(row: Mapping[str, object]) -> str:
    rest = {name: value for name, value in row.items() if name not in ("name", "team", "state", "from")}
    return ", ".join(f"{name} {json.dumps(value, default=float)}" for name, value in rest.items())


def _state(expires: datetime.datetime | None, now: float) -> str:
    if expires is None:
        return "opens"
    word = "expired" if expires.timestamp() <= now else "opens until"
    return f"{word} {expires.isoformat(timespec='minutes')}"


def _new() -> tuple[str, bytes]:
    """A value of 256 random bits, and its digest, which is all that is kept."""
    value = PREFIX + secrets.token_urlsafe(32)
    return value, hashlib.sha256(value.encode()).digest()


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


def _refused(why: str) -> int:
    print(f"gateway keys: {why}", file=sys.stderr)
    return 1
