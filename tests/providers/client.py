"""What tests of the HTTP client share: a caller with patience, and a peer that answers everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.providers.http import HttpClient
from gateway.providers.http_exchange import HttpResponse

Run = Callable[[Coroutine[Any, Any, None]], None]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def ask(client: HttpClient, body: bytes = b"{}", connect_timeout: float = 5.0) -> HttpResponse:
    return await asyncio.wait_for(client.request("/chat", [], body, connect_timeout=connect_timeout), 60)


async def whole(client: HttpClient, body: bytes = b"{}") -> bytes:
    response = await ask(client, body)
    try:
        return await response.read(10_000_000)
    finally:
        response.close()


async def polite(peer: Any) -> None:
    while True:
        await peer.request()
        await peer.send(OK)
