"""Budgets in SQLite: what is settled in each account, and what each process holds of it (tables: `schema.py`).

Every function works in one transaction that takes the write lock first, so that what several processes do comes one
after the other, and `settled + held <= limit` holds after each of them. An **owner** is a process; its holds end when
it has not been heard of for `TTL` seconds, and are then charged in full, because nobody can say what its calls have
cost. If it turns out to live, that charge is taken back, and what its calls really cost takes its place.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from gateway.core.budgets import MOST_USERS, OTHER, Account
from gateway.core.pricing import NANO_PER_USD
from gateway.core.purse import FEW, Granted, Report, Seen, Shortage, Update, Want
from gateway.errors import StoreUnavailable
from gateway.stores import audit
from gateway.stores.audit import Change
from gateway.stores.base import LostOwnerError
from gateway.stores.schema import connect, transaction

BUSY = 5.0  # seconds that a transaction waits for another process's
TTL = 10.0  # seconds without a sign of life until an owner's holds are charged
KEPT_DAYS = 90  # that an account is kept after its window has ended
USER = "user "  # begins the scopes of `per: user`

_SECOND = 1_000_000  # times are unix microseconds
_DAY = 86_400 * _SECOND
_WHERE = "WHERE budget = ? AND scope = ? AND period = ?"


class SqliteCounters:
    """Implements `gateway.stores.base.Counters`. Belongs to one thread. Raises StoreUnavailable."""

    def __init__(self, dsn: str) -> None:
        """`dsn`: like `sqlite:////var/lib/gateway/gateway.db`."""
        self.path = Path(dsn.removeprefix("sqlite:///"))
        with self._unavailable():
            self._connection = connect(self.path, busy_seconds=BUSY)

    def sync(self, owner: str, now: float, told: tuple[Sequence[Update], Sequence[Want]], *, anew: bool) -> Report:
        with self._unavailable():
            return sync(self._connection, owner, now, told, anew=anew)

    def leave(self, owner: str) -> None:
        with self._unavailable():
            leave(self._connection, owner)

    def prune(self, now: float) -> None:
        with self._unavailable():
            prune(self._connection, now)

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"the budgets in {self.path} cannot be read or written: {error}") from error


def sync(
    connection: sqlite3.Connection,
    owner: str,
    now: float,
    told: tuple[Sequence[Update], Sequence[Want]],
    *,
    anew: bool,
) -> Report:
    """Settles and re-holds what `told` says, then grants what it wants. `now`: unix seconds.

    `anew`: the updates are all that the owner has; whatever it was charged for is taken back. Raises LostOwnerError
    where that is needed and was not said, sqlite3.Error where nothing was done.
    """
    updates, wants = told
    with transaction(connection):
        _expire(connection, owner, _micros(now))
        _renew(connection, owner, _micros(now + TTL), anew=anew)
        accounts = _Accounts(connection, owner)
        for update in updates:
            accounts.update(update)
        aliases: dict[Account, Account] = {}
        for want in wants:
            _find_aliases(connection, want, aliases)
        answers = [accounts.answer(want, aliases) for want in wants]
        crossed, known = _crossings(connection, accounts, updates, now)
        accounts.write()
    return Report(accounts.seen(), answers, crossed, known, aliases)


def leave(connection: sqlite3.Connection, owner: str) -> None:
    """The owner ends: what it still holds is given back. It has settled everything before."""
    with transaction(connection):
        connection.execute("DELETE FROM budget_holds WHERE owner = ?", [owner])
        connection.execute("DELETE FROM budget_owners WHERE owner = ?", [owner])


def prune(connection: sqlite3.Connection, now: float) -> None:
    """Forgets windows that ended long ago, and charges that nobody will take back any more."""
    old = _micros(now) - KEPT_DAYS * _DAY
    with transaction(connection):
        connection.execute(
            "DELETE FROM budget_crossings WHERE (budget, scope, period) IN "
            "(SELECT budget, scope, period FROM budget_accounts WHERE ends < ?)",
            [old],
        )
        connection.execute("DELETE FROM budget_accounts WHERE ends < ?", [old])
        connection.execute("DELETE FROM budget_charged WHERE at < ?", [_micros(now) - _DAY])


class Row(NamedTuple):
    """An account as lists and metrics show it. Nano-USD."""

    account: Account
    ends: float  # unix seconds
    settled: int
    held: int


def rows(connection: sqlite3.Connection, now: float) -> list[Row]:
    """Accounts whose window has not ended."""
    query = """
    SELECT a.budget, a.scope, a.period, a.ends, a.settled_nano, coalesce(sum(h.nano), 0)
    FROM budget_accounts AS a LEFT JOIN budget_holds AS h USING (budget, scope, period)
    WHERE a.ends IS NULL OR a.ends > ? GROUP BY a.budget, a.scope, a.period ORDER BY a.budget, a.scope, a.period"""
    found = connection.execute(query, [_micros(now)])
    return [Row(Account(*row[:3]), math.inf if row[3] is None else row[3] / _SECOND, *row[4:]) for row in found]


def change(
    connection: sqlite3.Connection, account: Account, ends: float, to: Callable[[int], int], told: Change
) -> tuple[int, int]:
    """Makes of what is settled what `to` says, never less than nothing; `told` goes into the audit trail with it.

    Returns what was settled before and is now, nano-USD.
    """
    with transaction(connection):
        _open(connection, account, ends)
        (before,) = connection.execute(f"SELECT settled_nano FROM budget_accounts {_WHERE}", account).fetchone()  # noqa: S608 - ours
        after = max(0, to(before))
        connection.execute(f"UPDATE budget_accounts SET settled_nano = ? {_WHERE}", [after, *account])  # noqa: S608 - ours
        about = {"scope": account.scope, "window": account.window}
        states = [{**about, "settled_usd": nano / NANO_PER_USD} for nano in (before, after)]
        audit.write(connection, told._replace(before=states[0], after=states[1]))
    return before, after


class _Accounts:
    """The accounts of one transaction: each is read once and written once."""

    def __init__(self, connection: sqlite3.Connection, owner: str) -> None:
        self._connection = connection
        self._owner = owner
        self._settled: dict[Account, int] = {}
        self._others: dict[Account, int] = {}
        self._own: dict[Account, int] = {}
        self._before: dict[Account, tuple[int, int]] = {}
        self._ends: dict[Account, float] = {}
        self._leased: set[Account] = set()

    def update(self, update: Update) -> None:
        self._read(update.account, update.ends)
        self._settled[update.account] += update.spent
        self._own[update.account] = update.hold

    def answer(self, want: Want, aliases: Mapping[Account, Account]) -> Granted | Shortage:
        for need in want.needs:
            if need.account in aliases:
                return Shortage(need.account, spent=False)  # the process asks again, by the other name
            self._read(need.account, need.ends)
            settled, left = self.settled(need.account), need.limit - self._gone(need.account)
            if need.nano > left:
                return Shortage(need.account, spent=settled + want.ceiling > need.limit)
        granted = []
        for need in want.needs:
            left = need.limit - self._gone(need.account)
            lease = 0
            if need.nano and left >= FEW * want.ceiling and need.account not in self._leased:
                lease = left // FEW
                self._leased.add(need.account)  # one for the process, not one for each call that waits
            grant = min(need.nano + lease, left) if need.nano else 0
            self._own[need.account] += grant
            granted.append(grant)
        return Granted(tuple(granted))

    def settled(self, account: Account) -> int:
        return self._settled[account]

    def seen(self) -> dict[Account, Seen]:
        return {
            account: Seen(settled, self._others[account] + self._own[account])
            for account, settled in self._settled.items()
        }

    def write(self) -> None:
        for account, (settled, own) in self._before.items():
            if self._settled[account] == settled and self._own[account] == own:
                continue
            _open(self._connection, account, self._ends[account])
            if self._settled[account] != settled:
                query = f"UPDATE budget_accounts SET settled_nano = ? {_WHERE}"  # noqa: S608 - ours
                self._connection.execute(query, [self._settled[account], *account])
            if self._own[account]:
                query = (
                    "INSERT OR REPLACE INTO budget_holds (budget, scope, period, owner, nano) VALUES (?, ?, ?, ?, ?)"
                )
                self._connection.execute(query, [*account, self._owner, self._own[account]])
            else:
                query = f"DELETE FROM budget_holds {_WHERE} AND owner = ?"  # noqa: S608 - ours
                self._connection.execute(query, [*account, self._owner])

    def _gone(self, account: Account) -> int:
        return self._settled[account] + self._others[account] + self._own[account]

    def _read(self, account: Account, ends: float) -> None:
        if account in self._settled:
            return
        query = f"SELECT settled_nano FROM budget_accounts {_WHERE}"  # noqa: S608 - ours
        row = self._connection.execute(query, account).fetchone()
        query = f"SELECT owner, nano FROM budget_holds {_WHERE}"  # noqa: S608 - ours
        holds = dict(self._connection.execute(query, account).fetchall())
        own = holds.pop(self._owner, 0)
        self._settled[account] = row[0] if row else 0
        self._others[account] = sum(holds.values())
        self._own[account] = own
        self._before[account] = (self._settled[account], own)
        self._ends[account] = ends


def _open(connection: sqlite3.Connection, account: Account, ends: float) -> None:
    query = "INSERT OR IGNORE INTO budget_accounts (budget, scope, period, ends, settled_nano) VALUES (?, ?, ?, ?, 0)"
    connection.execute(query, [*account, None if math.isinf(ends) else _micros(ends)])


def _renew(connection: sqlite3.Connection, owner: str, expires: int, *, anew: bool) -> None:
    if connection.execute("UPDATE budget_owners SET expires = ? WHERE owner = ?", [expires, owner]).rowcount:
        return
    if not anew:
        raise LostOwnerError
    connection.execute("INSERT INTO budget_owners (owner, expires) VALUES (?, ?)", [owner, expires])
    charged = connection.execute("SELECT nano, budget, scope, period FROM budget_charged WHERE owner = ?", [owner])
    for nano, *account in charged.fetchall():
        query = f"UPDATE budget_accounts SET settled_nano = max(0, settled_nano - ?) {_WHERE}"  # noqa: S608 - ours
        connection.execute(query, [nano, *account])
    connection.execute("DELETE FROM budget_charged WHERE owner = ?", [owner])


def _expire(connection: sqlite3.Connection, owner: str, now: int) -> None:
    """Charges the holds of owners that are not heard of. A time far ahead is of a clock that was set back since."""
    far = now + 3 * round(TTL * _SECOND)
    query = "SELECT owner FROM budget_owners WHERE owner <> ? AND (expires < ? OR expires > ?)"
    for (gone,) in connection.execute(query, [owner, now, far]).fetchall():
        holds = connection.execute("SELECT nano, budget, scope, period FROM budget_holds WHERE owner = ?", [gone])
        for nano, *account in holds.fetchall():
            query = f"UPDATE budget_accounts SET settled_nano = settled_nano + ? {_WHERE}"  # noqa: S608 - ours
            connection.execute(query, [nano, *account])
            connection.execute(
                "INSERT INTO budget_charged (owner, budget, scope, period, nano, at) VALUES (?, ?, ?, ?, ?, ?)",
                [gone, *account, nano, now],
            )
        connection.execute("DELETE FROM budget_holds WHERE owner = ?", [gone])
        connection.execute("DELETE FROM budget_owners WHERE owner = ?", [gone])


def _find_aliases(connection: sqlite3.Connection, want: Want, aliases: dict[Account, Account]) -> None:
    """Users beyond the most that a budget tells apart share one account."""
    for need in want.needs:
        account = need.account
        if not account.scope.startswith(USER) or account.scope == USER + OTHER or account in aliases:
            continue
        query = f"SELECT 1 FROM budget_accounts {_WHERE}"  # noqa: S608 - ours
        if connection.execute(query, account).fetchone():
            continue
        query = "SELECT count(*) FROM budget_accounts WHERE budget = ? AND period = ?"
        (users,) = connection.execute(query, [account.budget, account.window]).fetchone()
        if users >= MOST_USERS:
            aliases[account] = account._replace(scope=USER + OTHER)


def _crossings(
    connection: sqlite3.Connection, accounts: _Accounts, updates: Iterable[Update], now: float
) -> tuple[list[tuple[Account, int]], list[tuple[Account, int]]]:
    """(crossed just now and nowhere before, crossed at some time)"""
    fresh: list[tuple[Account, int]] = []
    known: list[tuple[Account, int]] = []
    for update in updates:
        for percent in update.percents:
            if accounts.settled(update.account) * 100 < percent * update.limit:
                continue
            query = "INSERT OR IGNORE INTO budget_crossings (budget, scope, period, percent, at) VALUES (?, ?, ?, ?, ?)"
            if connection.execute(query, [*update.account, percent, _micros(now)]).rowcount:
                fresh.append((update.account, percent))
            known.append((update.account, percent))
    return fresh, known


def _micros(seconds: float) -> int:
    return round(seconds * _SECOND)
