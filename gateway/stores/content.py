"""What was said, where a route keeps that: a table of its own beside the rows, each with the time of its end."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from gateway.config.redact import redact
from gateway.core.capture import kept
from gateway.core.record import Record
from gateway.stores.columns import SqlValue
from gateway.stores.schema import connect, connect_read_only

INSERT = "INSERT OR IGNORE INTO content VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
PRUNED_AT_ONCE = 500  # rows: a transaction that others wait for must be short
BUSY = 5.0  # seconds


class Kept(NamedTuple):
    request_id: str
    at: float  # unix seconds
    expires: float
    prompt: str
    prompt_bytes: int  # as the client sent it
    answer: str
    answer_bytes: int
    redacted: int  # secrets that were taken out


def row(record: Record) -> list[SqlValue]:
    """Redacts, so it is for the writer's thread. `record.content` is there."""
    content = record.content
    assert content is not None
    most = content.capture.max_bytes
    prompt, in_prompt = kept(content.prompt, most, redact)
    answer, in_answer = kept(content.answer, most, redact)
    ended = record.started + record.duration
    return [
        *(record.id, round(record.started * 1e6), round((ended + content.capture.keep) * 1e6)),
        *(prompt, content.prompt.size, answer, content.answer.size, in_prompt + in_answer),
    ]


def read(path: Path, request_id: str, now: float) -> Kept | None:
    """None where nothing was kept, or no longer. Raises sqlite3.Error."""
    query = "SELECT * FROM content WHERE request_id = ? AND expires > ?"
    with closing(connect_read_only(path)) as connection:
        found = connection.execute(query, (request_id, round(now * 1e6))).fetchone()
    if found is None:
        return None
    request, at, expires, *rest = found
    return Kept(request, at / 1e6, expires / 1e6, *rest)


def prune(path: Path, now: float) -> int:
    """Deletes what has had its time, from the file's pages too; how much it was. Raises sqlite3.Error."""
    pruned = 0
    query = "DELETE FROM content WHERE request_id IN (SELECT request_id FROM content WHERE expires <= ? LIMIT ?)"
    with closing(connect(path, busy_seconds=BUSY)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        while True:
            gone = connection.execute(query, (round(now * 1e6), PRUNED_AT_ONCE)).rowcount
            pruned += gone
            if gone < PRUNED_AT_ONCE:
                return pruned
