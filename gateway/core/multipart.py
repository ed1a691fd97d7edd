"""Forms with files (RFC 7578): where the parts stand in the body as it came, the Call that its fields make, and what of
it goes upstream.

A form's fields become a JSON object, and that a Call like any other: `model`, `stream` and `n` are read, budgets see
the text. Files are not in it: they lie where they were put when they came in, and `outgoing_parts` says which bytes of
them to send.

Values go upstream byte for byte. What stands around them is written anew, under a boundary of our own that nobody could
have guessed: parsers differ in what they take for a boundary or for a part's name, and what we decided on must be what
the upstream reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.core import splice
from gateway.core.call import Call, Endpoint, Json
from gateway.core.fields import Fields
from gateway.core.hints import by_name
from gateway.errors import RequestError

_SIZE = "bytes"  # of a file, which stands as {"bytes": its size}; what a text says is never a number there
_FLAGS = frozenset({"stream"})
_NUMBERS = frozenset({"n"})
_HINTS = frozenset({"metadata[task]", "metadata[tags]", "metadata[tags][]"})  # ours, as in `outgoing_body`
_WORDS: Mapping[bytes, bool] = {b"true": True, b"false": False, b"True": True, b"False": False}

Piece = bytes | tuple[int, int]
"""Bytes to send, or which of the stored body: from, and how many."""


class Part(NamedTuple):
    name: str  # as it came: "model", "timestamp_granularities[]"
    start: int  # of its value, in the body as it came
    size: int
    value: bytes | None = None  # of a text; None: a file
    filename: str = ""
    content_type: str = ""  # empty: none was given

    @property
    def member(self) -> str:
        """Clients write a list as several parts named `image[]`, and an object as one for each of its members, named
        `chunking_strategy[type]` (OpenAI's SDKs).
        """
        return self.name.partition("[")[0]


class Parts(NamedTuple):
    boundary: bytes  # ours
    parts: tuple[Part, ...]
    size: int  # bytes of the body as it came

    @property
    def content_type(self) -> bytes:
        return b"multipart/form-data; boundary=" + self.boundary


def parse_form(endpoint: Endpoint, headers: Sequence[tuple[bytes, bytes]], parts: Parts, json: Json) -> Call:
    """As `call.parse`. Raises RequestError (400) that names `param`."""
    members: dict[str, Any] = {}
    for part in parts.parts:
        _put(members, part)
    body = json.dumps(members)
    call = Call(endpoint, by_name(headers), Fields(body, splice.spans(body, json), json), json)
    call.parts = parts
    return call


def _put(members: dict[str, Any], part: Part) -> None:
    """A part's value where its name says: alone, in a list or in an object. Raises RequestError where one is there.

    Which of two would count is for each server to say, so what we decide on could be another's.
    """
    value = _value(part)
    name, inner = part.member, part.name[len(part.member) :]
    if inner not in ("", "[]"):
        if part.value is None:  # no API has them there, and nobody here would count them
            raise RequestError(f"the part {part.name!r} is a file, which no object may hold", param=part.name)
        members, name = members.setdefault(name, {}), inner.removesuffix("[]").removeprefix("[").removesuffix("]")
        if not isinstance(members, dict) or isinstance(members.get(_SIZE), int):  # the latter: a file
            raise RequestError(f"the part {part.member!r} stands twice", param=part.member)
    if not inner.endswith("[]"):
        if name in members:
            raise RequestError(f"the part {part.name!r} stands twice", param=part.name)
        members[name] = value
        return
    others = members.setdefault(name, [])
    if not isinstance(others, list):
        raise RequestError(f"the part {part.member!r} stands twice", param=part.member)
    others.append(value)


def outgoing_parts(
    parts: Parts, *, model: str, set: Mapping[str, Any], drop: frozenset[str], json: Json
) -> tuple[Piece, ...]:
    """The form with the model's name, `set` (parts of that name give way to ours) and `drop` applied, without hints."""
    pieces: list[Piece] = []
    for part in parts.parts:
        if part.member == "model":
            pieces += (_head(parts.boundary, part), model.encode(), b"\r\n")
        elif part.member not in drop and part.member not in set and part.name not in _HINTS:
            pieces += (_head(parts.boundary, part), (part.start, part.size), b"\r\n")
    for name, value in set.items():
        if name != "model":
            pieces += (_head(parts.boundary, Part(name, 0, 0)), _text(value, json), b"\r\n")
    return _merged([*pieces, b"--" + parts.boundary + b"--\r\n"])


def size_of(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece[1]


def _merged(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if isinstance(piece, bytes) and isinstance(last, bytes):
            merged[-1] = last + piece
        elif size_of(piece):
            merged.append(piece)
    return tuple(merged)


def _head(boundary: bytes, part: Part) -> bytes:
    """As browsers write it: html.spec.whatwg.org, "multipart/form-data encoding algorithm"."""
    disposition = f'form-data; name="{part.name}"'
    if part.filename:
        disposition += f'; filename="{_escaped(part.filename)}"'
    lines = f"Content-Disposition: {disposition}\r\n"
    if part.content_type:
        lines += f"Content-Type: {part.content_type}\r\n"
    return b"--" + boundary + b"\r\n" + lines.encode() + b"\r\n"


def _escaped(filename: str) -> str:
    return filename.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _value(part: Part) -> object:
    if part.value is None:
        return {_SIZE: part.size}
    if part.name in _FLAGS and part.value in _WORDS:
        return _WORDS[part.value]
    if part.name in _NUMBERS and part.value.isdigit() and len(part.value) < 10:
        return int(part.value)
    try:
        return part.value.decode()
    except UnicodeDecodeError:
        raise RequestError(f"the part {part.name!r} is not valid UTF-8", param=part.name) from None


def _text(value: object, json: Json) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value)
