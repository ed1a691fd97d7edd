"""The SQLite ledger's file: opening it, its schema, and how older files are brought up to date."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from gateway.stores.columns import ATTEMPT_COLUMNS, REQUEST_COLUMNS, added, create

STRICT_SINCE = (3, 37)  # https://sqlite.org/stricttables.html
_STRICT = " STRICT" if sqlite3.sqlite_version_info >= STRICT_SINCE else ""
_KEYED = f"{_STRICT}, WITHOUT ROWID" if _STRICT else " WITHOUT ROWID"

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
            _KEYED,
        ),
    ),
    (  # 2: budgets, keys and the audit trail; which replica an attempt was for
        *added({"requests": REQUEST_COLUMNS, "attempts": ATTEMPT_COLUMNS}, 2),
        f"""CREATE TABLE budget_accounts (
            budget TEXT NOT NULL, scope TEXT NOT NULL, period TEXT NOT NULL, ends INTEGER,
            settled_nano INTEGER NOT NULL, PRIMARY KEY (budget, period, scope)){_KEYED}""",
        f"CREATE TABLE budget_owners (owner TEXT NOT NULL PRIMARY KEY, expires INTEGER NOT NULL){_KEYED}",
        f"""CREATE TABLE budget_holds (
            budget TEXT NOT NULL, scope TEXT NOT NULL, period TEXT NOT NULL, owner TEXT NOT NULL,
            nano INTEGER NOT NULL, PRIMARY KEY (budget, scope, period, owner)){_KEYED}""",
        "CREATE INDEX budget_holds_by_owner ON budget_holds (owner)",
        f"""CREATE TABLE budget_charged (
            owner TEXT NOT NULL, budget TEXT NOT NULL, scope TEXT NOT NULL, period TEXT NOT NULL,
            nano INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (owner, budget, scope, period)){_KEYED}""",
        f"""CREATE TABLE budget_crossings (
            budget TEXT NOT NULL, scope TEXT NOT NULL, period TEXT NOT NULL, percent INTEGER NOT NULL,
            at INTEGER NOT NULL, PRIMARY KEY (budget, scope, period, percent)){_KEYED}""",
        f"""CREATE TABLE keys (
            sha256 BLOB NOT NULL PRIMARY KEY, name TEXT NOT NULL, settings TEXT NOT NULL, created INTEGER NOT NULL,
            expires INTEGER, revoked INTEGER, revision INTEGER NOT NULL){_KEYED}""",
        "CREATE INDEX keys_by_name ON keys (name)",
        "CREATE INDEX keys_by_revision ON keys (revision)",
        f"""CREATE TABLE audit (
            id INTEGER PRIMARY KEY, at INTEGER NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, subject TEXT NOT NULL,
            before TEXT, after TEXT, reason TEXT){_STRICT}""",
    ),
    # 3: what else decides on a request, so that it can be decided anew
    added({"requests": REQUEST_COLUMNS, "attempts": ATTEMPT_COLUMNS}, 3),
    # 4: service tiers, and tokens of sound and images
    added({"requests": REQUEST_COLUMNS, "attempts": ATTEMPT_COLUMNS}, 4),
    (  # 5: traces, and what was said where a route keeps that
        *added({"requests": REQUEST_COLUMNS, "attempts": ATTEMPT_COLUMNS}, 5),
        "CREATE INDEX requests_by_trace ON requests (trace_id) WHERE trace_id IS NOT NULL",
        f"""CREATE TABLE content (
            request_id TEXT NOT NULL PRIMARY KEY, at INTEGER NOT NULL, expires INTEGER NOT NULL,
            prompt TEXT NOT NULL, prompt_bytes INTEGER NOT NULL, answer TEXT NOT NULL, answer_bytes INTEGER NOT NULL,
            redacted INTEGER NOT NULL){_KEYED}""",
        "CREATE INDEX content_by_expiry ON content (expires)",
    ),
    # 6: answers that were given again
    added({"requests": REQUEST_COLUMNS, "attempts": ATTEMPT_COLUMNS}, 6),
    # 7: added(..., 7), and so on. Never change an older one.
)
"""What brings a file from version n (its place, from 0) to n + 1. PRAGMA user_version holds a file's version."""

ACCOUNTS_SINCE = 2  # the version that has budgets, keys and the audit trail


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


def readable_version(connection: sqlite3.Connection) -> int:
    """Which schema a file has, 0 where it is empty. Raises NewerSchema, as `migrate` does, and sqlite3.Error."""
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise NewerSchema(_newer(version, MIGRATIONS))
    return version


def migrate(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Applies what is missing, in one transaction: a file is never half way."""
    if _version(connection) == len(migrations):
        return
    with transaction(connection):
        version = _version(connection)  # again, under the lock: another process may have been first
        if version > len(migrations):
            raise NewerSchema(_newer(version, migrations))
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


def _newer(version: int, known: Sequence[Sequence[str]]) -> str:
    return f"schema version {version}, but this release knows versions up to {len(known)}"


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
