"""Answers that are given again: the way to their store, off the loop. A cache that fails is a miss, never an error."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gateway.client import Client
from gateway.core.caching import LONGEST, Cache, Kept
from gateway.errors import GatewayError, StoreUnavailable
from gateway.flight import Header
from gateway.stores.base import AnswerCache

PATIENCE = 0.25  # seconds that a request waits for its look into the cache
WAITING = 256  # answers that wait to be written; more are not kept

T = TypeVar("T")

log = logging.getLogger("gateway")


class Answers:
    """One process's dealings with the cache. `open_store` is called in the thread that uses what it returns."""

    def __init__(self, open_store: Callable[[], AnswerCache], clock: Callable[[], float] = time.time) -> None:
        self._open_store = open_store
        self._clock = clock
        self._store: AnswerCache | None = None
        self._thread = ThreadPoolExecutor(1, "cache")
        self._writing: set[asyncio.Future[None]] = set()
        self._failing = False

    async def get(self, key: bytes) -> Kept | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                return await self._in_thread(lambda store: store.get(key, self._clock()))
        return None

    def put(self, key: bytes, kept: Kept, cache: Cache) -> None:
        """Soon; nobody waits for it."""
        if len(self._writing) < WAITING:
            writing = asyncio.ensure_future(
                self._in_thread(lambda store: store.put(key, kept, self._clock(), cache.ttl))
            )
            self._writing.add(writing)
            writing.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Writes what waits."""
        await asyncio.gather(*self._writing, return_exceptions=True)
        if self._store is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[AnswerCache], T]) -> T | None:
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._with_store, work)
        except StoreUnavailable as error:
            if not self._failing:
                log.error("%s; requests are answered without it", error)
            self._failing = True
            return None
        self._failing = False
        return found

    def _with_store(self, work: Callable[[AnswerCache], T]) -> T:
        """In the thread."""
        if self._store is None:
            self._store = self._open_store()
        return work(self._store)


class Keeping:
    """Implements `Client`: passes everything on, and keeps what the client gets, if it is not too long."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._body = bytearray()
        self._content_type = ""
        self._too_long = False

    async def start(self, status: int, headers: list[Header]) -> None:
        self._content_type = next((value.decode("latin-1") for name, value in headers if name == b"content-type"), "")
        await self._client.start(status, headers)

    async def send(self, body: bytes, *, more: bool) -> None:
        if len(self._body) + len(body) > LONGEST:
            self._too_long = True
            self._body.clear()
        elif not self._too_long:
            self._body += body
        await self._client.send(body, more=more)

    async def fail(self, error: GatewayError, headers: list[Header]) -> None:
        self._too_long = True  # an error is not kept
        await self._client.fail(error, headers)

    def cut(self) -> None:
        self._too_long = True
        self._client.cut()

    def kept(self, *, model: str, provider: str, hosting: str, cost_nano: int) -> Kept | None:
        """None where it was too long, or not an answer."""
        if self._too_long:
            return None
        return Kept(self._content_type, bytes(self._body), model, provider, hosting, cost_nano)
