"""The fault that must not be: one request's answer given to another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from gateway.errors import UpstreamFailure
from gateway.providers.http import HttpClient
from gateway.providers.http_exchange import HttpResponse

Run = Callable[[Coroutine[Any, Any, None]], None]
WORKERS, TURNS = 60, 40


def _framed(body: bytes, dice: random.Random) -> tuple[bytes, bool]:
    """An answer in one of the framings, and whether the connection must end behind it."""
    match dice.randrange(4):
        case 0:
            return b"HTTP/1.1 200 OK\r\n\r\n" + body, True
        case 1:
            return b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body, True
        case 2:
            half = len(body) // 2
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part)
            return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n", False
        case _:
            return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body, False


def _pieces(raw: bytes, dice: random.Random) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        size = dice.choice([1, 20, 60, 100_000])
        yield raw[at : at + size]
        at += size


def _echo(dice: random.Random) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """Answers with the request's own body, late, in pieces, cut, doubled, or not at all."""

    async def script(peer: Any) -> None:
        while True:
            _, body = await peer.request()
            fate = dice.random()
            if fate < 0.04:
                return
            if fate < 0.06:
                peer.reset()
                return
            raw, ends = _framed(body, dice)
            if fate < 0.10:
                raw, ends = raw[: dice.randrange(len(raw))], True
            elif fate < 0.14 and len(raw) < 1000 and not ends:
                # In one piece. (HTTP/1.1 has no request ids: a second answer that comes later, when the next request
                # has been sent, is that request's answer to any client.)
                await peer.send(raw + raw)
                continue
            for piece in _pieces(raw, dice):
                await peer.send(piece)
                await asyncio.sleep(dice.choice([0, 0, 0.0005]))
            if ends or dice.random() < 0.05:
                return

    return script


async def _take(response: HttpResponse, *, by_chunk: bool) -> bytes:
    if not by_chunk:
        return await response.read(10_000_000)
    got = b""
    while data := await response.chunk():
        got += data
    return got


@pytest.mark.parametrize("seed", range(3))
def test_no_answer_is_ever_mixed_up(seed: int, serve: Any, run: Run, sockets: Callable[[], int]) -> None:
    dice = random.Random(seed)  # noqa: S311  # not a secret: the same dice each time
    tally = {"whole": 0, "failed": 0, "given up": 0}

    async def once(client: HttpClient, token: bytes) -> None:
        body = token * dice.choice([1, 1, 40, 4000])
        response = await client.request("/", [], body, connect_timeout=5)
        try:
            if dice.random() < 0.1:
                tally["given up"] += 1
                return
            got = await _take(response, by_chunk=dice.random() < 0.5)
            # One that the end of the connection framed may be short; none may be another's.
            assert got == body or (body.startswith(got) and "content-length" not in response.headers)
            tally["whole"] += got == body
        finally:
            response.close()
            if dice.random() < 0.3:
                response.close()

    async def worker(client: HttpClient, number: int) -> None:
        for turn in range(TURNS):
            task = asyncio.create_task(once(client, b"<%d.%d>" % (number, turn)))
            if dice.random() < 0.15:
                await asyncio.sleep(dice.choice([0, 0, 0.0005, 0.002]))
                tally["given up"] += task.cancel()
            try:
                await task
            except UpstreamFailure:
                tally["failed"] += 1
            except asyncio.CancelledError:
                continue

    async def main() -> None:
        async with serve(_echo(dice)) as server:
            client = HttpClient(server.url, max_idle=8)
            async with asyncio.timeout(60):
                await asyncio.gather(*(worker(client, number) for number in range(WORKERS)))
            assert server.connections < WORKERS * TURNS  # connections were used again, or this proves nothing
            await client.close()

    before = sockets()
    run(main())
    assert sockets() == before
    assert tally["whole"] > WORKERS * TURNS / 2
    assert min(tally.values()) > WORKERS * TURNS / 50
