"""Forms with files, as they come in: read piece by piece, parsed on the way, kept in a file.

However large a form is, it takes a few hundred kilobytes of memory. What is larger than `IN_MEMORY` goes to a temporary
file that has no name (mode 0600, gone with its descriptor, even where the process is killed), so that retries and
fallbacks can send it again. It lies where TMPDIR says.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from typing import IO, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive

from gateway.core.multipart import Part, Parts
from gateway.errors import Overloaded, RequestError

IN_MEMORY = 64 * 1024  # bytes
WRITTEN = 256 * 1024  # bytes that are gathered for one write
PARTS = 64
TEXT = 256 * 1024  # bytes of all texts together; OpenAI's longest prompt has 32,000 characters
HEADER, HEADERS = 4 * 1024, 8  # bytes of a part's header, and how many it may have
ROOM = 4 * 1024**3  # bytes that lie in files of one process at a time
NAME = r"[A-Za-z0-9_.-]{1,64}(?:\[[A-Za-z0-9_.-]{1,64}\]){0,4}(?:\[\])?"  # of a part
_NAME = re.compile(NAME)
_PLAIN = frozenset({b"7bit", b"8bit", b"binary"})


class Room:
    """How much of the disk uploads take, all together."""

    def __init__(self, limit: int = ROOM) -> None:
        self._limit = limit
        self._taken = 0

    def take(self, size: int) -> None:
        """Raises Overloaded where there is no room."""
        if self._taken + size > self._limit:
            raise Overloaded("The gateway has no room for more uploads.", retry_after=1)
        self._taken += size

    def give_back(self, size: int) -> None:
        self._taken -= size


class Spool:
    """Implements `gateway.providers.base.Upload`: written once, then read from anywhere, by several at a time."""

    def __init__(self, room: Room) -> None:
        self.size = 0
        self._room = room
        self._unwritten = bytearray()
        self._file: IO[bytes] | None = None
        self._written = 0

    async def write(self, data: bytes) -> None:
        """Raises Overloaded where the disk has no room."""
        self._unwritten += data
        self.size += len(data)
        if len(self._unwritten) > (IN_MEMORY if self._file is None else WRITTEN):
            await self._write()

    async def finish(self) -> None:
        if self._file is not None and self._unwritten:
            await self._write()

    async def read(self, start: int, size: int) -> bytes:
        """Exactly `size` bytes."""
        if self._file is None:
            return bytes(self._unwritten[start : start + size])
        return await asyncio.to_thread(_read, self._file.fileno(), start, size)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._room.give_back(self._written)
        self._written = 0

    async def _write(self) -> None:
        data, self._unwritten = bytes(self._unwritten), bytearray()
        self._room.take(len(data))
        at, self._written = self._written, self._written + len(data)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # closed by `close`
            await asyncio.to_thread(_write, self._file.fileno(), at, data)
        except OSError as error:
            raise Overloaded(f"The gateway cannot keep the upload: {error.strerror}.", retry_after=1) from None


def _write(descriptor: int, at: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, at)
        view, at = view[count:], at + count


def _read(descriptor: int, at: int, size: int) -> bytes:
    pieces = []
    while size and (piece := os.pread(descriptor, size, at)):
        pieces.append(piece)
        at, size = at + len(piece), size - len(piece)
    return b"".join(pieces)


def _silent() -> logging.Logger:
    """The parser's remarks are about what clients send: nobody can do anything about them."""
    logger = logging.getLogger("gateway.multipart")
    logger.disabled = True
    return logger


class _Open(NamedTuple):
    """A part whose value is under way."""

    name: str
    filename: str | None
    content_type: str


class FormReader:
    """Finds the parts of a form that comes in pieces. Raises RequestError (400, 413) for what nobody should send."""

    def __init__(self, boundary: bytes) -> None:
        self._parts: list[Part] = []
        self._open: _Open | None = None
        self._headers: dict[bytes, bytes] = {}
        self._field = bytearray()
        self._header = bytearray()
        self._text = bytearray()
        self._texts = 0  # bytes of all texts
        self._start = self._size = 0  # of the open part's value
        self._fed = 0  # bytes before the piece that is being parsed
        self._piece = b""
        self._whole = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._open_part,
                "on_part_data": self._data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
            max_header_count=HEADERS,
            max_header_size=HEADER,
        )
        self._parser.logger = _silent()

    def feed(self, piece: bytes) -> None:
        self._piece = piece
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise RequestError(f"the form cannot be read: {error}") from None
        self._fed += len(piece)

    def parts(self) -> Parts:
        if not self._whole:
            raise RequestError("the form ended before it was whole")
        return Parts(secrets.token_hex(20).encode(), tuple(self._parts), self._fed)

    def _begin(self) -> None:
        if len(self._parts) >= PARTS:
            raise RequestError(f"the form has more than {PARTS} parts", status=413, code="request_too_large")
        self._headers = {}

    def _end_header(self) -> None:
        name = bytes(self._field).lower()
        if name in self._headers:
            raise RequestError("a part of the form has a header twice")
        self._headers[name] = bytes(self._header)
        self._field.clear()
        self._header.clear()

    def _open_part(self) -> None:
        kind, given = parse_options_header(self._headers.get(b"content-disposition"))
        name = given.get(b"name", b"").decode("latin-1")
        if kind != b"form-data" or not _NAME.fullmatch(name):
            raise RequestError("a part of the form has no name, or one of other signs than letters, digits and _.-[]")
        if self._headers.get(b"content-transfer-encoding", b"binary").lower() not in _PLAIN:
            raise RequestError(f"the part {name!r} must come without content-transfer-encoding", param=name)
        filename = given[b"filename"].decode(errors="replace") if b"filename" in given else None
        content_type = self._headers.get(b"content-type", b"").decode("latin-1")
        if not all(text.isprintable() for text in (filename or "", content_type)):
            raise RequestError(f"the part {name!r} has signs in its headers that cannot be printed", param=name)
        self._open = _Open(name, filename, content_type if content_type.isascii() else "")
        self._text.clear()
        self._start, self._size = -1, 0

    def _data(self, data: bytes, start: int, end: int) -> None:
        """`data` is the piece, or what may be a boundary from the end of the piece before, and is none."""
        assert self._open is not None
        if self._start < 0:
            self._start = self._fed + start if data is self._piece else self._fed - (end - start)
        self._size += end - start
        if self._open.filename is None:
            self._texts += end - start
            if self._texts > TEXT:
                said = f"the texts of the form are longer than {TEXT} bytes"
                raise RequestError(said, status=413, code="request_too_large", param=self._open.name)
            self._text += data[start:end]

    def _end_part(self) -> None:
        assert self._open is not None
        name, filename, content_type = self._open
        value = bytes(self._text) if filename is None else None
        self._parts.append(Part(name, max(0, self._start), self._size, value, filename or "", content_type))
        self._open = None

    def _end(self) -> None:
        self._whole = True


def boundary_of(content_type: str) -> bytes | None:
    """Of a form with files; None where the request has another kind of body. Raises RequestError where it has none."""
    kind, given = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        return None
    boundary: bytes = given.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70 or not boundary.isascii():  # RFC 2046, 5.1.1
        raise RequestError("the content-type has no boundary that could be one")
    return boundary


async def read_form(reader: FormReader, spool: Spool, receive: Receive, limit: int) -> Parts:
    """Takes in the whole form. Raises RequestError 400, 413, Overloaded."""
    more = True
    while more:
        message: Mapping[str, object] = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError("The body ended before it was whole.")
        piece = message.get("body", b"")
        assert isinstance(piece, bytes)
        if spool.size + len(piece) > limit:
            raise too_large(limit)
        if piece:
            reader.feed(piece)
            await spool.write(piece)
        more = bool(message.get("more_body"))
    await spool.finish()
    return reader.parts()


def too_large(limit: int) -> RequestError:
    said = f"The upload is larger than {limit} bytes (`gateway serve --max-upload`)."
    return RequestError(said, status=413, code="request_too_large")
