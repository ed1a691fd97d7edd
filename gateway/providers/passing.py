"""`passthrough:` of a provider: a request that nobody here understands goes to it as it is, and so does the answer."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence

from gateway import __version__
from gateway.config.types import ProviderConfig
from gateway.core.traces import Header
from gateway.providers.account import as_anthropics, is_anthropics, key_headers
from gateway.providers.base import Passage, Upstream
from gateway.providers.http import HttpClient
from gateway.providers.openai import PASSED_ON, is_clean, sendable

PASSED = PASSED_ON | {"content-type", "accept", "range", "idempotency-key"}
CONNECT_SECONDS = 30.0  # for a connection, and for each piece of a body, which a slow client may have to send first
IDLE = 16  # connections that are kept


class ClientBody:
    """Implements `gateway.providers.http.Body`: pieces as a client sends them, once. `size` -1: in chunks."""

    def __init__(self, size: int, receive: Callable[[], Awaitable[bytes]]) -> None:
        self._size = size
        self._receive = receive
        self._sent = 0
        self._ended = False

    def __len__(self) -> int:
        if self._size >= 0:
            return self._size
        return self._sent if self._ended else sys.maxsize

    async def read(self, start: int, size: int) -> bytes:  # noqa: ARG002  # a piece is as long as it is
        piece = await self._receive()
        if self._size >= 0:
            return piece
        self._ended = not piece
        framed = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b"0\r\n\r\n"
        self._sent += len(framed)
        return framed


class PassingProvider:
    """Implements `gateway.providers.base.Passing`. Raises as OpenAIProvider."""

    def __init__(self, config: ProviderConfig) -> None:
        self._client = HttpClient(config.base_url, ca_file=config.ca_file, max_idle=IDLE)
        fixed = {"user-agent": f"open-model-gateway/{__version__}"}
        fixed |= key_headers(config)
        self._anthropic = config if is_anthropics(config) else None
        fixed |= {name.lower(): value for name, value in config.headers.items()}
        self._fixed = frozenset(fixed)
        self._headers = [sendable(config.name, name, value) for name, value in fixed.items()]

    async def open(self, passage: Passage) -> Upstream:
        body = ClientBody(passage.size, passage.receive)
        return await self._client.send(
            passage.method.encode("ascii"),
            passage.target,
            self.headers(passage),
            b"" if passage.size == 0 else body,
            CONNECT_SECONDS,
        )

    async def close(self) -> None:
        await self._client.close()

    def headers(self, passage: Passage) -> Sequence[Header]:
        passed = list(self._headers)
        if self._anthropic is not None:
            passed = as_anthropics(passed, self._anthropic, passage.call.headers)
        for name, value in passage.call.headers.items():
            known = name in PASSED or name.startswith("anthropic-")
            if known and name not in self._fixed and is_clean(name, value):
                passed.append((name.encode("latin-1"), value.encode("latin-1")))
        return passed
