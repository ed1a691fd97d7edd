"""Limits, cancelling, back-pressure and TLS: what holds when one side is slow, gone, or somebody else."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import UpstreamFailure
from gateway.providers.http import HttpClient

from .client import OK, Run, ask, polite, whole

BIG = bytes(range(256)) * 20_000  # 5 MB


@pytest.mark.parametrize("where", ["head", "body", "read", "sending", "tls"])
def test_cancelling_closes_at_once(where: str, serve: Any, run: Run, sockets: Callable[[], int]) -> None:
    class Seen:
        reached: asyncio.Event
        gone: asyncio.Event

    async def script(peer: Any) -> None:
        if where == "sending":
            peer.reader._transport.pause_reading()
            Seen.reached.set()
            await asyncio.Event().wait()
        elif where == "tls":
            Seen.reached.set()
        else:
            await peer.request()
            if where != "head":
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
            Seen.reached.set()
        await peer.closed()
        Seen.gone.set()

    async def use(client: HttpClient) -> None:
        response = await client.request("/", [], BIG if where == "sending" else b"", connect_timeout=5)
        await (response.read(100) if where == "read" else response.chunk())

    async def main() -> None:
        Seen.reached, Seen.gone = asyncio.Event(), asyncio.Event()
        async with serve(script) as server:
            client = HttpClient(server.url.replace("http:", "https:") if where == "tls" else server.url)
            task = asyncio.create_task(use(client))
            await Seen.reached.wait()
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if where != "sending":  # there the server does not read, and so does not see the end
                await asyncio.wait_for(Seen.gone.wait(), 60)
            assert client.idle == 0
            await client.close()

    before = sockets()
    run(main())
    assert sockets() == before


def test_connect_timeout_covers_tls(serve: Any, run: Run) -> None:
    async def silent(peer: Any) -> None:
        await peer.closed()

    async def main() -> None:
        async with serve(silent) as server:
            client = HttpClient(server.url.replace("http:", "https:"))
            with pytest.raises(UpstreamFailure, match=r"^no connection within 0.05 s$") as caught:
                await ask(client, connect_timeout=0.05)
            assert caught.value.kind == "connect"
            await client.close()

    run(main())


@pytest.mark.parametrize("reused", [False, True])
def test_connect_timeout_covers_sending(reused: bool, serve: Any, run: Run) -> None:
    async def script(peer: Any) -> None:
        if reused:
            await peer.request()
            await peer.send(OK)
        peer.reader._transport.pause_reading()
        await asyncio.Event().wait()

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            if reused:
                await whole(client)
            with pytest.raises(UpstreamFailure, match="the request was not taken in time") as caught:
                await ask(client, BIG * 4, connect_timeout=0.7)
            assert (caught.value.kind, server.connections) == ("connect", 1)
            await client.close()

    run(main())


def test_reset_while_sending_is_connect(serve: Any, run: Run) -> None:
    async def script(peer: Any) -> None:
        await peer.reader.readexactly(1000)
        peer.reset()

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            with pytest.raises(UpstreamFailure) as caught:
                await ask(client, BIG * 4)
            assert caught.value.kind == "connect"
            await client.close()

    run(main())


def test_a_large_body_arrives_whole_and_the_connection_stays(serve: Any, run: Run) -> None:
    async def script(peer: Any) -> None:
        while True:
            _, body = await peer.request()
            await peer.send(OK.replace(b"ok", b"=!" if body == BIG else b"no"))

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            assert [await whole(client, BIG) for _ in range(2)] == [b"=!", b"=!"]
            assert server.connections == 1
            await client.close()

    run(main())


def test_an_early_answer_is_heard_and_ends_the_connection(serve: Any, run: Run) -> None:
    async def script(peer: Any) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(OK.replace(b"200 OK", b"413 No"))
        await peer.closed()

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            response = await ask(client, BIG * 4)
            assert (response.status, await response.read(10)) == (413, b"ok")
            response.close()
            assert client.idle == 0
            await client.close()

    run(main())


def test_a_slow_reader_slows_the_upstream(serve: Any, run: Run) -> None:
    sent = 0

    async def script(peer: Any) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(BIG) * 8))
        for _ in range(8):
            for at in range(0, len(BIG), 100_000):
                await peer.send(BIG[at : at + 100_000])
                sent += 100_000
        await peer.closed()

    async def main() -> None:
        nonlocal sent
        sent = 0
        async with serve(script) as server:
            client = HttpClient(server.url)
            response = await ask(client)
            await asyncio.sleep(0.3)
            assert sent < len(BIG) * 4  # what the kernel's buffers hold, and no more
            first = await response.chunk()
            assert len(first) < 1_000_000
            assert first + await response.read(len(BIG) * 8) == BIG * 8
            response.close()
            assert client.idle == 1
            await client.close()

    run(main())


def test_pieces_that_wait_come_together(serve: Any, run: Run) -> None:
    more: list[asyncio.Event] = []

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in (b"a", b"b", b"c"):
            await peer.send(b"1\r\n%b\r\n" % piece)
        await more[0].wait()
        await peer.send(b"1\r\nd\r\n0\r\n\r\n")

    async def main() -> None:
        more.append(asyncio.Event())
        async with serve(script) as server:
            client = HttpClient(server.url)
            response = await ask(client)
            await asyncio.sleep(0.02)
            assert await response.chunk() == b"abc"
            more[0].set()
            assert [await response.chunk() for _ in range(3)] == [b"d", b"", b""]
            response.close()
            await client.close()

    run(main())


def test_one_reader(serve: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        await peer.closed()

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            response = await ask(client)
            reader = asyncio.create_task(response.chunk())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="one reader"):
                await response.chunk()
            response.close()  # and closing wakes who waits
            with pytest.raises(UpstreamFailure, match="closed"):
                await reader
            await client.close()

    asyncio.run(main())


def test_tls(serve: Any, run: Run, tmp_path: Any, sockets: Callable[[], int]) -> None:
    trustme = pytest.importorskip("trustme")
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    other.cert_pem.write_to_path(str(tmp_path / "other.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    async def fails(url: str, ca: str) -> str:
        client = HttpClient(url, ca_file=ca)
        with pytest.raises(UpstreamFailure) as caught:
            await ask(client, connect_timeout=5)
        await client.close()
        assert caught.value.kind == "connect"
        return caught.value.message

    async def main() -> None:
        names: list[str] = []

        def remember(_: ssl.SSLObject | ssl.SSLSocket, name: str | None, __: ssl.SSLContext) -> None:
            names.append(name or "")

        context.sni_callback = remember
        async with serve(polite, context) as server:
            url = f"https://localhost:{server.port}"
            client = HttpClient(url, ca_file=str(tmp_path / "ca.pem"))
            assert [await whole(client), await whole(client, BIG)] == [b"ok", b"ok"]
            assert (server.connections, names) == (1, ["localhost"])
            await client.close()
            assert "CERTIFICATE_VERIFY_FAILED" in await fails(url, str(tmp_path / "other.pem"))
            assert "unable to get local issuer certificate" in await fails(url, "")
            ip = f"https://127.0.0.1:{server.port}"
            told = await fails(ip, str(tmp_path / "ca.pem"))
            assert told == "TLS failed: CERTIFICATE_VERIFY_FAILED (it is for another name)"  # which is not the client's

    before = sockets()
    run(main())
    assert sockets() == before


def test_plain_http_where_tls_is_meant(serve: Any, run: Run) -> None:
    async def script(peer: Any) -> None:
        await peer.reader.read(100)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url.replace("http:", "https:"))
            with pytest.raises(UpstreamFailure, match=r"^TLS failed: [A-Z_]+$") as caught:
                await ask(client)
            assert caught.value.kind == "connect"
            await client.close()

    run(main())


def test_a_ca_file_that_is_not_there() -> None:
    with pytest.raises(OSError, match=r"."):
        HttpClient("https://localhost", ca_file="/nowhere/ca.pem")
