"""Answers that may be given again, in a SQLite file of their own: it may be deleted at any time, and needs no copy."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.core.caching import Kept
from gateway.errors import StoreUnavailable
from gateway.stores.schema import connect, transaction

MOST_BYTES = 256 * 1024 * 1024  # of all answers together; beyond, the ones that end first go
BUSY = 1.0  # seconds that a write waits for another process's
PRUNE_EVERY = 500  # writes, or so many bytes of them:
PRUNE_BYTES = 16 * 1024 * 1024

MIGRATIONS = (
    (
        """CREATE TABLE answers (
            key BLOB NOT NULL PRIMARY KEY, expires INTEGER NOT NULL, size INTEGER NOT NULL, content_type TEXT NOT NULL,
            model TEXT NOT NULL, provider TEXT NOT NULL, hosting TEXT NOT NULL, cost_nano INTEGER NOT NULL,
            body BLOB NOT NULL)""",
        "CREATE INDEX answers_by_expiry ON answers (expires, size)",
    ),
)


class SqliteCache:
    """Implements `gateway.stores.base.AnswerCache`. Belongs to one thread. Raises StoreUnavailable."""

    def __init__(self, dsn: str, *, most_bytes: int = MOST_BYTES) -> None:
        self.path = Path(dsn.removeprefix("sqlite:///"))
        self._most_bytes = most_bytes
        self._writes = PRUNE_EVERY  # since the last look for what has to go: the first write looks
        self._written = 0
        with self._unavailable():
            self._connection = connect(self.path, busy_seconds=BUSY, migrations=MIGRATIONS)

    def get(self, key: bytes, now: float) -> Kept | None:
        query = (
            "SELECT content_type, body, model, provider, hosting, cost_nano FROM answers WHERE key = ? AND expires > ?"
        )
        with self._unavailable():
            row = self._connection.execute(query, [key, _micros(now)]).fetchone()
        return Kept(*row) if row else None

    def put(self, key: bytes, kept: Kept, now: float, ttl: float) -> None:
        row = (key, _micros(now + ttl), len(kept.body), kept.content_type, kept.model, kept.provider, kept.hosting)
        query = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        with self._unavailable(), transaction(self._connection):
            self._connection.execute(query, [*row, kept.cost_nano, kept.body])
            self._writes += 1
            self._written += len(kept.body)
            if self._writes > PRUNE_EVERY or self._written > PRUNE_BYTES:
                self._prune(_micros(now))
                self._writes = self._written = 0

    def close(self) -> None:
        self._connection.close()

    def _prune(self, now: int) -> None:
        self._connection.execute("DELETE FROM answers WHERE expires <= ?", [now])
        (size,) = self._connection.execute("SELECT coalesce(sum(size), 0) FROM answers").fetchone()
        if size > self._most_bytes:
            query = """DELETE FROM answers WHERE key IN (SELECT key FROM (
                SELECT key, sum(size) OVER (ORDER BY expires, key) - size AS before FROM answers) WHERE before < ?)"""
            self._connection.execute(query, [size - self._most_bytes])

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"the cache in {self.path} cannot be read or written: {error}") from error


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)
