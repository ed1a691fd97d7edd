"""Adding up a ledger: SQLite groups, a stretch of requests at a time, so that memory and locks stay small.

Cost and tokens are of attempts, and belong to the model that was asked. Baseline, savings and outcomes are of requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from gateway.core.reporting import OUTCOMES, Group
from gateway.stores.reader import HAS_BASELINE
from gateway.stores.schema import connect_read_only

STRETCH = 50_000  # requests
MICROS = 1_000_000


class Dimension(NamedTuple):
    of_request: str  # SQL on `r`, a request
    of_attempt: str = ""  # SQL on `a`, where an attempt has one of its own


def _own(name: str) -> Dimension:
    return Dimension(f"coalesce(r.{name}, '')", f"a.{name}")


def _asked(name: str) -> Dimension:
    return Dimension(f"coalesce(r.{name}, '')")


DIMENSIONS: Mapping[str, Dimension] = {
    "team": _asked("team"),
    "key": _asked("key"),
    "user": _asked('"user"'),
    "task": _asked("task"),
    "route": _asked("route"),
    "model": _own("model"),
    "provider": _own("provider"),
    "hosting": _own("hosting"),
    # Of a request: the answer's.
    "purpose": Dimension("CASE r.outcome WHEN 'ok' THEN 'answer' ELSE '' END", "a.purpose"),
    "outcome": _asked("outcome"),
    "day": Dimension("strftime('%Y-%m-%d', r.started / 1000000, 'unixepoch')"),
    "hour": Dimension("strftime('%Y-%m-%dT%H:00Z', r.started / 1000000, 'unixepoch')"),
    "tag": Dimension("t.value"),
}
"""What a report can be grouped by. Days and hours are UTC; a request with two tags is in both groups."""

_TAGS = " JOIN json_each(CASE r.tags WHEN '[]' THEN '[\"\"]' ELSE r.tags END) AS t"
_WHERE = " WHERE r.started >= ? AND r.started < ?"
_OUTCOMES = ", ".join(f"count(*) FILTER (WHERE r.outcome = '{name}')" for name in OUTCOMES)
_REQUESTS = f"""count(*), {_OUTCOMES}, sum(CASE WHEN {HAS_BASELINE} THEN r.baseline_nano ELSE 0 END),
    sum(CASE WHEN {HAS_BASELINE} THEN max(0, r.baseline_nano - r.cost_nano) ELSE 0 END),
    sum(CASE WHEN {HAS_BASELINE} THEN max(0, r.cost_nano - r.baseline_nano) ELSE 0 END), sum(r.unpriced)"""
_ATTEMPTS = """count(*), sum(a.cost_nano), sum(a.input_tokens), sum(a.cached_input_tokens), sum(a.cache_write_tokens),
    sum(a.output_tokens), sum(a.reasoning_tokens), sum(a.usage_estimated)"""


class Summary:
    """`groups` by the values of the dimensions; `total` of everything once; `charged` by model and hosting."""

    def __init__(self, by: Sequence[str]) -> None:
        self.by = tuple(by)
        self.groups: dict[tuple[str, ...], Group] = {}
        self.total = Group()
        self.charged: dict[tuple[str, str], int] = {}

    def group(self, values: tuple[str, ...]) -> Group:
        found = self.groups.get(values)
        if found is None:
            found = self.groups[values] = Group()
        return found


class Summing:
    """A ledger opened for adding up. Raises sqlite3.Error where there is no such file or it is no ledger."""

    def __init__(self, path: Path) -> None:
        self._connection = connect_read_only(path)

    def close(self) -> None:
        self._connection.close()

    def count(self, since: float, until: float) -> int:
        query = "SELECT count(*) FROM requests WHERE started >= ? AND started < ?"
        return int(self._all(query, since * MICROS, until * MICROS)[0][0])

    def first(self) -> float | None:
        """When the oldest request of all began, unix seconds."""
        found = self._all("SELECT min(started) FROM requests")[0][0]
        return None if found is None else found / MICROS

    def sum(self, summary: Summary, since: float, until: float) -> Iterator[int]:
        """Adds the requests of [since, until), unix seconds, to a summary; yields how many were added, bit by bit."""
        for low, high in self._stretches(round(since * MICROS), round(until * MICROS)):
            self._connection.execute("BEGIN")  # requests and attempts of the same moment
            try:
                yield self._add(summary, low, high)
            finally:
                self._connection.execute("ROLLBACK")

    def _stretches(self, low: int, until: int) -> Iterator[tuple[int, int]]:
        query = "SELECT started FROM requests WHERE started >= ? AND started < ? ORDER BY started LIMIT 1 OFFSET ?"
        while low < until:
            found = self._all(query, low, until, STRETCH)
            # Requests of one microsecond are never parted.
            high = max(found[0][0], low + 1) if found else until
            yield low, high
            low = high

    def _add(self, summary: Summary, low: int, high: int) -> int:
        tags = "tag" in summary.by
        added = 0
        for row in self._all(_of_requests(summary.by), low, high):
            values, figures = row[: len(summary.by)], row[len(summary.by) :]
            _add_requests(summary.group(values), figures)
            if not tags:
                _add_requests(summary.total, figures)
                added += figures[0]
        for row in self._all(_of_attempts(summary.by), low, high):
            values, (purpose, model, hosting, *figures) = row[: len(summary.by)], row[len(summary.by) :]
            _add_attempts(summary.group(values), purpose, hosting, figures)
            if not tags:
                _add_total(summary, purpose, (model, hosting), figures)
        if tags:  # a request may be in several groups, or their sum would do
            for figures in self._all(_of_requests(()), low, high):
                _add_requests(summary.total, figures)
                added += figures[0]
            for purpose, model, hosting, *figures in self._all(_of_attempts(()), low, high):
                _add_total(summary, purpose, (model, hosting), figures)
        return added

    def _all(self, query: str, *given: float) -> list[Any]:
        with closing(self._connection.execute(query, given)) as cursor:
            return cursor.fetchall()


def _of_requests(by: Sequence[str]) -> str:
    names = [DIMENSIONS[name].of_request for name in by]
    return _query([*names, _REQUESTS], "requests AS r" + (_TAGS if "tag" in by else ""), len(names))


def _of_attempts(by: Sequence[str]) -> str:
    names = [DIMENSIONS[name].of_attempt or DIMENSIONS[name].of_request for name in by]
    names += ["a.purpose", "a.model", "a.hosting"]
    tables = "requests AS r JOIN attempts AS a ON a.request_id = r.id" + (_TAGS if "tag" in by else "")
    return _query([*names, _ATTEMPTS], tables, len(names))


def _query(columns: Sequence[str], tables: str, grouped: int) -> str:
    """Without a GROUP BY there would be a row of NULLs for nothing."""
    by = " GROUP BY " + ", ".join(map(str, range(1, grouped + 1))) if grouped else " HAVING count(*)"
    return f"SELECT {', '.join(columns)} FROM {tables}{_WHERE}{by}"  # noqa: S608 - our own names


def _add_requests(group: Group, figures: Sequence[int]) -> None:
    requests, *rest = figures
    group.requests += requests
    for name, count in zip(OUTCOMES, rest, strict=False):
        group.outcomes[name] += count
    baseline, savings, extra, unpriced = rest[len(OUTCOMES) :]
    group.baseline += baseline
    group.savings += savings
    group.extra += extra
    group.unpriced += unpriced


def _add_attempts(group: Group, purpose: str, hosting: str, figures: Sequence[int]) -> None:
    attempts, cost, *tokens, estimated = figures
    group.attempts += attempts
    group.cost += cost
    group.purposes[purpose] = group.purposes.get(purpose, 0) + cost
    group.self_hosted += cost if hosting == "self" else 0
    group.tokens = [before + more for before, more in zip(group.tokens, tokens, strict=True)]
    group.estimated += estimated


def _add_total(summary: Summary, purpose: str, who: tuple[str, str], figures: Sequence[int]) -> None:
    """`who`: model and hosting."""
    _add_attempts(summary.total, purpose, who[1], figures)
    summary.charged[who] = summary.charged.get(who, 0) + figures[1]
