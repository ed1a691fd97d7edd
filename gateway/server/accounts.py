"""How the budgets stand, for the metrics: read from the store by the process that shows them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from gateway.core.budgets import began
from gateway.stores.counters import Row, rows
from gateway.stores.schema import connect
from gateway.telemetry.events import BudgetBalance, BudgetBalances, Event

LOOK = 0.8  # seconds: metrics lag by at most one (contract section 5)
BUSY = 1.0  # seconds that a look waits for a writer


async def watch_accounts(dsn: str, emit: Callable[[Event], None]) -> None:
    """Looks for ever. A store that cannot be read leaves the balances as they were: `Spending` says what is wrong."""
    path = Path(dsn.removeprefix("sqlite:///"))
    while True:
        with suppress(sqlite3.Error, OSError):
            emit(BudgetBalances(await asyncio.to_thread(_read, path)))
        await asyncio.sleep(LOOK)


def _read(path: Path) -> tuple[BudgetBalance, ...]:
    with closing(connect(path, busy_seconds=BUSY)) as connection:
        found = rows(connection, time.time())
    return tuple(_balance(row) for row in found)


def _balance(row: Row) -> BudgetBalance:
    account = row.account
    return BudgetBalance(account.budget, account.scope, row.settled, row.held, began(account.window), row.ends)
