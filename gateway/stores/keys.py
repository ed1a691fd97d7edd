"""Keys made with `gateway keys create`: their digests and settings, never their values.

Every change gets the next revision, so that a gateway that looks twice a second asks for one number.
"""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from gateway.stores import audit
from gateway.stores.audit import Change
from gateway.stores.schema import transaction

Settings = Mapping[str, object]
"""As `gateway.config.schema_spending.KeySettings` writes them."""


LAST = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC).timestamp()


class StoredKey(NamedTuple):
    sha256: bytes
    name: str
    settings: Settings
    created: float  # unix seconds
    expires: float | None = None  # from then on it opens nothing
    revoked: float | None = None  # likewise

    @property
    def ends(self) -> datetime.datetime | None:
        """`expires` as a date. What lies beyond the calendar is its last second: whatever is stored can be shown."""
        if self.expires is None:
            return None
        return datetime.datetime.fromtimestamp(min(max(self.expires, 0.0), LAST), datetime.UTC)

    def opens(self, now: float) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)


class KeyTaken(Exception):
    """A key of that name opens already."""


class NoSuchKey(Exception):
    """No key of that name opens."""


def create(connection: sqlite3.Connection, key: StoredKey, change: Change) -> None:
    """Raises KeyTaken."""
    with transaction(connection):
        if _open(connection, key.name, change.at):
            raise KeyTaken(key.name)
        _put(connection, key)
        audit.write(connection, change._replace(after=_told(key)))


def revoke(connection: sqlite3.Connection, name: str, change: Change) -> int:
    """From now on no key of that name opens. Returns how many did. Raises NoSuchKey."""
    with transaction(connection):
        found = _open(connection, name, change.at)
        if not found:
            raise NoSuchKey(name)
        for key in found:
            _put(connection, key._replace(revoked=change.at))
        audit.write(connection, change._replace(before=_told(found[-1]), after={"revoked": True}))
    return len(found)


def rotate(connection: sqlite3.Connection, name: str, sha256: bytes, ends: float, change: Change) -> StoredKey:
    """A new value for a key; the old one opens until `ends` (unix seconds). Raises NoSuchKey."""
    with transaction(connection):
        found = _open(connection, name, change.at)
        if not found:
            raise NoSuchKey(name)
        latest = found[-1]
        for key in found:
            _put(connection, key._replace(expires=ends if key.expires is None else min(ends, key.expires)))
        made = latest._replace(sha256=sha256, created=change.at)
        _put(connection, made)
        audit.write(connection, change._replace(before=_told(latest), after=_told(made)))
    return made


def stored(connection: sqlite3.Connection) -> list[StoredKey]:
    """All that were ever made, oldest first."""
    query = "SELECT sha256, name, settings, created, expires, revoked FROM keys ORDER BY created, revision"
    return [_row(*row) for row in connection.execute(query)]


def revision(connection: sqlite3.Connection) -> int:
    """Changes with every change; 0 where no key was ever made."""
    (newest,) = connection.execute("SELECT max(revision) FROM keys").fetchone()
    return int(newest or 0)


def _open(connection: sqlite3.Connection, name: str, now: float) -> list[StoredKey]:
    return [key for key in stored(connection) if key.name == name and key.opens(now)]


def _put(connection: sqlite3.Connection, key: StoredKey) -> None:
    times = (None if at is None else round(at * 1e6) for at in (key.created, key.expires, key.revoked))
    connection.execute(
        "INSERT OR REPLACE INTO keys (sha256, name, settings, created, expires, revoked, revision) "
        "VALUES (?, ?, ?, ?, ?, ?, (SELECT coalesce(max(revision), 0) + 1 FROM keys))",
        [key.sha256, key.name, json.dumps(dict(key.settings), default=float), *times],
    )


def _row(sha256: bytes, name: str, settings: str, created: int, expires: int | None, revoked: int | None) -> StoredKey:
    times = (None if at is None else at / 1e6 for at in (expires, revoked))
    return StoredKey(sha256, name, json.loads(settings, parse_float=Decimal), created / 1e6, *times)


def _told(key: StoredKey) -> dict[str, object]:
    return {**key.settings, "sha256_begins": key.sha256.hex()[:8], "expires_at": key.expires}
