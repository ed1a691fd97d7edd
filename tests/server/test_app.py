"""The public application under clients that take their time, and at its end: what they are told, what is recorded."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import uvloop

from gateway.admission import Admission
from gateway.config.load import load
from gateway.health import Health
from gateway.keyring import Keyring
from gateway.owners import Owners
from gateway.rates import Rates
from gateway.runtime import Gateway
from gateway.server.app import PublicApp
from gateway.server.listener import Listener
from gateway.server.locals import LocalModels
from gateway.server.observe import Memory, Observer, shared
from gateway.server.options import Sizes
from gateway.server.protocol import Limits
from gateway.sessions import Sessions
from gateway.telemetry.log import Log
from tests import replies
from tests.server.conversation import Client, serving
from tests.upstream import STALL, Upstream

ROUTES = """
version: 1
providers: {up: {base_url: "@BASE@"}}
models: {m: {provider: up, model: m-up, price: unmetered}}
"""
SHORT = Limits(body_idle=0.3, body=0.6, body_rate=50_000)
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "x"}]'
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"


class Scene(NamedTuple):
    client: Client
    server: Listener
    gateway: Gateway
    upstream: Upstream


def tell(directory: Path, story: Callable[[Scene], Awaitable[None]], limits: Limits = SHORT) -> None:
    async def play(upstream: Upstream) -> None:
        (directory / "routes.yaml").write_text(ROUTES.replace("@BASE@", upstream.base_url))
        config = load(directory / "routes.yaml")
        observer = Observer(Log(io.BytesIO(), "text"))
        observer.configure(config)
        health = Health(observer.emit)
        health.configure(config)
        given = shared(config, observer, health, Admission(), Memory(Sessions(), Owners()), Rates())
        gateway = Gateway(config, LocalModels().provider, given)
        app = PublicApp(gateway, Keyring(), Sizes(1_000_000))
        async with serving(app, limits, drain_timeout=0.2) as (server, port):
            client = await Client.to(port)
            await story(Scene(client, server, gateway, upstream))
            await client.close()
        await gateway.close()

    with Upstream(replies.ok()) as upstream:
        uvloop.run(play(upstream))


def test_a_body_that_stops_is_408(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        at.client.say(HEAD % (len(BODY) + 1) + BODY)
        status, error = await at.client.error()
        assert (status, error["type"]) == (408, "invalid_request_error")
        assert at.upstream.requests == []

    tell(tmp_path, story)


def test_a_body_that_drips_in_is_408(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        at.client.say(HEAD % 10_000)

        async def drip() -> None:
            while True:
                at.client.say(b" ")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert (await at.client.error())[0] == 408
        dripping.cancel()

    tell(tmp_path, story)


def test_a_large_body_has_more_time(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        size = 80_000  # at 50,000 bytes a second that is 1.6 s on top of 0.6
        at.client.say(HEAD % size + BODY)
        left = size - len(BODY) - 1
        while left:
            piece = min(left, 8_000)
            left -= piece
            await asyncio.sleep(0.12)
            at.client.say(b" " * piece)
        at.client.say(b"}")
        assert (await at.client.answer())[0] == 200

    tell(tmp_path, story, SHORT._replace(body_idle=1.0))


def test_the_end_of_the_drain_time_is_told_to_a_stream(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        at.upstream.script("m-up", replies.words_then([STALL]))
        body = BODY + b', "stream": true}'
        at.client.say(HEAD % len(body) + body)
        await at.client.reader.readuntil(b"word1")
        at.server.should_exit = True
        rest = await at.client.reader.read()
        assert b'"code": "overloaded"' in rest
        assert b"[DONE]" not in rest
        assert rest.endswith(b"0\r\n\r\n")

    tell(tmp_path, story)


def test_the_end_of_the_drain_time_is_503_for_who_has_no_answer_yet(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        at.upstream.script("m-up", lambda _: [STALL])
        at.client.say(HEAD % (len(BODY) + 1) + BODY + b"}")
        await asyncio.to_thread(at.upstream.wait_for, lambda up: len(up.requests) == 1)
        at.server.should_exit = True
        status, headers, _ = await at.client.answer()
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")

    tell(tmp_path, story)
