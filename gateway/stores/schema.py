"""The SQLite ledger's file: opening it, its schema, and how older files are brought up to date."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from gateway.stores.columns import ATTEMPT_COLUMNS, REQUEST_COLUMNS, create

STRICT_SINCE = (3, 37)  # https://sqlite.org/stricttables.html
_STRICT = " STRICT" if sqlite3.sqlite_version_info >= STRICT_SINCE else ""
_STRICT_WITHOUT_ROWID = f"{_STRICT}, WITHOUT ROWID" if _STRICT else " WITHOUT ROWID"

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (  # 1: the first schema
        create("requests", "", REQUEST_COLUMNS, 'PRIMARY KEY ("id")', _STRICT),
        "CREATE INDEX requests_by_time ON requests (started, id)",
        "CREATE INDEX requests_by_team ON requests (team, started)",
        "CREATE INDEX requests_by_model ON requests (model, started)",
        create(
            "attempts",
            '"request_id" TEXT NOT NULL, "number" INTEGER NOT NULL',
            ATTEMPT_COLUMNS,
            'PRIMARY KEY ("request_id", "number")',
            _STRICT_WITHOUT_ROWID,
        ),
    ),
    # 2: added({"requests": REQUEST_COLUMNS, "attempts": ATTEMPT_COLUMNS}, 2), and so on. Never change an older one.
)
"""What brings a file from version n (its place, from 0) to n + 1. PRAGMA user_version holds a file's version."""


class NewerSchema(sqlite3.Error):
    """The file was written by a later release of the gateway."""


def connect(path: Path, *, busy_seconds: float, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> sqlite3.Connection:
    """A connection that may write, to a file that is up to date; made with mode 0600 where there is none.

    Several processes may do this at once. Raises sqlite3.Error, or OSError where the file cannot be made.
    """
    _make_private(path)
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    try:
        _use_wal(connection, busy_seconds)
        connection.execute("PRAGMA synchronous = NORMAL")
        migrate(connection, migrations)
    except BaseException:  # whatever it is goes on; the file must not stay open, and locked, behind it
        connection.close()
        raise
    return connection


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Raises sqlite3.Error where there is no such file or it is no ledger."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5, isolation_level=None)


def migrate(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Applies what is missing, in one transaction: a file is never half way."""
    if _version(connection) == len(migrations):
        return
    with transaction(connection):
        version = _version(connection)  # again, under the lock: another process may have been first
        if version > len(migrations):
            raise NewerSchema(f"schema version {version}, but this release knows versions up to {len(migrations)}")
        for statements in migrations[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing. Takes the write lock first: a lock taken half way could not be waited for (SQLITE_BUSY)."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:  # all or nothing holds for an interrupt too; it goes on after the rollback
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    with closing(connection.execute("PRAGMA user_version")) as cursor:
        return int(cursor.fetchone()[0])


def _make_private(path: Path) -> None:
    """O_EXCL: to close a file that is a database already would drop this process's locks (sqlite.org/howtocorrupt)."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return


def _use_wal(connection: sqlite3.Connection, seconds: float) -> None:
    """Several processes may switch at once; SQLite reports "locked" then without waiting for the busy timeout."""
    locked = retry_if_exception(lambda error: isinstance(error, sqlite3.OperationalError) and "locked" in str(error))
    for attempt in Retrying(retry=locked, wait=wait_random(0.005, 0.05), stop=stop_after_delay(seconds), reraise=True):
        with attempt:
            connection.execute("PRAGMA journal_mode = WAL")
