"""Who changed what, when, and why: one row for each change made by hand, at the command line or the admin API."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

Told = Mapping[str, object] | None


class Change(NamedTuple):
    """`who`: "cli:ada", "admin:127.0.0.1". `what`: "keys.create". Neither `before` nor `after` holds a secret."""

    at: float  # unix seconds
    who: str
    what: str
    subject: str  # a key's or a budget's name
    before: Told = None
    after: Told = None
    reason: str = ""


def write(connection: sqlite3.Connection, change: Change) -> None:
    """Within the transaction that makes the change: there is none without its row."""
    connection.execute(
        "INSERT INTO audit (at, who, what, subject, before, after, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            round(change.at * 1e6),
            *(change.who, change.what, change.subject),
            *map(_written, (change.before, change.after)),
            change.reason or None,
        ],
    )


def read(connection: sqlite3.Connection, most: int = 100) -> list[Change]:
    """The latest, newest first."""
    query = "SELECT at, who, what, subject, before, after, reason FROM audit ORDER BY id DESC LIMIT ?"
    return [
        Change(at / 1e6, who, what, subject, _told(before), _told(after), reason or "")
        for at, who, what, subject, before, after, reason in connection.execute(query, [most])
    ]


def _written(told: Told) -> str | None:
    return None if told is None else json.dumps(dict(told), default=float)


def _told(text: str | None) -> Told:
    return None if text is None else dict(json.loads(text))
