"""What a client may take its time for, and what it may make us hold."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest
import uvloop

from gateway.server.listener import Listener
from gateway.server.protocol import LAST_CALL, PIPELINE_LIMIT, Limits, Stage
from tests.server.conversation import GET, App, Client, serving, until

SHORT = Limits(
    connections=5, first_byte=0.3, head=0.3, body_idle=0.4, body=0.6, leftover=0.3, keep_alive=0.3, unread=0.3
)
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"


class Scene(NamedTuple):
    client: Client
    app: App
    server: Listener


Story = Callable[[Scene], Awaitable[None]]


def tell(story: Story, limits: Limits = SHORT) -> None:
    """Plays a story with one client on a new listener."""

    async def play() -> None:
        app = App()
        async with serving(app, limits) as (server, port):
            client = await Client.to(port)
            await story(Scene(client, app, server))
            await client.close()

    uvloop.run(play())


def test_who_says_nothing_is_left_without_a_word() -> None:
    async def story(at: Scene) -> None:
        assert await at.client.ended()
        assert not at.server.server_state.connections

    tell(story)


def test_a_head_that_drips_in_is_408() -> None:
    async def story(at: Scene) -> None:
        dripping = asyncio.create_task(drip(at.client, GET[:-2], every=0.05))
        status, error = await at.client.error()
        dripping.cancel()
        assert (status, error["type"]) == (408, "invalid_request_error")
        assert at.app.ended == []

    tell(story)


async def drip(client: Client, data: bytes, every: float) -> None:
    for byte in data:
        client.say(bytes([byte]))
        await asyncio.sleep(every)


def test_blank_lines_are_no_head() -> None:
    async def story(at: Scene) -> None:
        dripping = asyncio.create_task(drip(at.client, b"\r\n" * 40, every=0.05))
        assert await at.client.ended()
        dripping.cancel()

    tell(story)


def test_the_next_head_has_its_time_after_the_answer_before_it() -> None:
    async def story(at: Scene) -> None:
        at.client.say(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n" + GET[:-2])
        await at.app.half.wait()
        await asyncio.sleep(SHORT.head * 2)
        at.app.go_on.set()
        at.client.say(GET[-2:])
        assert (await at.client.answer())[2] == b"onetwo"
        assert (await at.client.answer())[2] == b"0"

    tell(story)


def test_an_answer_may_take_longer_than_anything_a_client_may() -> None:
    async def story(at: Scene) -> None:
        at.client.say(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.sleep(1.0)
        at.app.go_on.set()
        assert (await at.client.answer())[2] == b"onetwo"

    tell(story)


def test_an_idle_connection_is_closed_and_one_in_use_is_not() -> None:
    async def story(at: Scene) -> None:
        for _ in range(6):
            at.client.say(GET)
            assert (await at.client.answer())[0] == 200
            await asyncio.sleep(0.3)  # all six are longer than may be idle, and one much shorter
        assert await at.client.ended()

    tell(story, SHORT._replace(keep_alive=1.2))


def test_a_body_answered_early_has_a_little_time_for_its_rest() -> None:
    async def story(at: Scene) -> None:
        at.client.say(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        assert (await at.client.answer())[0] == 200
        at.client.say(b"x" * 1000)  # in time
        at.client.say(GET)
        assert (await at.client.answer())[0] == 200
        at.client.say(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        assert (await at.client.answer())[0] == 200
        dripping = asyncio.create_task(drip(at.client, b"x" * 900, every=0.05))
        assert await at.client.ended()
        dripping.cancel()

    tell(story)


def test_pipelined_requests_are_bounded() -> None:
    async def story(at: Scene) -> None:
        at.client.say(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n" + GET * 1000)
        await at.app.half.wait()
        (connection,) = at.server.server_state.connections
        assert len(connection.pipeline) == PIPELINE_LIMIT  # type: ignore[union-attr]  # it is an HTTP protocol
        at.app.go_on.set()
        assert (await at.client.answer())[2] == b"onetwo"
        answers = [await at.client.answer() for _ in range(PIPELINE_LIMIT)]
        assert [headers.get("connection") for _, headers, _ in answers] == [None] * (PIPELINE_LIMIT - 1) + ["close"]
        assert await at.client.ended()

    tell(story)


UPGRADES = [b"upgrade: h2c\r\nconnection: Upgrade, HTTP2-Settings\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n"]
UPGRADES += [b"upgrade: websocket\r\nconnection: keep-alive, upgrade\r\nsec-websocket-key: x\r\n"]


@pytest.mark.parametrize("wish", UPGRADES, ids=["h2c", "websocket"])
def test_who_asks_for_another_protocol_is_served_in_this_one(wish: bytes) -> None:
    """With its body, however it comes, and so is what follows on the connection."""
    plain = POST.replace(b"host: x\r\n", b"host: x\r\n" + wish)
    chunks = b"POST / HTTP/1.1\r\nhost: x\r\n" + wish + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    get = GET.replace(b"host: x\r\n", b"host: x\r\n" + wish)

    async def story(at: Scene) -> None:
        for asked, body in [(plain % 5 + b"hello", b"5"), (chunks, b"3"), (get, b"0"), (get * 2 + chunks, b"0")]:
            at.client.say(asked)
            assert (await at.client.answer())[::2] == (200, body)
        assert [(await at.client.answer())[2] for _ in range(2)] == [b"0", b"3"]
        for byte in plain % 5 + b"hello":
            at.client.say(bytes([byte]))
            await asyncio.sleep(0)
        assert (await at.client.answer())[::2] == (200, b"5")
        at.client.say(plain.replace(b"connection: ", b"connection: close, ") % 0)
        assert (await at.client.answer())[0] == 200
        assert await at.client.ended(), "what else `connection` says still counts"

    tell(story, Limits())


def test_what_comes_behind_a_body_is_no_header() -> None:
    async def story(at: Scene) -> None:
        chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
        at.client.say(chunked + b"x-session-id: of-somebody-else\r\n\r\n")
        assert (await at.client.answer())[::2] == (200, b"3")
        assert at.app.headers == [(b"host", b"x"), (b"transfer-encoding", b"chunked")]
        at.client.say(chunked + b"x: y\r\n" * 10_000 + b"\r\n")
        assert (await at.client.error())[0] == 431

    tell(story, Limits())


def test_rubbish_behind_a_request_leaves_its_answer_whole() -> None:
    async def story(at: Scene) -> None:
        at.client.say(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        await at.app.half.wait()
        at.client.say(b"\x16\x03\x01 what is this\r\n\r\n" * 100)
        await asyncio.sleep(0.05)
        at.app.go_on.set()
        assert (await at.client.answer())[2] == b"onetwo"
        assert await at.client.ended()

    tell(story)


def test_a_broken_body_is_400() -> None:
    async def story(at: Scene) -> None:
        at.client.say(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc")
        await asyncio.sleep(0.05)
        at.client.say(b"de\r\nnonsense\r\n")
        status, error = await at.client.error()
        assert (status, error["type"]) == (400, "invalid_request_error")

    tell(story)


def test_connections_beyond_the_limit_are_refused_until_one_goes() -> None:
    async def play() -> None:
        async with serving(App(), SHORT._replace(connections=2, first_byte=9.0)) as (_, port):
            first, second, third = [await Client.to(port) for _ in range(3)]
            status, error = await third.error()
            assert (status, error["code"]) == (503, "overloaded")
            await first.close()
            await asyncio.sleep(0.05)
            fourth = await Client.to(port)
            for client in (second, fourth):
                client.say(GET)
                assert (await client.answer())[0] == 200
                await client.close()
            await third.close()

    uvloop.run(play())


def test_a_whole_answer_that_nobody_reads_is_dropped() -> None:
    async def play() -> None:
        app = App()
        app.big = 30_000_000
        async with serving(app, SHORT) as (server, port):
            client = await Client.to(port, receive_buffer=4096)
            client.say(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
            await until(lambda: app.ended == ["/big"])
            assert server.server_state.connections
            await until(lambda: not server.server_state.connections)
            await client.close()

    uvloop.run(play())


def test_a_whole_answer_that_is_read_slowly_arrives() -> None:
    async def play() -> None:
        app = App()
        app.big = 12_000_000
        async with serving(app, SHORT._replace(unread=0.8)) as (_, port):
            client = await Client.to(port, receive_buffer=65536)
            client.say(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
            await client.reader.readuntil(b"\r\n\r\n")
            for _ in range(12):  # over several times the limit
                await client.reader.readexactly(1_000_000)
                await asyncio.sleep(0.2)
            await client.close()

    uvloop.run(play())


# The way to the end


def test_leaving_answers_say_so_and_all_is_served() -> None:
    async def story(at: Scene) -> None:
        at.client.say(GET)
        assert "connection" not in (await at.client.answer())[1]
        at.server.announce()
        at.client.say(GET)  # a kept-alive connection
        status, headers, _ = await at.client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await at.client.ended()
        port = at.server.servers[0].sockets[0].getsockname()[1]
        another = await Client.to(port)
        another.say(GET)
        assert (await another.answer())[1]["connection"] == "close"
        await another.close()

    tell(story)


def test_an_answer_that_had_begun_keeps_its_connection_for_one_more_request() -> None:
    """Its client could not be told, and may send the next request in the very moment that the answer ends."""

    async def story(at: Scene) -> None:
        at.client.say(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        await at.app.half.wait()
        at.server.announce()
        at.server.should_exit = True
        await until(lambda: at.server.server_state.stage == Stage.CLOSING)
        at.app.go_on.set()
        assert "connection" not in (await at.client.answer())[1]
        await asyncio.sleep(LAST_CALL / 10)
        at.client.say(GET)
        assert (await at.client.answer())[1]["connection"] == "close"
        assert await at.client.ended()

    tell(story, SHORT._replace(keep_alive=9.0))


def test_closing_ends_idle_connections_and_refuses_new_ones() -> None:
    async def story(at: Scene) -> None:
        port = at.server.servers[0].sockets[0].getsockname()[1]
        at.client.say(GET)
        await at.client.answer()
        at.server.should_exit = True
        assert await at.client.ended(within=8.0)
        with pytest.raises(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=1):
            pass

    tell(story, SHORT._replace(keep_alive=9.0))
