"""Edits an object's JSON source without touching the rest: not a space, not a digit, not the order of its members.

The codec gives each top-level value's exact source, so only names and separators are scanned here. A name that stands
twice is refused: parsers differ in which one they take, so what we decide on could differ from what the upstream reads
(RFC 8259, section 4).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.core.pricing import dollars

if TYPE_CHECKING:  # `call` imports this module
    from gateway.core.call import Json, Source

Span = tuple[int, int]
"""Where a member's value begins and ends."""

# What stands before a value: a brace or comma, the name, a colon. The quantifiers give nothing back: a match is linear.
_HEAD = re.compile(rb'[ \t\n\r]*+[,{][ \t\n\r]*+"[^"\\]*+(?:\\.[^"\\]*+)*+"[ \t\n\r]*+:[ \t\n\r]*+', re.DOTALL)
_TAIL = re.compile(rb"[ \t\n\r]*+}[ \t\n\r]*+")
_COMMA = re.compile(rb"[ \t\n\r]*+,")
# A member `usage` that holds an object at most one level deep. Inside a string its quotes would be escaped.
_USAGE = re.compile(rb'(?<!\\)"usage"[ \t\n\r]*+:[ \t\n\r]*+(\{(?:[^{}"]|"[^"\\]*+"|\{(?:[^{}"]|"[^"\\]*+")*+\})*+\})')
_KEEP = b""  # no JSON value is empty
_CHUNK = 64 * 1024


class RepeatedNameError(ValueError):
    """A member's name stands twice in an object."""

    def __init__(self, name: str) -> None:
        self.name = name[:64]
        super().__init__(f"the member {self.name!r} stands twice")


def spans(body: bytes, json: Json) -> dict[str, Span]:
    """Where the members of an object stand, in order. Raises ValueError as `Json.members`, and RepeatedNameError."""
    members = json.members(body)
    places: list[Span] = []
    position = 0
    match = _HEAD.match
    for source in members.values():
        head = match(body, position)
        if head is None:
            raise _repeated(body, members, json)
        start = head.end()
        position = start + len(source)
        places.append((start, position))
    # The codec keeps the last value of a repeated name. Unless all values stand where the walk put them, and nothing
    # follows, there is such a name.
    if not _stand_at(body, places, members) or (members and not _ends(body, position)):
        raise _repeated(body, members, json)
    return dict(zip(members, places, strict=True))


def edit(body: bytes, json: Json, edits: Mapping[str, bytes | None]) -> bytes:
    """Replaces the value of a top-level member by other JSON, removes the member (None), or appends it.

    Every other byte stays; a removed member takes exactly one comma with it. Raises ValueError as `spans`.
    """
    return apply(body, json, spans(body, json), edits)


def apply(body: bytes, json: Json, members: Mapping[str, Span], edits: Mapping[str, bytes | None]) -> bytes:
    """`edit`, where the members' places are already known."""
    changes: list[tuple[int, int, bytes]] = []
    kept_end = 0  # of the last value that stays; 0 before the first
    position = 0  # where the value before ends
    for name, (start, end) in members.items():
        new = edits.get(name, _KEEP)
        if new is None:
            changes.append(_removal(body, position, end, first=not kept_end))
        else:
            kept_end = end
            if new is not _KEEP:
                changes.append((start, end, new))
        position = end
    added = [json.dumps(name) + b":" + new for name, new in edits.items() if new is not None and name not in members]
    if added:
        at = kept_end or body.index(b"{") + 1
        changes.append((at, at, (b"," if kept_end else b"") + b",".join(added)))
        changes.sort()
    return _changed(body, changes) if changes else body


def add_cost(body: bytes, json: Json, nano_usd: int) -> bytes:
    """Puts `"cost": <USD>` into the `usage` object of an answer; replaces one that is there.

    The object is the top level's, else the one inside `choices` (Moonshot reports it in the first choice) or inside
    `response` (the event that ends a response). Without such an object the bytes come back as they are. So do bytes
    that are no JSON object or repeat a name: they are the upstream's, and we do not guess which of two values counts.
    """
    try:
        start, end = _usage(body, json)
        usage = edit(body[start:end], json, {"cost": dollars(nano_usd).encode()}) if end else b""
    except ValueError:
        return body
    return body[:start] + usage + body[end:]


def _usage(body: bytes, json: Json) -> Span:
    """Where the usage object stands; (0, 0) where there is none."""
    members = spans(body, json)
    start, end = members.get("usage", (0, 0))
    if body[start : start + 1] == b"{" and end:
        return start, end
    start, end = members.get("response", (0, 0))
    if body[start : start + 1] == b"{" and end:
        inner = spans(body[start:end], json).get("usage", (0, 0))
        return (start + inner[0], start + inner[1]) if body[start + inner[0] : start + inner[0] + 1] == b"{" else (0, 0)
    found = _USAGE.search(body, *members.get("choices", (0, 0)))
    return found.span(1) if found is not None else (0, 0)


def _removal(body: bytes, before: int, end: int, *, first: bool) -> tuple[int, int, bytes]:
    """Takes out a member whose value ends at `end`, with the comma before it, or after it where it is the `first`.

    `before`: where the value before it ends, 0 for none. Only white space and one brace or comma lie in between.
    """
    if not first:
        return body.index(b",", before), end, b""
    comma = _COMMA.match(body, end)
    return body.index(b'"', before), comma.end() if comma else end, b""


def _ends(body: bytes, position: int) -> bool:
    """Whether nothing but the closing brace follows."""
    return body[position:] == b"}" or _TAIL.fullmatch(body, position) is not None


def _stand_at(body: bytes, places: list[Span], members: Mapping[str, Source]) -> bool:
    if len(body) <= _CHUNK:
        return b"".join([body[start:end] for start, end in places]) == b"".join(members.values())
    return all(_stands_at(body, start, source) for (start, _), source in zip(places, members.values(), strict=True))


def _stands_at(body: bytes, start: int, source: Source) -> bool:
    """Whether the body goes on with `source`, compared piecewise so that a large value is not copied whole."""
    size = len(source)
    if size <= _CHUNK:
        return body[start : start + size] == bytes(source)
    view = memoryview(source)
    pieces = range(0, size, _CHUNK)
    return all(body.startswith(bytes(view[piece : piece + _CHUNK]), start + piece) for piece in pieces)


def _repeated(body: bytes, members: Mapping[str, Source], json: Json) -> RepeatedNameError:
    """Names the culprit: walks again, reading the names, until a value is not the codec's, or longer (1 and 12)."""
    seen: set[str] = set()
    name = ""
    position = 0
    while head := _HEAD.match(body, position):
        name = json.loads(head[0].strip(b" \t\n\r{,:"))
        if name in seen or not _stands_at(body, head.end(), members[name]):
            break
        seen.add(name)
        position = head.end() + len(members[name])
    return RepeatedNameError(name)


def _changed(body: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    position = 0
    for start, end, new in changes:
        pieces += (view[position:start], new)
        position = end
    pieces.append(view[position:])
    return b"".join(pieces)
