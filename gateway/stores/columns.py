"""The ledger's two tables as lists of columns: whatever writes, reads or migrates a ledger is derived from them.

A field that is added to `Record` later is added here once, as a `Column` with the `since` of a new schema version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from gateway.core.record import AttemptRecord, Record
from gateway.core.usage import More, Usage

SqlValue = str | int | float | None


class Kind(NamedTuple):
    """How a field is kept: its SQL type, and the way there and back. None: as it is."""

    sql: Literal["TEXT NOT NULL", "TEXT", "INTEGER NOT NULL", "INTEGER", "REAL NOT NULL", "REAL"]
    store: Callable[[Any], SqlValue] | None = None
    load: Callable[[Any], Any] | None = None


def _none_if_empty(value: str | int) -> str | int | None:
    return value or None


def _store_list(values: Iterable[str]) -> str:
    return json.dumps(list(values), ensure_ascii=False, separators=(",", ":"))


def _load_list(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def _store_more(more: More | None) -> str | None:
    if more is None:
        return None
    return json.dumps({name: value for name, value in more._asdict().items() if value}, separators=(",", ":"))


def _load_more(text: str | None) -> More | None:
    return None if text is None else More(**json.loads(text))


TEXT = Kind("TEXT NOT NULL")
TEXT_OR_NULL = Kind("TEXT", _none_if_empty, lambda value: value or "")  # empty means "none" in a Record
LIST = Kind("TEXT NOT NULL", _store_list, _load_list)  # a JSON array, for SQLite's json_each
LIST_OR_NULL = Kind(
    "TEXT", lambda values: _store_list(values) if values else None, lambda text: _load_list(text or "[]")
)
WHOLE = Kind("INTEGER NOT NULL")
WHOLE_OR_NULL = Kind("INTEGER")
STATUS_OR_NULL = Kind("INTEGER", _none_if_empty, lambda value: value or 0)
ONE_OR_MORE = Kind("INTEGER", load=lambda value: value or 1)
FLAG_OR_NULL = Kind("INTEGER", int, bool)
FLAG = Kind("INTEGER NOT NULL", int, bool)
SECONDS = Kind("REAL NOT NULL", float)
SECONDS_OR_NULL = Kind("REAL", lambda value: None if value is None else float(value))
UNIX_MICROSECONDS = Kind("INTEGER NOT NULL", lambda seconds: round(seconds * 1e6), lambda micros: micros / 1e6)


class Column(NamedTuple):
    name: str
    kind: Kind
    path: str = ""  # of the field, dotted; empty: the same as `name`
    since: int = 1  # the schema version that brought it; a later one must allow NULL

    @property
    def field(self) -> str:
        return self.path or self.name


USAGE_COLUMNS = (
    Column("input_tokens", WHOLE, "usage.input"),
    Column("cached_input_tokens", WHOLE, "usage.cached_input"),
    Column("cache_write_tokens", WHOLE, "usage.cache_write"),
    Column("output_tokens", WHOLE, "usage.output"),
    Column("reasoning_tokens", WHOLE, "usage.reasoning"),
    Column("usage_estimated", FLAG, "usage.estimated"),
)
MORE = Column("usage_more", Kind("TEXT", _store_more, _load_more), "usage.more", since=4)  # JSON: what is not 0 in it

REQUEST_COLUMNS = (
    Column("id", TEXT),
    Column("client_request_id", TEXT_OR_NULL),
    Column("started", UNIX_MICROSECONDS),
    Column("key", TEXT_OR_NULL),
    Column("team", TEXT_OR_NULL),
    Column("user", TEXT_OR_NULL),
    Column("tags", LIST),
    Column("endpoint", TEXT),
    Column("requested_model", TEXT_OR_NULL),
    Column("stream", FLAG),
    Column("route", TEXT_OR_NULL),
    Column("task", TEXT_OR_NULL),
    Column("task_why", TEXT_OR_NULL),
    Column("model", TEXT_OR_NULL),
    Column("provider", TEXT_OR_NULL),
    Column("hosting", TEXT_OR_NULL),
    Column("outcome", TEXT),
    Column("rejection", TEXT_OR_NULL),
    Column("status", WHOLE),
    Column("fallback_reason", TEXT_OR_NULL),
    *USAGE_COLUMNS,
    Column("cost_nano", WHOLE),
    Column("baseline_nano", WHOLE),
    Column("baseline_model", TEXT_OR_NULL),
    Column("unpriced", FLAG),
    Column("duration", SECONDS),
    Column("first_token", SECONDS_OR_NULL),
    Column("overhead", SECONDS),
    Column("has", LIST),
    Column("estimated_input", WHOLE),
    Column("max_output", WHOLE_OR_NULL),
    Column("lines_dropped", WHOLE),
    Column("config_hash", TEXT),
    Column("budget", TEXT_OR_NULL, since=2),
    Column("n", ONE_OR_MORE, since=3),
    Column("no_fallback", FLAG_OR_NULL, since=3),
    Column("max_cost_nano", WHOLE_OR_NULL, since=3),
    Column("timeout", SECONDS_OR_NULL, since=3),
    Column("asked_task", TEXT_OR_NULL, since=3),
    Column("body_bytes", WHOLE_OR_NULL, since=3),
    MORE,
    Column("trace_id", TEXT_OR_NULL, since=5),
    Column("cache", TEXT_OR_NULL, since=6),
    Column("cache_saved_nano", STATUS_OR_NULL, since=6),
)

ATTEMPT_COLUMNS = (
    Column("model", TEXT),
    Column("provider", TEXT),
    Column("hosting", TEXT),
    Column("purpose", TEXT),
    Column("reason", TEXT),
    Column("result", TEXT),
    Column("status", STATUS_OR_NULL),
    Column("started", SECONDS),
    Column("duration", SECONDS),
    Column("first_token", SECONDS_OR_NULL),
    *USAGE_COLUMNS,
    Column("price_source", TEXT_OR_NULL),
    Column("cost_nano", WHOLE),
    Column("upstream_request_id", TEXT_OR_NULL),
    Column("detail", TEXT_OR_NULL),
    Column("replica", TEXT_OR_NULL, since=2),
    Column("budgets", LIST_OR_NULL, since=2),
    Column("reserved_nano", WHOLE_OR_NULL, since=2),
    Column("retry_after", SECONDS_OR_NULL, since=3),
    MORE,
)


class Codec:
    """Turns a record into the values of a row, in the order of its columns, and back."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._read = attrgetter(*[column.field for column in columns])
        self._stores = [(i, c.kind.store) for i, c in enumerate(columns) if c.kind.store]
        self._loads = [(c.field, c.kind.load) for c in columns]

    def row(self, record: Record | AttemptRecord) -> list[SqlValue]:
        values: list[SqlValue] = list(self._read(record))
        for i, store in self._stores:
            values[i] = store(values[i])
        return values

    def fields(self, row: Sequence[Any]) -> dict[str, Any]:
        """Keyword arguments for the record type, from the columns in their order."""
        fields: dict[str, Any] = {}
        usage: dict[str, Any] = {}
        for (field, load), value in zip(self._loads, row, strict=True):
            loaded = load(value) if load else value
            if field.startswith("usage."):
                usage[field.removeprefix("usage.")] = loaded
            else:
                fields[field] = loaded
        return fields | {"usage": Usage(**usage)}


REQUESTS = Codec(REQUEST_COLUMNS)
ATTEMPTS = Codec(ATTEMPT_COLUMNS)


def names(columns: Iterable[Column]) -> str:
    return ", ".join(f'"{column.name}"' for column in columns)


def insert_request() -> str:
    marks = ", ".join("?" * len(REQUEST_COLUMNS))
    return f"INSERT INTO requests ({names(REQUEST_COLUMNS)}) VALUES ({marks})"  # noqa: S608 - our own names


def insert_attempt() -> str:
    """Takes the request's id and the attempt's number (from 0) before the columns."""
    marks = ", ".join("?" * (2 + len(ATTEMPT_COLUMNS)))
    return f"INSERT INTO attempts (request_id, number, {names(ATTEMPT_COLUMNS)}) VALUES ({marks})"  # noqa: S608 - our own names


def create(table: str, keys: str, columns: Iterable[Column], primary_key: str, options: str) -> str:
    """The CREATE TABLE of schema version 1. `keys`: the definitions of columns that are no field of a record."""
    described = [f'"{c.name}" {c.kind.sql}' for c in columns if c.since == 1]
    return f"CREATE TABLE {table} ({', '.join(filter(None, [keys, *described, primary_key]))}){options}"


def added(tables: Mapping[str, Sequence[Column]], version: int) -> tuple[str, ...]:
    """The ALTER TABLEs of a later schema version."""
    return tuple(
        f'ALTER TABLE {table} ADD COLUMN "{c.name}" {c.kind.sql}'
        for table, columns in tables.items()
        for c in columns
        if c.since == version
    )
