"""A ledger's rows as plain tuples in pages, for whoever reads millions of them (`core.recorded` names the fields).

Each page is a query of its own: memory stays flat, and no long read lets the write-ahead log grow.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from gateway.core.recorded import Row, Tried
from gateway.stores.schema import connect_read_only

PAGE = 2000
_IDS = 500  # in one query
MICROS = 1_000_000


_DECIDED = "endpoint <> 'passthrough'"  # what was let through was not decided on, and cannot be anew


class History:
    """A ledger opened for reading. Raises sqlite3.Error where there is no such file or it is no ledger."""

    def __init__(self, path: Path) -> None:
        self._connection = connect_read_only(path)
        try:
            rows = [name for name in Row._fields if name != "id"]
            there = self._columns("requests")
            self._select = f"SELECT id, {_listed(rows, there)} FROM requests"  # noqa: S608 - our own names
            there = self._columns("attempts")
            self._tried = f"SELECT {_listed(Tried._fields, there)} FROM attempts"  # noqa: S608 - our own names
        except BaseException:  # whatever it is goes on; the file must not stay open behind it
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def count(self, since: float, until: float) -> int:
        """Requests that began in [since, until), unix seconds."""
        query = f"SELECT count(*) FROM requests WHERE started >= ? AND started < ? AND {_DECIDED}"  # noqa: S608 - ours
        return int(self._one(query, since, until) or 0)

    def first(self) -> float | None:
        """When the oldest request began, unix seconds; None where there is none."""
        with closing(self._connection.execute("SELECT min(started) FROM requests")) as cursor:
            found = cursor.fetchone()[0]
        return None if found is None else found / MICROS

    def pages(self, since: float, until: float) -> Iterator[list[Row]]:
        """Oldest first."""
        within = f"(started, id) > (?, ?) AND started < ? AND {_DECIDED}"
        query = f"{self._select} WHERE {within} ORDER BY started, id LIMIT ?"
        low, high = _micros(since), _micros(until)
        after: tuple[int, str] = (low - 1, "\U0010ffff")
        while True:
            page = list(map(Row._make, self._connection.execute(query, (*after, high, PAGE))))
            if not page:
                return
            yield page
            after = (page[-1].started, page[-1].id)

    def attempts(self, ids: Sequence[str]) -> Mapping[str, list[Tried]]:
        """By request, in the order of their ends."""
        found: dict[str, list[Tried]] = {}
        for start in range(0, len(ids), _IDS):
            some = ids[start : start + _IDS]
            marks = ",".join("?" * len(some))
            query = f"{self._tried} WHERE request_id IN ({marks}) ORDER BY request_id, number"
            for each in map(Tried._make, self._connection.execute(query, some)):
                found.setdefault(each.request_id, []).append(each)
        return found

    def usual(self, since: float, until: float) -> dict[str, tuple[int, int]]:
        """By task: the mean of an answer's output and reasoning tokens, of answers that have some."""
        query = """SELECT coalesce(task, ''), avg(output_tokens), avg(reasoning_tokens) FROM requests
            WHERE started >= ? AND started < ? AND outcome = 'ok' AND output_tokens + reasoning_tokens > 0 GROUP BY 1"""
        with closing(self._connection.execute(query, (_micros(since), _micros(until)))) as cursor:
            return {task: (round(output), round(reasoning)) for task, output, reasoning in cursor}

    def _one(self, query: str, since: float, until: float) -> Any:  # noqa: ANN401 - SQLite can give anything
        with closing(self._connection.execute(query, (_micros(since), _micros(until)))) as cursor:
            return cursor.fetchone()[0]

    def _columns(self, table: str) -> frozenset[str]:
        found = frozenset(row[1] for row in self._connection.execute(f"PRAGMA table_info({table})"))
        if not found:
            raise sqlite3.DatabaseError(f"no table {table}: this is no ledger")
        return found


def _listed(names: Sequence[str], there: frozenset[str]) -> str:
    """A file that no newer gateway has opened yet lacks columns: they are empty."""
    return ", ".join(f'"{name}"' if name in there else f'NULL AS "{name}"' for name in names)


def _micros(seconds: float) -> int:
    return max(-(1 << 62), min(1 << 62, round(seconds * MICROS)))
