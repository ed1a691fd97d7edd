"""Which connections are used again, which are not, and what is given up when."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import UpstreamFailure
from gateway.providers import http
from gateway.providers.http import HttpClient

from .client import OK, Run, ask, polite, whole


def test_close_twice_gives_back_once(serve: Any, run: Run) -> None:
    """The spike's fault: a second release put a connection into the pool that another exchange had by then."""

    async def main() -> None:
        async with serve(polite) as server:
            client = HttpClient(server.url)
            first = await ask(client)
            assert await first.read(10) == b"ok"
            first.close()
            first.close()
            second = await ask(client)  # has the connection now
            first.close()
            third = await ask(client)
            assert server.connections == 2
            assert [await second.read(10), await third.read(10)] == [b"ok", b"ok"]
            second.close()
            third.close()
            await client.close()

    run(main())


@pytest.mark.parametrize("much", ["nothing", "a part"])
def test_an_unread_body_ends_the_connection(much: str, serve: Any, run: Run) -> None:
    async def script(peer: Any) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
            if much == "nothing":
                await peer.send(b"0\r\n\r\n")

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            for _ in range(2):
                response = await ask(client)
                if much == "a part":
                    assert await response.chunk() == b"a"
                response.close()
            assert server.connections == 2
            await client.close()

    run(main())


def test_an_answer_taken_whole_is_enough(serve: Any, run: Run) -> None:
    """A caller may stop at the last byte without asking for the end."""

    async def main() -> None:
        async with serve(polite) as server:
            client = HttpClient(server.url)
            for _ in range(2):
                response = await ask(client)
                assert await response.chunk() == b"ok"
                response.close()
            assert server.connections == 1
            await client.close()

    run(main())


def test_a_connection_that_died_idle_is_replaced(serve: Any, run: Run) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(OK)

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            for _ in range(3):
                assert await whole(client) == b"ok"
                await asyncio.sleep(0.01)
            assert server.connections == 3
            await client.close()

    run(main())


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_request_that_was_sent_whole_is_never_sent_twice(how: str, serve: Any, run: Run) -> None:
    """The server closed just after it had the request: whether to ask again is for the attempt loop to decide."""
    bodies: list[tuple[int, bytes]] = []

    async def script(peer: Any) -> None:
        for turn in range(2):
            _, body = await peer.request()
            bodies.append((peer.number, body))
            if turn == 1 and how == "reset":
                peer.reset()
            if turn == 1:
                return
            await peer.send(OK)

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            assert await whole(client, b"1") == b"ok"
            with pytest.raises(UpstreamFailure, match="before it answered") as caught:
                await whole(client, b"2")
            assert caught.value.kind == "server_error"
            assert await whole(client, b"3") == b"ok"
            await client.close()

    run(main())
    assert bodies == [(0, b"1"), (0, b"2"), (1, b"3")]


def test_a_lost_connection_is_a_server_error(serve: Any, run: Run) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        if peer.number == 0:
            await peer.send(OK)
            await peer.request()

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            await whole(client)
            with pytest.raises(UpstreamFailure, match="before it answered") as caught:
                await ask(client)
            assert (caught.value.kind, server.connections) == ("server_error", 1)
            await client.close()

    run(main())


def test_no_retry_once_a_byte_has_come(serve: Any, run: Run) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.send(b"H")

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            await whole(client)
            with pytest.raises(UpstreamFailure) as caught:
                await ask(client)
            assert (caught.value.kind, server.connections) == ("server_error", 1)
            await client.close()

    run(main())


@pytest.mark.parametrize("noticed", ["by the loop", "at the last moment"])
def test_bytes_on_an_idle_connection_end_it(noticed: str, serve: Any, run: Run) -> None:
    """A late answer of another request must not become the answer of the next."""
    stray: list[Callable[[], None]] = []

    async def script(peer: Any) -> None:
        stray.append(lambda: peer.writer.write(OK.replace(b"ok", b"NO")))
        await polite(peer)

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            assert await whole(client) == b"ok"
            stray[0]()  # straight to the socket: the client's side has not seen it yet
            if noticed == "by the loop":
                await asyncio.sleep(0.02)
                assert client.idle == 0
            assert await whole(client) == b"ok"
            assert server.connections == 2
            await client.close()

    asyncio.run(main())
    if noticed == "by the loop":
        stray.clear()
        run(main())


def test_two_answers_on_a_reused_connection_are_not_trusted(serve: Any, run: Run) -> None:
    """The first of them may belong to the request before."""

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.send(OK.replace(b"ok", b"NO") + OK)

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            assert await whole(client) == b"ok"
            with pytest.raises(UpstreamFailure, match="belong to no request") as caught:
                await whole(client)
            assert caught.value.kind == "malformed"
            await client.close()

    run(main())


def test_idle_limit(serve: Any, run: Run) -> None:
    async def main() -> None:
        async with serve(polite) as server:
            client = HttpClient(server.url, max_idle=3)
            responses = await asyncio.gather(*(ask(client) for _ in range(5)))
            for response in responses:
                await response.read(10)
                response.close()
            assert client.idle == 3
            assert server.connections == 5
            await client.close()

    run(main())


@pytest.mark.parametrize("seen", ["by the sweep", "when taken"])
def test_idle_timeout(seen: str, serve: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serve(polite) as server:
            client = HttpClient(server.url)
            monkeypatch.setattr(http, "IDLE_SECONDS", 0.02 if seen == "by the sweep" else 30)
            await whole(client)
            monkeypatch.setattr(http, "IDLE_SECONDS", 0.02)
            await asyncio.sleep(0.06)
            assert client.idle == (0 if seen == "by the sweep" else 1)
            await whole(client)
            assert server.connections == 2
            await client.close()

    run(main())


def test_after_close_nothing_is_kept_or_made(serve: Any, run: Run, sockets: Callable[[], int]) -> None:
    async def main() -> None:
        async with serve(polite) as server:
            client = HttpClient(server.url)
            await whole(client)
            under_way = await ask(client)
            await client.close()
            under_way.close()
            assert client.idle == 0
            with pytest.raises(UpstreamFailure, match="closing"):
                await ask(client)
            await client.close()

    before = sockets()
    run(main())
    assert sockets() == before


def test_an_exchange_leaves_nothing_for_the_collector(serve: Any, run: Run) -> None:
    """The parser refers to the exchange that owns it: left in place, each request would be a cycle."""

    async def main() -> None:
        async with serve(polite) as server:
            client = HttpClient(server.url)
            response = await ask(client)
            await response.read(10)
            response.close()
            left = weakref.ref(response)
            del response
            assert left() is None
            await client.close()

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


def test_a_server_that_closes_what_it_promised_to_keep_is_not_trusted_again_for_a_while(serve: Any, run: Run) -> None:
    """llama.cpp ends its connections after a stream without saying so; the next request would be lost on its way."""

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(OK)
        if peer.number == 0:
            await peer.request()
            await peer.send(OK)

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            assert await whole(client) == b"ok"
            assert client.idle == 1
            assert await whole(client) == b"ok"
            while client.idle:  # noqa: ASYNC110 - the pool tells nobody when a server closes
                await asyncio.sleep(0.01)
            for connections in (2, 3, 4):
                assert await whole(client) == b"ok"
                assert (client.idle, server.connections) == (0, connections)
            await client.close()

    run(main())
