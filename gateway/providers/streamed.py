"""A request body that is not in memory: bytes of ours, and parts of what a client sent, which lies in a file."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.call import Call
from gateway.core.multipart import Piece, outgoing_parts, size_of
from gateway.core.rules import Target
from gateway.providers.base import Upload


class Streamed:
    """Implements `gateway.providers.http.Body`."""

    def __init__(self, pieces: Sequence[Piece], upload: Upload) -> None:
        self._pieces = pieces
        self._upload = upload
        self._size = sum(map(size_of, pieces))

    def __len__(self) -> int:
        return self._size

    async def read(self, start: int, size: int) -> bytes:
        """Bytes from `start` on: at least one, at most `size`, none at the end."""
        for piece in self._pieces:
            length = size_of(piece)
            if start < length:
                if isinstance(piece, bytes):
                    return piece[start : start + size]
                return await self._upload.read(piece[0] + start, min(size, length - start))
            start -= length
        return b""


def form_body(call: Call, target: Target, upload: Upload) -> Streamed:
    assert call.parts is not None
    model = target.model
    pieces = outgoing_parts(call.parts, model=target.upstream_name, set=model.set, drop=model.drop, json=call.codec)
    return Streamed(pieces, upload)
