"""Calls to servers that lack the client's API: translated on their way there, and the answer on its way back.

Inside the provider, so that the engine only ever sees the client's dialect, and each attempt is translated anew from
the client's own call: a native target and a translated one can stand in for each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from gateway.core.sse import Framer
from gateway.core.translate import outgoing, translation
from gateway.core.translate.base import Translation
from gateway.errors import UpstreamFailure
from gateway.providers.base import Attempt, Upstream

AFTER_FINISH = 2.0  # seconds: usage and [DONE] follow a finish at once, or never


async def open_translated(attempt: Attempt, send: Callable[[Attempt], Awaitable[Upstream]]) -> Upstream:
    """Opens an attempt through a translation where its server needs one; otherwise just opens it. Raises as `send`."""
    needed = translation(attempt.call, attempt.target.model)
    if needed is None:
        return await send(attempt)
    call = outgoing(attempt.call, attempt.target.model)
    return Translated(await send(attempt._replace(call=call)), needed, attempt)


class Translated:
    """Implements `gateway.providers.base.Upstream`: an upstream's answer in the client's dialect."""

    def __init__(self, upstream: Upstream, translation: Translation, attempt: Attempt) -> None:
        self.status = upstream.status
        self._upstream = upstream
        self._translation = translation
        self._call = attempt.call
        self._json = attempt.call.codec
        self._events = translation.events(attempt.call, self._json)
        self._framer = Framer()
        self._ended = False
        idle = attempt.target.timeouts.idle
        self._patience = AFTER_FINISH if idle is None else min(AFTER_FINISH, idle / 2)
        streamed = "text/event-stream" in upstream.headers.get("content-type", "").lower()
        self.headers: Mapping[str, str] = (
            upstream.headers if streamed else {**upstream.headers, "content-type": "application/json"}
        )

    async def read(self, limit: int) -> bytes:
        body = await self._upstream.read(limit)
        if self.status >= 400:
            return self._translation.error(self.status, body, self._json)
        return self._translation.answer(self._call, body, self._json) if 200 <= self.status < 300 else body

    async def chunk(self) -> bytes:
        """The next of what the client is to see; upstream pieces that come to nothing are not handed on."""
        while not self._ended:
            data = await self._next()
            out = b"".join([self._events.take(event) for event in self._framer.feed(data)])
            if not data:
                self._ended = True
                return b"".join([self._events.take(event) for event in self._framer.end()]) + self._events.end()
            if out:
                return out
        return await self._upstream.chunk()  # to the end of the body, so that its connection can be used again

    def close(self) -> None:
        self._upstream.close()

    async def _next(self) -> bytes:
        """Once the answer is whole, an end that does not come, or comes badly, is one."""
        if not self._events.over:
            return await self._upstream.chunk()
        try:
            async with asyncio.timeout(self._patience):
                return await self._upstream.chunk()
        except (TimeoutError, UpstreamFailure):
            return b""
