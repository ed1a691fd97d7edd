"""What operators do to a gateway, at the command line (`gateway/cli`) and through the admin API (`server/admin.py`).

Each change is made and recorded in one transaction of the store that `stores.counters` names; a running gateway follows
by itself. Nothing here prints or parses.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import math
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from gateway.config.schema_spending import KeySettings
from gateway.config.spending import principal
from gateway.config.types import Config
from gateway.core.budgets import Account, Balance, Budget, Periods
from gateway.core.call import MAX_USER, Call, Endpoint, Principal, parse
from gateway.core.pricing import NANO_PER_USD, dollars
from gateway.core.routing import Plan, Signals, plan
from gateway.core.scopes import ALL
from gateway.core.tasks import classify
from gateway.errors import GatewayError, StoreUnavailable
from gateway.keyring import settings_of
from gateway.stores import counters, keys
from gateway.stores.audit import Change
from gateway.stores.counters import Row
from gateway.stores.keys import KeyTaken, NoSuchKey, StoredKey
from gateway.stores.schema import ACCOUNTS_SINCE, connect, connect_read_only, readable_version
from gateway.wire import CODEC

T = TypeVar("T")

BUSY = 5.0  # seconds that a change waits for the gateway's own writes
MOST_USD = 1_000_000  # of one adjustment: the largest limit of a budget
PREFIX = "omg_"  # so that secret scanners can know a key
MOST_REASON = 1_000  # characters

# What `explain` takes a request for, by the member that holds its content.
EXPLAINED = {"messages": Endpoint.CHAT, "prompt": Endpoint.COMPLETIONS, "input": Endpoint.EMBEDDINGS}


class Impossible(GatewayError):
    """The change cannot be made, and why: 400 what was asked makes no sense, 404 there is no such thing, 409 taken."""

    type = "invalid_request_error"

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def _path(config: Config) -> Path:
    return Path(config.counters.removeprefix("sqlite:///"))


@contextmanager
def store(config: Config) -> Iterator[sqlite3.Connection]:
    """Made where there is none. Raises StoreUnavailable."""
    path = _path(config)
    try:
        with closing(connect(path, busy_seconds=BUSY)) as connection:
            yield connection
    except (sqlite3.Error, OSError) as error:
        raise _unavailable(path, error) from error


def _created(config: Config) -> list[StoredKey]:
    return _looked_up(config, keys.stored)


def _rows(config: Config) -> list[Row]:
    return _looked_up(config, lambda connection: counters.rows(connection, time.time()))


def _looked_up(config: Config, read: Callable[[sqlite3.Connection], list[T]]) -> list[T]:
    """Who only looks makes no file, and brings none up to date: a gateway of an older release may be at work on it.

    Raises StoreUnavailable.
    """
    path = _path(config)
    if not path.exists():
        return []
    try:
        with closing(connect_read_only(path)) as connection:
            return read(connection) if readable_version(connection) >= ACCOUNTS_SINCE else []
    except (sqlite3.Error, OSError) as error:
        raise _unavailable(path, error) from error


def _unavailable(path: Path, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"the store {path} cannot be opened: {error}")


# Keys.


def create_key(config: Config, written: Mapping[str, object], change: Change) -> str:
    """`written`: as a key in routes.yaml, without its value. Returns the value, which is kept nowhere.

    Raises Impossible, StoreUnavailable.
    """
    try:
        checked = KeySettings.model_validate(written)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise Impossible("; ".join(problems), status=400) from None
    if any(key.principal.key == checked.name for key in config.keys):
        raise Impossible(f"{config.path.name} has a key called {checked.name}", status=409)
    expires = None if checked.expires is None else checked.expires.timestamp()
    if expires is not None and expires <= change.at:
        raise Impossible(f"expires: {written['expires']} is past, so the key would open nothing", status=400)
    value, digest = _new()
    settings = {name: value for name, value in written.items() if name not in ("name", "expires")}
    try:
        with store(config) as connection:
            keys.create(connection, StoredKey(digest, checked.name, settings, change.at, expires), change)
    except KeyTaken:
        message = f"a key called {checked.name} opens already; `rotate` gives it a new value, `revoke` ends it"
        raise Impossible(message, status=409) from None
    return value


def rotate_key(config: Config, overlap: float, change: Change) -> str:
    """A new value; the old one opens for `overlap` seconds more. Raises Impossible, StoreUnavailable."""
    value, digest = _new()
    with _of_a_key(config, change.subject) as connection:
        keys.rotate(connection, change.subject, digest, change.at + overlap, change)
    return value


def revoke_key(config: Config, change: Change) -> int:
    """How many values it ended. Raises Impossible, StoreUnavailable."""
    with _of_a_key(config, change.subject) as connection:
        return keys.revoke(connection, change.subject, change)


def list_keys(config: Config, *, all: bool) -> list[dict[str, object]]:
    """Those of the file and the created ones; `all`: also those that open nothing any more."""
    now = time.time()
    rows: list[dict[str, object]] = []
    for declared in config.keys:
        who, state = declared.principal, _state(declared.expires, now)
        rows.append({"name": who.key, "state": state, "from": config.path.name, "team": who.team})
    for key in _created(config):
        state = "revoked" if key.revoked is not None else _state(key.ends, now)
        rows.append({"name": key.name, "state": state, "from": "created", **key.settings})
    return [row for row in rows if all or not str(row["state"]).startswith(("revoked", "expired"))]


@contextmanager
def _of_a_key(config: Config, name: str) -> Iterator[sqlite3.Connection]:
    try:
        with store(config) as connection:
            yield connection
    except NoSuchKey:
        if any(key.principal.key == name for key in config.keys):
            raise Impossible(f"the key {name} stands in {config.path.name}: change it there", status=409) from None
        raise Impossible(f"no created key called {name} is in force", status=404) from None


def _new() -> tuple[str, bytes]:
    """A value of 256 random bits, and its digest, which is all that is kept."""
    value = PREFIX + secrets.token_urlsafe(32)
    return value, hashlib.sha256(value.encode()).digest()


def _state(expires: datetime.datetime | None, now: float) -> str:
    if expires is None:
        return "opens"
    word = "expired" if expires.timestamp() <= now else "opens until"
    return f"{word} {expires.isoformat(timespec='minutes')}"


# Budgets.


def list_budgets(config: Config) -> list[dict[str, object]]:
    """One entry for each account that was used in its window, and for each budget without `per`."""
    now = time.time()
    budgets = _budgets(config, _created(config))
    periods = Periods()
    used = {row.account: row for row in _rows(config)}
    for budget in budgets.values():
        if not budget.per:
            touch = periods.touch(budget, "", now)
            used.setdefault(touch.account, Row(touch.account, touch.ends, 0, 0))
    return [_standing(row, budgets.get(account.budget)) for account, row in sorted(used.items())]


def starting_anew(config: Config) -> list[str]:
    """For people: what was spent in windows that go on, and does not count any more as the file has changed since.

    Looks only, and without a store that can be read there is nothing to say.
    """
    now, periods = time.time(), Periods()
    budgets = {budget.name: budget for budget in config.rules.budgets}
    try:
        with closing(connect_read_only(_path(config))) as connection:
            used = counters.rows(connection, now)
    except sqlite3.Error:
        return []
    found = []
    for row in used:
        budget = budgets.get(row.account.budget)
        if budget is None or not row.settled:
            continue
        per, _, scope = row.account.scope.partition(" ")
        as_now = periods.touch(budget, scope, now).account
        if as_now.window == row.account.window and per == (budget.per or ALL):
            continue
        spent = f"{dollars(row.settled)} USD of {row.account.scope} in {row.account.window}"
        found.append(
            f"budget {budget.name} starts anew: its window, timezone or `per` was another, and {spent} do not count"
        )
    return found


def amount(written: object) -> int:
    """Nano-USD of what somebody wrote, by which an account is to be changed. Raises Impossible."""
    if isinstance(written, str | int | Decimal) and not isinstance(written, bool):
        with contextlib.suppress(InvalidOperation, ValueError):
            by = Decimal(written)
            if abs(by) <= MOST_USD:
                return int(by * NANO_PER_USD)
    raise Impossible(f"by_usd must be an amount in USD, at most {MOST_USD} either way", status=400)


def reason_of(written: str) -> str:
    """Why somebody changes something, as the audit trail can keep it. Raises Impossible."""
    try:
        written.encode()
    except UnicodeEncodeError:
        raise Impossible("the reason is no text: it holds half a character", status=400) from None
    if len(written) > MOST_REASON or "\0" in written:
        raise Impossible(f"the reason must be a text of at most {MOST_REASON} characters", status=400)
    return written


def change_budget(config: Config, scope: str, by: int | None, change: Change) -> dict[str, object]:
    """Adds `by` nano-USD to what is settled in the window in force; None: it begins at nothing again.

    `scope`: what the `per` of the budget is worth; empty where it has none. Raises Impossible, StoreUnavailable.
    """
    if not change.reason.strip():
        raise Impossible("say the reason: it is kept in the audit trail", status=400)
    with store(config) as connection:
        budgets = _budgets(config, keys.stored(connection))
        budget = budgets.get(change.subject)
        if budget is None:
            known = ", ".join(sorted(budgets)) or "none"
            raise Impossible(f"there is no budget {change.subject!r}; there are: {known}", status=404)
        if bool(budget.per) != bool(scope):
            wanted = f"is `per: {budget.per}`: say the scope" if budget.per else "has no `per`: leave the scope out"
            raise Impossible(f"{change.subject} {wanted}", status=400)
        if not (scope.isprintable() and len(scope) <= MAX_USER):
            raise Impossible(f"a scope is at most {MAX_USER} printable characters", status=400)
        touch = Periods().touch(budget, scope, time.time())
        before, after = counters.change(
            connection, touch.account, touch.ends, lambda settled: 0 if by is None else settled + by, change
        )
    account = touch.account._asdict()
    return {**account, "before_usd": before / NANO_PER_USD, "settled_usd": after / NANO_PER_USD}


def _budgets(config: Config, created: Sequence[StoredKey]) -> dict[str, Budget]:
    """By name; of the file, of its keys and of the created ones."""
    own = [budget for key in config.keys for budget in key.principal.budgets]
    own += [budget for key in created if key.settings.get("budget") for budget in principal(settings_of(key)).budgets]
    return {budget.name: budget for budget in (*own, *config.rules.budgets)}


def _standing(row: Row, budget: Budget | None) -> dict[str, object]:
    limit = None if budget is None else budget.limit_nano
    ends = None if row.ends == math.inf else datetime.datetime.fromtimestamp(row.ends, datetime.UTC).isoformat()
    return {
        "budget": row.account.budget,
        "scope": row.account.scope,
        "window": row.account.window,
        "settled_usd": row.settled / NANO_PER_USD,
        "held_usd": row.held / NANO_PER_USD,
        "limit_usd": None if limit is None else limit / NANO_PER_USD,
        "left_usd": None if limit is None else (limit - row.settled - row.held) / NANO_PER_USD,
        "ends": ends,
    }


# Decisions.


class Decision(NamedTuple):
    call: Call
    plan: Plan
    principal: Principal
    balances: Mapping[Account, Balance]

    def balance(self, account: Account) -> Balance:
        return self.balances.get(account, Balance())


def decide(config: Config, key: str, headers: Sequence[tuple[bytes, bytes]], body: bytes, signals: Signals) -> Decision:
    """What a request would lead to, under the budgets as they stand; `key`: the name of its key, empty for none.

    Raises what serving raises, and Impossible.
    """
    who = _holder(config, key) if key else Principal()
    call = parse(_endpoint(body), headers, body, CODEC)
    rules = config.rules
    task = classify(call, rules.tasks, known=rules.known_tasks)
    balances: dict[Account, Balance] = {}
    if rules.budgets or who.budgets:
        balances = {row.account: Balance(row.settled, row.held) for row in _rows(config)}
        touched = rules.guards.touched(call, task, who, time.time())
        signals = signals._replace(touched=touched, settled=lambda account: balances.get(account, Balance()).settled)
    return Decision(call, plan(rules, call, task, who, signals), who, balances)


def holders(config: Config, stored: Config) -> dict[str, Principal]:
    """Every key that a file declares or that was created, whether it opens or not, by name.

    `stored`: the configuration whose store holds the created ones.
    """
    known = {key.principal.key: key.principal for key in config.keys}
    return {key.name: principal(settings_of(key)) for key in _created(stored)} | known


def _holder(config: Config, name: str) -> Principal:
    now = datetime.datetime.now(datetime.UTC)
    known = {key.principal.key: (key.principal, key.expires) for key in config.keys}
    for key in _created(config):
        if key.opens(now.timestamp()):
            known[key.name] = (principal(settings_of(key)), None)
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise Impossible(f"no key that opens is called {name!r}; there are: {there}", status=404)
    who, expires = known[name]
    if expires is not None and expires <= now:
        raise Impossible(f"the key {name!r} expired at {expires.isoformat()}", status=404)
    return who


def _endpoint(body: bytes) -> Endpoint:
    """By the member that holds the content; what cannot be read is left for `parse` to refuse."""
    try:
        members = CODEC.members(body)
    except ValueError:
        return Endpoint.CHAT
    return next((endpoint for member, endpoint in EXPLAINED.items() if member in members), Endpoint.CHAT)
