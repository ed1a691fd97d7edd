"""Figures computed from the rows of a ledger alone, the plain way: what dashboards must agree with."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Row = Mapping[str, Any]
Figures = Mapping[tuple[str, ...], float]
"""By the values of some labels; () is the key of a figure without any."""

TYPES = ("input", "cached_input", "cache_write", "output", "reasoning")


class Choice(NamedTuple):
    """What the variables of a dashboard are set to; empty: All."""

    team: str = ""
    route: str = ""
    model: str = ""
    budget: str = ""

    def takes(self, row: Row, *labels: str) -> bool:
        return all(getattr(self, label) in ("", row[label]) for label in labels)


PLACE, ALL = ("team", "route"), ("team", "route", "model")


class Ledger(NamedTuple):
    requests: Sequence[Row]
    attempts: Sequence[Row]  # with their request's route, task and team
    held: Mapping[tuple[str, str], int]  # budget and scope -> nano-USD

    @classmethod
    def read(cls, path: Path, log: str) -> Ledger:
        """Where a request has no team, route or model, metrics say `none`. Wrong keys have no row: the log has them."""
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row

            def rows(query: str) -> list[Row]:
                return [_named(dict(row)) for row in connection.execute(query)]

            requests = rows("SELECT * FROM requests ORDER BY started")
            attempts = rows(
                "SELECT a.*, r.route, r.task, r.team FROM attempts a JOIN requests r ON r.id = a.request_id "
                "ORDER BY r.started, a.request_id, a.number"
            )
            held = rows("SELECT budget, scope, sum(nano) AS nano FROM budget_holds GROUP BY 1, 2")
        blank = dict.fromkeys(requests[0], None) | dict.fromkeys(_NAMES, "none") | {"lines_dropped": 0}
        strangers = [
            {
                **blank,
                "outcome": "rejected",
                "rejection": "auth",
                "overhead": said["overhead_seconds"],
                "duration": said["duration_seconds"],
            }
            for said in map(json.loads, (line for line in log.splitlines() if '"status":401' in line))
        ]
        scopes = {(row["budget"], row["scope"].partition(" ")[2] or row["scope"]): row["nano"] for row in held}
        return cls([*strangers, *requests], attempts, scopes)

    def finished(self, choice: Choice, by: Sequence[str] = (), labels: Sequence[str] = ALL, **where: str) -> Figures:
        """Requests."""
        return _sum(self.requests, _one, by, lambda row: choice.takes(row, *labels) and _is(row, where))

    def cost(self, choice: Choice, by: Sequence[str] = (), labels: Sequence[str] = ALL, **where: str) -> Figures:
        """USD of attempts."""
        return _sum(
            self.attempts,
            _usd,
            by,
            lambda row: choice.takes(row, *labels) and _is(row, where),
        )

    def wasted(self, choice: Choice, by: Sequence[str] = ()) -> Figures:
        """USD of attempts that were not the answer."""
        return _sum(
            self.attempts,
            _usd,
            by,
            lambda row: choice.takes(row, *ALL) and row["purpose"] != "answer",
        )

    def baseline(self, choice: Choice, by: Sequence[str] = ()) -> Figures:
        """USD; of answered requests whose price is known (contract section 5)."""

        def counts(row: Row) -> bool:
            return (
                choice.takes(row, *PLACE)
                and row["outcome"] == "ok"
                and bool(row["baseline_model"])
                and not row["unpriced"]
            )

        return _sum(self.requests, lambda row: row["baseline_nano"] / 1e9, by, counts)

    def tokens(self, choice: Choice, by: Sequence[str] = ()) -> Figures:
        typed = [{**row, "type": kind, "tokens": row[f"{kind}_tokens"]} for row in self.attempts for kind in TYPES]
        return _sum(typed, lambda row: row["tokens"], by, lambda row: choice.takes(row, *ALL))

    def tries(self, choice: Choice, by: Sequence[str] = (), *, failed: bool = False) -> Figures:
        """Attempts, of all routes and teams."""

        def counts(row: Row) -> bool:
            return choice.takes(row, "model") and not (failed and row["result"] in ("ok", "relayed", "cancelled"))

        return _sum(self.attempts, _one, by, counts)

    def estimated(self, choice: Choice) -> Figures:
        marked = [row for row in self.attempts if row["usage_estimated"]]
        return _sum(marked, _one, ["model"], lambda row: choice.takes(row, "model"))

    def unpriced(self, choice: Choice) -> Figures:
        marked = [row for row in self.requests if row["unpriced"]]
        return _sum(marked, _one, ["model"], lambda row: choice.takes(row, "model"))

    def lines_dropped(self, choice: Choice) -> Figures:
        return _sum(self.requests, lambda row: row["lines_dropped"], ["model"], lambda row: choice.takes(row, "model"))

    def fallbacks(self, choice: Choice, by: Sequence[str] = ()) -> Figures:
        """Moves from a model to another because of a failure."""
        moves = [
            {
                "route": taken["route"],
                "from": left["model"],
                "to": taken["model"],
                "reason": taken["reason"],
                "model": left["model"],
            }
            for left, taken in _pairs(self.attempts)
            if left["model"] != taken["model"] and taken["reason"] not in ("first", "retry", "hedge")
        ]
        return _sum(moves, _one, by, lambda row: choice.takes(row, "route", "model"))

    def hedges(self, choice: Choice, by: Sequence[str] = (), **where: str) -> Figures:
        hedges = (row for row in self.attempts if row["reason"] == "hedge")
        made = [{**row, "won": str(row["result"] == "ok").lower()} for row in hedges]
        return _sum(made, _one, by, lambda row: choice.takes(row, "route") and _is(row, where))

    def settled(self, choice: Choice) -> Figures:
        """USD by budget and scope: what attempts were charged to it. `teams` is one account for each team."""
        charged = [
            {**row, "budget": name, "scope": row["team"] if name == "teams" else "all"}
            for row in self.attempts
            for name in _list(row["budgets"])
        ]
        return _sum(charged, _usd, ["budget", "scope"], lambda row: choice.takes(row, "budget"))

    def overrun(self, choice: Choice, by: Sequence[str] = ()) -> Figures:
        """USD that attempts were billed above what was held for them."""
        charged = [
            {**row, "budget": name}
            for row in self.attempts
            if row["reserved_nano"] is not None
            for name in _list(row["budgets"])
        ]
        return _sum(
            charged,
            lambda row: max(0, row["cost_nano"] - row["reserved_nano"]) / 1e9,
            by,
            lambda row: choice.takes(row, "budget"),
        )

    def rejections(self) -> Figures:
        """By reason."""
        return _sum(self.requests, _one, ["rejection"], lambda row: bool(row["rejection"]))

    def refused(self, choice: Choice, by: Sequence[str] = ()) -> Figures:
        marked = [row for row in self.requests if row["rejection"] == "budget"]
        return _sum(marked, _one, by, lambda row: choice.takes(row, "budget"))


def _named(row: Row) -> Row:
    return {name: "none" if value is None and name in _NAMES else value for name, value in row.items()}


def _usd(row: Row) -> float:
    return float(row["cost_nano"] / 1e9)


def _one(_: Row) -> int:
    return 1


_NAMES = {"route", "task", "team", "model", "provider"}


def over(left: Figures, right: Figures) -> Figures:
    """Quotients, where the divisor is above 0."""
    return {key: left.get(key, 0) / value for key, value in right.items() if value > 0}


def minus(left: Figures, right: Figures) -> Figures:
    return {key: left.get(key, 0) - right.get(key, 0) for key in {*left, *right}}


def times(factor: float, figures: Figures) -> Figures:
    return {key: factor * value for key, value in figures.items()}


def quantiles(q: float, bounds: Sequence[float], found: Iterable[tuple[tuple[str, ...], float]]) -> Figures:
    """As Prometheus reads a histogram: linear within the bucket that holds the rank. Found: labels and seconds."""
    observed: dict[tuple[str, ...], list[float]] = {}
    for key, seconds in found:
        observed.setdefault(key, []).append(seconds)
    return {key: _quantile(q, bounds, values) for key, values in observed.items()}


def _quantile(q: float, bounds: Sequence[float], values: list[float]) -> float:
    rank, low, below = q * len(values), 0.0, 0
    for bound in bounds:
        up_to = sum(value <= bound for value in values)
        if up_to >= rank:
            return low + (bound - low) * (rank - below) / (up_to - below)
        low, below = bound, up_to
    return bounds[-1]


def _sum(
    rows: Iterable[Row], value: Callable[[Row], float], by: Sequence[str], counts: Callable[[Row], bool]
) -> Figures:
    total: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        if counts(row):
            total[tuple(row[label] for label in by)] += value(row)  # type: ignore[assignment]  # a float is a number too
    return total


def _is(row: Row, where: Mapping[str, str]) -> bool:
    return all(row[name] in value.split("|") for name, value in where.items())


def _pairs(attempts: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    for left, taken in itertools.pairwise(attempts):
        if left["request_id"] == taken["request_id"]:
            yield left, taken


def _list(text: str | None) -> list[str]:
    return [name.strip('" ') for name in (text or "[]").strip("[]").split(",") if name.strip()]
