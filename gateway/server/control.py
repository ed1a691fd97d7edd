"""What the parent and its workers say to each other over a socket pair: frames of a kind and a payload.

Worker to parent: READY, METRICS (a delta of `Metrics.take`), HEALTH_REPORT (JSON: how attempts ended),
SESSION (who serves a conversation now) and OWNER (who keeps a response), which the parent hands to the other workers.
Parent to worker: CONFIG (the bytes of routes.yaml, first and on every reload), LOCAL (JSON: where the embedded models
listen), HEALTH_STATE (JSON: what is not fine), LOADS (JSON: requests at self-hosted servers), NOW (end
without waiting, as after a second SIGTERM). The end of the stream means that the other side is gone.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

READY = b"r"
METRICS = b"m"
CONFIG = b"c"
LOCAL = b"l"
NOW = b"n"
HEALTH_REPORT = b"h"
HEALTH_STATE = b"s"
SESSION = b"k"
OWNER = b"o"
LOADS = b"q"

_HEAD = struct.Struct("!cI")
FRAME_LIMIT = 64 * 1024 * 1024
OFFER_LIMIT = 1024 * 1024  # bytes waiting for the other side to read them, beyond which offers are dropped


class Control:
    """One end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> Control:
        sock.setblocking(False)
        return cls(*await asyncio.open_connection(sock=sock))

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        if not self._writer.is_closing():
            self._writer.write(_HEAD.pack(kind, len(payload)) + payload)

    def offer(self, kind: bytes, payload: bytes) -> None:
        """Sends what the other side can do without; nothing while it does not keep up."""
        if self._writer.transport.get_write_buffer_size() < OFFER_LIMIT:
            self.send(kind, payload)

    async def frames(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """(kind, payload) until the other side is gone."""
        try:
            while True:
                kind, size = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
                if size > FRAME_LIMIT:
                    return
                yield kind, await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async def close(self) -> None:
        """Sends what is still to be sent, then closes."""
        try:
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()
        except ConnectionError:
            pass
