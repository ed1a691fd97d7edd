"""Reading a SQLite ledger back, in pages: memory stays flat, and no long read lets the write-ahead log grow."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from gateway.core.record import AttemptRecord, Record
from gateway.core.usage import Usage
from gateway.stores.columns import ATTEMPT_COLUMNS, ATTEMPTS, REQUEST_COLUMNS, REQUESTS, names
from gateway.stores.schema import connect_read_only

PAGE = 500

SELECT_REQUESTS = f"SELECT {names(REQUEST_COLUMNS)} FROM requests"  # noqa: S608 - our own names
SELECT_ATTEMPTS = f"SELECT request_id, {names(ATTEMPT_COLUMNS)} FROM attempts"  # noqa: S608 - our own names

# A request of which a part has no price adds no baseline, as in the metrics (contract section 5).
HAS_BASELINE = "r.baseline_model IS NOT NULL AND r.outcome = 'ok' AND NOT r.unpriced"

SUM_REQUESTS = f"""
SELECT count(*), coalesce(sum(r.cost_nano), 0), coalesce(sum(r.baseline_nano) FILTER (WHERE {HAS_BASELINE}), 0)
FROM requests AS r"""  # noqa: S608 - our own names
SUM_ATTEMPTS = """
SELECT count(*), coalesce(sum(cost_nano), 0), coalesce(sum(input_tokens), 0), coalesce(sum(cached_input_tokens), 0),
       coalesce(sum(cache_write_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(reasoning_tokens), 0)
FROM attempts"""


class Sums(NamedTuple):
    """What a whole ledger adds up to. Money in nano-USD."""

    requests: int
    cost_nano: int  # by request
    baseline_nano: int
    attempts: int
    attempts_cost_nano: int  # by attempt: the same, or something is wrong
    tokens: Usage  # of all attempts: what was billed


def read_requests(
    path: Path,
    *,
    since: float | None = None,
    until: float | None = None,
    ids: Iterable[str] | None = None,
    attempts: bool = False,
) -> Iterator[Record]:
    """Requests that started in [since, until) (unix seconds), oldest first; or only `ids`, a page of them at a time.

    `Record.attempts` is empty unless `attempts` is set. Rows that are written meanwhile may or may not be seen. Raises
    sqlite3.Error where there is no such file or it is no ledger.
    """
    low = _micros(since, default=-(1 << 62))
    high = _micros(until, default=1 << 62)
    with closing(connect_read_only(path)) as connection:
        pages = _by_time(connection, low, high) if ids is None else _by_id(connection, low, high, ids)
        for page in pages:
            tried = _attempts(connection, [record.id for record in page]) if attempts else {}
            for record in page:
                yield record._replace(attempts=tuple(tried[record.id])) if record.id in tried else record


PICKED = (
    "id",
    "route",
    "task",
    "model",
    "provider",
    "team",
    "key",
    "user",
    "outcome",
    "rejection",
    "trace_id",
)
"""Columns by which `latest` can pick."""


def latest(dsn: str, most: int, where: Mapping[str, str]) -> list[dict[str, object]]:
    """The newest requests whose columns are worth what `where` says, as the ledger's columns name them.

    Raises KeyError for a column that is not in PICKED, sqlite3.Error as `read_requests`.
    """
    for name in where:
        if name not in PICKED:
            raise KeyError(name)
    path = Path(dsn.removeprefix("sqlite:///"))
    conditions = " AND ".join(f'"{name}" = ?' for name in where) or "1"
    query = f"{SELECT_REQUESTS} WHERE {conditions} ORDER BY started DESC, id DESC LIMIT ?"
    with closing(connect_read_only(path)) as connection:
        found = connection.execute(query, (*where.values(), most))
        columns = [column[0] for column in found.description]
        return [dict(zip(columns, row, strict=True)) for row in found]


def sums(path: Path) -> Sums:
    """Requests and attempts of the same moment. Raises sqlite3.Error as `read_requests` does."""
    with closing(connect_read_only(path)) as connection:
        connection.execute("BEGIN")
        requests, cost, baseline = connection.execute(SUM_REQUESTS).fetchone()
        attempts, attempts_cost, *tokens = connection.execute(SUM_ATTEMPTS).fetchone()
        connection.execute("ROLLBACK")
    return Sums(requests, cost, baseline, attempts, attempts_cost, Usage(*tokens))


def _by_time(connection: sqlite3.Connection, low: int, high: int) -> Iterator[list[Record]]:
    query = (
        f"{SELECT_REQUESTS} WHERE (started, id) > (?, ?) AND started >= ? AND started < ? ORDER BY started, id LIMIT ?"
    )
    after = (low, "")
    while page := _records(connection.execute(query, (*after, low, high, PAGE))):
        yield page
        after = (_micros(page[-1].started, default=low), page[-1].id)


def _by_id(connection: sqlite3.Connection, low: int, high: int, ids: Iterable[str]) -> Iterator[list[Record]]:
    remaining = iter(ids)
    while wanted := list(itertools.islice(remaining, PAGE)):
        query = (
            f"{SELECT_REQUESTS} WHERE id IN ({_marks(wanted)}) AND started >= ? AND started < ? ORDER BY started, id"
        )
        yield _records(connection.execute(query, (*wanted, low, high)))


def _records(rows: Iterable[tuple[object, ...]]) -> list[Record]:
    return [Record(**REQUESTS.fields(row), attempts=()) for row in rows]


def _attempts(connection: sqlite3.Connection, ids: list[str]) -> dict[str, list[AttemptRecord]]:
    found: dict[str, list[AttemptRecord]] = {}
    query = f"{SELECT_ATTEMPTS} WHERE request_id IN ({_marks(ids)}) ORDER BY request_id, number"
    for request_id, *row in connection.execute(query, ids):
        found.setdefault(request_id, []).append(AttemptRecord(**ATTEMPTS.fields(row)))
    return found


def _marks(values: list[str]) -> str:
    return ",".join("?" * len(values))


def _micros(seconds: float | None, *, default: int) -> int:
    return default if seconds is None else round(seconds * 1e6)
