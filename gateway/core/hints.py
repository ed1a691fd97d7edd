"""What a client asks of the gateway itself: `x-gateway-*` headers and `metadata` (contract section 1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from gateway.core import splice
from gateway.core.pricing import NANO_PER_USD
from gateway.errors import RequestError

if TYPE_CHECKING:  # `call` imports this module
    from gateway.core.call import Json

MAX_TAGS = 32
MAX_LABEL = 64  # characters of a task or a tag
MAX_ID = 128  # characters of a session or request id

_LISTS = frozenset({"anthropic-beta", "cache-control", "openai-beta"})
# Bounded, so that the exact arithmetic on it is too: no client can have us compute 10**999999999.
DECIMAL = r"([0-9]{1,20}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,2})?"
_DECIMAL = re.compile(DECIMAL)


class Hints(NamedTuple):
    """What the client asked of the gateway itself."""

    task: str = ""
    tags: frozenset[str] = frozenset()
    max_cost_nano_usd: int | None = None
    timeout: float | None = None  # seconds; only shortens
    no_fallback: bool = False
    dry_run: bool = False
    session: str = ""
    client_request_id: str = ""
    strip_metadata: bytes | None = None  # the `metadata` member to send instead; b"" to leave it out; None: untouched
    task_source: str = ""  # where `task` stood, for people: "header x-gateway-task" or "metadata.task"


def by_name(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Lower-case names; of repeated ones the last, but for lists, whose lines are one (RFC 9110, 5.3)."""
    named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
    if len(named) != len(headers):
        for listed in _LISTS & named.keys():
            values = [value.decode("latin-1") for name, value in headers if name.decode("latin-1").lower() == listed]
            named[listed] = ", ".join(values)
    return named


def read_hints(headers: Mapping[str, str], metadata: bytes, json: Json) -> Hints:
    """A header's task wins over the body's; tags are united. Raises RequestError (400) that names `param`.

    `metadata`: the member's source, an object; empty where there is none.
    """
    hints = _NONE
    if not headers.keys().isdisjoint(HEADERS):
        hints = _from_headers(headers)
    return _with_metadata(hints, metadata, json) if metadata else hints


def _from_headers(headers: Mapping[str, str]) -> Hints:
    task = headers.get("x-gateway-task", "").strip()
    if task:
        _check_label("x-gateway-task", task)
    return Hints(
        task=task,
        tags=_tags("x-gateway-tags", headers.get("x-gateway-tags", "").split(",")),
        max_cost_nano_usd=_max_cost(headers.get("x-gateway-max-cost-usd")),
        timeout=_timeout(headers.get("x-gateway-timeout")),
        no_fallback=_flag(headers, "x-gateway-no-fallback"),
        dry_run=_flag(headers, "x-gateway-dry-run"),
        session=_id(headers, "x-session-id"),
        client_request_id=_id(headers, "x-request-id"),
        task_source="header x-gateway-task" if task else "",
    )


def _with_metadata(hints: Hints, metadata: bytes, json: Json) -> Hints:
    try:
        members = splice.spans(metadata, json)
        if "task" not in members and "tags" not in members:
            return hints
        task, tags = (_value(metadata, members.get(name), json) for name in ("task", "tags"))
    except ValueError as error:
        raise RequestError(f"metadata: {error}", param="metadata") from None
    named = "" if task is None else _body_task(task)
    if named and not hints.task:
        hints = hints._replace(task=named, task_source="metadata.task")
    if tags is not None:
        united = hints.tags | _tags("metadata.tags", _body_tags(tags))
        hints = hints._replace(tags=_bounded("metadata.tags", united))
    rest = b""
    if members.keys() - {"task", "tags"}:
        rest = splice.apply(metadata, json, members, {"task": None, "tags": None})
    return hints._replace(strip_metadata=rest)


def _value(source: bytes, span: splice.Span | None, json: Json) -> object:
    return None if span is None else json.loads(source[span[0] : span[1]])


def _body_task(task: object) -> str:
    if not isinstance(task, str):
        raise _wrong("metadata.task", "a string")
    task = task.strip()
    if task:
        _check_label("metadata.task", task)
    return task


def _body_tags(tags: object) -> list[str]:
    if isinstance(tags, str):
        return tags.split(",")
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        return tags
    raise _wrong("metadata.tags", "a string or a list of strings")


def _tags(param: str, given: Iterable[str]) -> frozenset[str]:
    tags = frozenset(tag for tag in map(str.strip, given) if tag)
    for tag in tags:
        _check_label(param, tag)
    return _bounded(param, tags)


def _bounded(param: str, tags: frozenset[str]) -> frozenset[str]:
    if len(tags) > MAX_TAGS:
        raise _wrong(param, f"at most {MAX_TAGS} tags")
    return tags


def _check_label(param: str, label: str) -> None:
    if len(label) > MAX_LABEL or not label.isprintable():
        raise _wrong(param, f"made of names of at most {MAX_LABEL} printable characters")


def _max_cost(value: str | None) -> int | None:
    """Whole nano-USD: what lies below one is cut off, because the client's limit is never exceeded."""
    if value is None:
        return None
    if _DECIMAL.fullmatch(value.strip()) is None:
        raise _wrong("x-gateway-max-cost-usd", "a decimal number of US dollars, zero or more")
    numerator, denominator = Decimal(value.strip()).as_integer_ratio()
    return numerator * NANO_PER_USD // denominator


def _timeout(value: str | None) -> float | None:
    if value is None:
        return None
    seconds = float(value) if _DECIMAL.fullmatch(value.strip()) else 0.0
    if seconds <= 0.0:
        raise _wrong("x-gateway-timeout", "a number of seconds above zero")
    return seconds


def _flag(headers: Mapping[str, str], name: str) -> bool:
    value = headers.get(name)
    if value is None:
        return False
    match value.strip().lower():
        case "true":
            return True
        case "false":
            return False
    raise _wrong(name, "true or false")


def _id(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "")
    if len(value) > MAX_ID or not (value.isascii() and value.isprintable()):
        raise _wrong(name, f"at most {MAX_ID} printable ASCII characters")
    return value


def _wrong(param: str, expected: str) -> RequestError:
    return RequestError(f"{param} must be {expected}", param=param)


_NONE = Hints()
HEADERS = frozenset(
    {f"x-gateway-{name}" for name in ("task", "tags", "max-cost-usd", "timeout", "no-fallback", "dry-run")}
    | {"x-session-id", "x-request-id"}
)
