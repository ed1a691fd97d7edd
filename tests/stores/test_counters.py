"""The store's rules, one at a time: leases, the dead, users without number, and what is forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.core.budgets import MOST_USERS, OTHER, Account
from gateway.core.purse import Granted, Need, Report, Shortage, Update, Want
from gateway.stores.base import LostOwnerError
from gateway.stores.counters import KEPT_DAYS, TTL, USER, prune, rows, sync
from gateway.stores.schema import connect

NOW = 1_800_000_000.0
ENDS = NOW + 3600
ACCOUNT = Account("b", "all", "hour x")
DAY = 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(tmp_path / "gateway.db", busy_seconds=1)) as connection:
        yield connection


def ask(
    store: sqlite3.Connection, owner: str, nano: int, limit: int, *, account: Account = ACCOUNT, now: float = NOW
) -> Report:
    """A call with a ceiling of `nano`, of a process that has said nothing before or is known."""
    want = Want((Need(account, ENDS, limit, nano),), nano)
    try:
        return sync(store, owner, now, ([], [want]), anew=False)
    except LostOwnerError:
        return sync(store, owner, now, ([], [want]), anew=True)


def tell(store: sqlite3.Connection, owner: str, spent: int, hold: int, now: float, *, anew: bool = False) -> None:
    sync(store, owner, now, ([Update(ACCOUNT, ENDS, 10**6, (), spent, hold)], []), anew=anew)


def balance(store: sqlite3.Connection, now: float = NOW) -> tuple[int, int]:
    (row,) = [row for row in rows(store, now) if row.account == ACCOUNT]
    return row.settled, row.held


@pytest.mark.parametrize(
    ("limit", "granted"),
    [
        (10, 10),
        (999, 10),  # 99.9 ceilings are left
        (1000, 20),  # a hundred: one in a hundred of what is left is lent
        (100_000, 1010),
    ],
)
def test_no_lease_where_fewer_than_a_hundred_ceilings_are_left(
    store: sqlite3.Connection, limit: int, granted: int
) -> None:
    assert ask(store, "one", 10, limit).answers == [Granted((granted,))]
    assert balance(store) == (0, granted)


def test_what_does_not_fit_is_refused_and_says_whether_it_is_spent(store: sqlite3.Connection) -> None:
    assert ask(store, "one", 60, 100).answers == [Granted((60,))]
    assert ask(store, "two", 60, 100).answers == [Shortage(ACCOUNT, spent=False)], "held: it may come back"
    tell(store, "one", 60, 0, NOW)
    assert ask(store, "two", 60, 100).answers == [Shortage(ACCOUNT, spent=True)]


def test_a_live_process_renews_what_it_holds(store: sqlite3.Connection) -> None:
    """A call may take longer than a process has to say that it lives."""
    ask(store, "one", 60, 100)
    for step in range(1, 5):
        tell(store, "one", 0, 60, NOW + step * TTL * 0.8)
        ask(store, "two", 1, 100, now=NOW + step * TTL * 0.8)
    settled, held = balance(store)
    assert (settled, held) == (0, 64)


def test_what_the_dead_held_is_charged_in_full_and_taken_back_if_they_live(store: sqlite3.Connection) -> None:
    ask(store, "one", 60, 100)
    ask(store, "two", 1, 100, now=NOW + TTL - 1)
    assert balance(store) == (0, 61)
    late = NOW + 2 * TTL - 2
    ask(store, "two", 1, 100, now=late)
    assert balance(store) == (60, 2)
    with pytest.raises(LostOwnerError):
        tell(store, "one", 25, 0, late)
    tell(store, "one", 25, 0, late, anew=True)
    assert balance(store) == (25, 2), "what the call has really cost takes the place of its ceiling"


def test_a_clock_that_was_set_back_keeps_nobody_alive_for_ever(store: sqlite3.Connection) -> None:
    ask(store, "one", 60, 100)
    ask(store, "two", 1, 100, now=NOW - 3600)
    assert balance(store) == (60, 1)


def test_users_beyond_ten_thousand_share_one_account(store: sqlite3.Connection) -> None:
    """`user` may be the client's own word: it must not fill the disk."""
    known = [("b", f"{USER}{number}", "hour x", round(ENDS * 10**6), 5) for number in range(MOST_USERS)]
    store.executemany("INSERT INTO budget_accounts VALUES (?, ?, ?, ?, ?)", known)
    shared = Account("b", USER + OTHER, "hour x")
    for name in ("new", "newer"):
        account = Account("b", USER + name, "hour x")
        report = ask(store, "one", 10, 100, account=account)
        assert report.aliases == {account: shared}
        assert report.answers == [Shortage(account, spent=False)], "it asks again, by the other name"
    assert ask(store, "one", 10, 100, account=shared).answers == [Granted((10,))]
    known_one = ask(store, "one", 10, 100, account=Account("b", f"{USER}7", "hour x"))
    assert (known_one.aliases, known_one.answers) == ({}, [Granted((10,))])
    (users,) = store.execute("SELECT count(*) FROM budget_accounts").fetchone()
    assert users == MOST_USERS + 1


def test_windows_are_kept_for_ninety_days(store: sqlite3.Connection) -> None:
    ask(store, "one", 60, 100)
    prune(store, ENDS + (KEPT_DAYS - 1) * DAY)
    assert len(rows(store, NOW)) == 1
    prune(store, ENDS + (KEPT_DAYS + 1) * DAY)
    assert rows(store, NOW) == []
