"""Requests that a provider's `passthrough:` lets through: which provider it is, and whether the key may."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from starlette.types import Message, Receive, Scope

from gateway.config.types import Config
from gateway.core.call import Endpoint, Principal, parse
from gateway.core.passing import GRANT, is_plain, lets_through, may_pass
from gateway.errors import RequestError
from gateway.providers.base import Passage
from gateway.server.protocol import connection_of
from gateway.wire import CODEC

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
PROVIDER = b"x-gateway-provider"
_EMPTY = b'{"input":""}'  # what the gateway itself looks at: the headers alone decide


class Found(NamedTuple):
    passage: Passage
    rest: Receive  # what comes after the request's body: that the client hangs up


class _Body:
    """A request's body, piece by piece as the upstream takes it."""

    def __init__(self, scope: Scope, receive: Receive, size: int) -> None:
        self._receive = receive
        self._connection = connection_of(scope)
        self._ended = asyncio.Event()
        if size == 0:
            self._ended.set()

    async def piece(self) -> bytes:
        """b"" at the end. Raises RequestError where the client leaves or is too slow."""
        while not self._ended.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise RequestError("The body ended before it was whole.")
            if self._connection.too_slow:
                raise RequestError("The body did not come in time.", status=408)
            if not message.get("more_body"):
                self._ended.set()
            if piece := bytes(message.get("body", b"")):
                return piece
        return b""

    async def rest(self) -> Message:
        """Waits for the end of the body, which is somebody else's, and then for what follows."""
        await self._ended.wait()
        return await self._receive()


def find_passage(config: Config, scope: Scope, principal: Principal, receive: Receive) -> Found | None:
    """None where no provider lets it through. Raises RequestError 400, 403, 404, 405.

    The path is the raw one, and it has to be one that every server reads alike.
    """
    raw: bytes = scope.get("raw_path") or b""
    path = raw.decode("latin-1")
    below = path.removeprefix("/v1")
    if below == path or not below.startswith("/"):
        return None
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    wanted = next((value.decode("latin-1") for name, value in headers if name == PROVIDER), "")
    live = (each for each in config.providers.values() if not each.disabled)
    able = [each.name for each in live if lets_through(below, each.passthrough)]
    if not able or not is_plain(below):
        return None
    if wanted and wanted not in able:
        said = f"{path[:200]!r} goes only to {' or '.join(able)}"
        raise RequestError(said, param=PROVIDER.decode())
    provider = wanted or able[0]
    if principal.key and not may_pass(principal.allow, provider):
        said = f"this key may not use {path[:200]!r} of {provider}: its `allow` does not have `{GRANT}{provider}`"
        raise RequestError(said, status=403, type="permission_error", code="permission_denied")
    if scope["method"] not in METHODS:
        allowed = ", ".join(sorted(METHODS))
        raise RequestError(f"Use one of {allowed} for {path[:200]}.", status=405, headers={"allow": allowed})
    size = _size(headers)
    body = _Body(scope, receive, size)
    query = scope["query_string"].decode("latin-1")
    target = f"{below}?{query}" if query else below
    if not (target.isascii() and target.isprintable() and " " not in target):
        raise RequestError("the query has signs that must be encoded")
    call = parse(Endpoint.PASSTHROUGH, headers, _EMPTY, CODEC)
    if call.hints.dry_run:
        said = f"{path[:200]!r} is let through as it is: there is no decision that a dry run could show"
        raise RequestError(said, param="x-gateway-dry-run")
    return Found(Passage(provider, scope["method"], target, call, size, body.piece), body.rest)


def _size(headers: Sequence[tuple[bytes, bytes]]) -> int:
    """Bytes of the body; -1 where it comes in chunks."""
    size = 0
    for name, value in headers:
        if name == b"transfer-encoding":
            return -1
        if name == b"content-length":
            size = int(value)
    return size
