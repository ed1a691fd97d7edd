"""What the client makes of an upstream that behaves, and of one that does not, byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import httpx
import pytest

from gateway.errors import UpstreamFailure
from gateway.providers.http import HttpClient
from gateway.providers.http_exchange import HttpResponse

Run = Callable[[Coroutine[Any, Any, None]], None]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
HEADERS = [(b"content-type", b"application/json")]
BIG = b"x" * 3_000_000

T = TypeVar("T")


async def ask(client: HttpClient, body: bytes = b"{}", connect_timeout: float = 5.0) -> HttpResponse:
    return await client.request("/chat", HEADERS, body, connect_timeout=connect_timeout)


async def whole(client: HttpClient, body: bytes = b"{}", limit: int = 10_000_000) -> tuple[int, bytes]:
    response = await ask(client, body)
    try:
        return response.status, await response.read(limit)
    finally:
        response.close()


async def failure(awaitable: Awaitable[object]) -> tuple[str, str]:
    with pytest.raises(UpstreamFailure) as caught:
        await asyncio.wait_for(awaitable, 60)
    return caught.value.kind, caught.value.message


class Answer(NamedTuple):
    name: str
    raw: bytes
    status: int = 200
    body: bytes = b"ok"
    keeps: bool = True  # the connection serves a second request


ANSWERS = [
    Answer("content-length", OK),
    Answer("chunked", CHUNKED + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n"),
    Answer("chunk extension and trailer", CHUNKED + b"2;a=b\r\nok\r\n0\r\nx-t: 1\r\n\r\n"),
    Answer("no content", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    Answer("an empty body", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b""),
    Answer("no reason phrase", b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok"),
    Answer("100 first", b"HTTP/1.1 100 Continue\r\nx-a: 1\r\n\r\n" + OK),
    Answer("103 first", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK),
    Answer("identity coding", b"HTTP/1.1 200 OK\r\ncontent-encoding: identity\r\ncontent-length: 2\r\n\r\nok"),
    Answer("an error", b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nok", 503),
    Answer("a redirect", b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 2\r\n\r\nok", 302),
    Answer("connection: close", b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", keeps=False),
    Answer("HTTP/1.0", b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", keeps=False),
    Answer("until the end", b"HTTP/1.1 200 OK\r\n\r\nok", keeps=False),
    Answer("bytes behind", OK + b"stray", keeps=False),
    Answer("a second answer behind", OK + OK.replace(b"ok", b"no"), keeps=False),
    Answer("bytes behind the last chunk", CHUNKED + b"2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK", keeps=False),
    Answer("a body with 204", b"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\nabc", 204, b"", keeps=False),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
def test_answers(answer: Answer, serve: Any, run: Run, sockets: Callable[[], int]) -> None:
    """Each twice: a connection is used again only after a message that leaves no doubt."""
    requests: list[tuple[bytes, bytes]] = []

    async def script(peer: Any) -> None:
        while True:
            requests.append(await peer.request())
            await peer.send(answer.raw)
            if answer.name == "until the end":
                return

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            try:
                assert [await whole(client, b'{"a": 1}') for _ in range(2)] == [(answer.status, answer.body)] * 2
            finally:
                await client.close()
            assert server.connections == (1 if answer.keeps else 2)
            sent = (
                f"POST /v1/chat HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\naccept-encoding: identity\r\n"
                "content-type: application/json\r\ncontent-length: 8\r\n\r\n"
            )
            assert requests == [(sent.encode(), b'{"a": 1}')] * 2

    before = sockets()
    run(main())
    assert sockets() == before


@pytest.mark.parametrize("answer", [a for a in ANSWERS if a.name != "a body with 204"], ids=lambda answer: answer.name)
def test_httpx_sees_the_same(answer: Answer, serve: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(answer.raw)
        await asyncio.sleep(0.01)

    async def main() -> None:
        async with serve(script) as server, httpx.AsyncClient() as reference:
            client = HttpClient(server.url)
            theirs = await reference.post(f"{server.url}/chat", content=b"{}")
            ours = await ask(client)
            assert (ours.status, await ours.read(100)) == (theirs.status_code, theirs.content)
            assert dict(ours.headers) == dict(theirs.headers)
            ours.close()
            await client.close()

    asyncio.run(main())


def test_repeated_headers_are_joined(serve: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nX-Empty:\r\ncontent-length: 0\r\n\r\n")

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            response = await ask(client)
            assert response.headers == {"x-a": "1, 2", "x-empty": "", "content-length": "0"}
            response.close()
            await client.close()

    asyncio.run(main())


class Fault(NamedTuple):
    name: str
    raw: bytes
    kind: str
    says: str
    then: str = "close"  # or reset, hold


BEFORE = [
    Fault("closes", b"", "server_error", "before it answered"),
    Fault("resets", b"", "server_error", "before it answered", "reset"),
    Fault("closes in the head", b"HTTP/1.1 200 OK\r\ncont", "server_error", "before it answered"),
    Fault("only 100", b"HTTP/1.1 100 Continue\r\n\r\n", "server_error", "before it answered"),
    Fault("garbage", b"SSH-2.0-OpenSSH_9.2\r\n", "malformed", "Expected HTTP/", "hold"),
    Fault("bare line feeds", b"HTTP/1.1 200 OK\ncontent-length: 0\n\n", "malformed", "Missing expected CR", "hold"),
    Fault("two lengths", OK[:-4] + b"content-length: 3\r\n\r\nok", "malformed", "", "hold"),
    Fault("length and chunked", CHUNKED[:-2] + b"content-length: 2\r\n\r\n", "malformed", "Content-Length", "hold"),
    Fault("gzip", OK[:-4] + b"content-encoding: gzip\r\n\r\nok", "malformed", "content-encoded", "hold"),
    Fault("gzip transfer", CHUNKED.replace(b"chunked", b"gzip"), "malformed", "transfer coding", "hold"),
    Fault("gzip, chunked", CHUNKED.replace(b": c", b": gzip, c"), "malformed", "transfer coding", "hold"),
    Fault("switches protocols", b"HTTP/1.1 101 X\r\nupgrade: x\r\n\r\n", "malformed", "101", "hold"),
    Fault("one long header", b"HTTP/1.1 200 OK\r\nx: " + b"x" * 70_000, "malformed", "65536", "hold"),
    Fault("many headers", b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 9_000, "malformed", "65536", "hold"),
    Fault("endless 100s", b"HTTP/1.1 100 Continue\r\n\r\n" * 3_000, "malformed", "65536", "hold"),
]

WITHIN = [
    Fault("short", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", "", "before the answer was whole"),
    Fault(
        "short, reset", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", "", "before the answer was whole", "reset"
    ),
    Fault("no last chunk", CHUNKED + b"2\r\nok\r\n", "", "before the answer was whole"),
    Fault("cut in a chunk", CHUNKED + b"9\r\nok", "", "before the answer was whole"),
    Fault("cut in the last chunk", CHUNKED + b"2\r\nok\r\n0\r\n", "", "before the answer was whole"),
    Fault("a chunk too long", CHUNKED + b"2\r\nokok\r\n", "", "not proper HTTP", "hold"),
    Fault("no chunk size", CHUNKED + b"2\r\nok\r\nzz\r\n", "", "not proper HTTP", "hold"),
    Fault("endless trailers", CHUNKED + b"2\r\nok\r\n0\r\n" + b"x-a: b\r\n" * 9_000, "", "65536", "hold"),
    Fault("endless chunk extension", CHUNKED + b"2\r\nok\r\n1;" + b"x" * 400_000, "", "65536", "hold"),
    Fault("reset where the end would do", b"HTTP/1.1 200 OK\r\n\r\nok", "", "before the answer was whole", "reset"),
]


def playing(fault: Fault, gone: asyncio.Event) -> Callable[[Any], Awaitable[None]]:
    async def script(peer: Any) -> None:
        await peer.request()
        if fault.then == "hold":
            try:
                await peer.send(fault.raw)
                await peer.closed()
            finally:
                gone.set()
            return
        await peer.send(fault.raw)
        if fault.then == "reset":
            await asyncio.sleep(0.02)  # a reset that comes at once may overtake the bytes before it
            peer.reset()

    return script


@pytest.mark.parametrize("fault", BEFORE, ids=lambda fault: fault.name)
def test_no_answer(fault: Fault, serve: Any, run: Run, sockets: Callable[[], int]) -> None:
    async def main() -> None:
        gone = asyncio.Event()
        async with serve(playing(fault, gone)) as server:
            client = HttpClient(server.url)
            kind, message = await failure(ask(client))
            assert (kind, server.connections) == (fault.kind, 1)
            assert fault.says in message
            if fault.then == "hold":
                await asyncio.wait_for(gone.wait(), 60)  # the connection was given up
            await client.close()

    before = sockets()
    run(main())
    assert sockets() == before


@pytest.mark.parametrize("fault", WITHIN, ids=lambda fault: fault.name)
@pytest.mark.parametrize("way", ["read", "chunk"])
def test_broken_answer(fault: Fault, way: str, serve: Any, run: Run, sockets: Callable[[], int]) -> None:
    """`read` says malformed; `chunk` gives what came, then says stream_cut. Neither keeps the connection."""

    async def chunks(response: HttpResponse, got: list[bytes]) -> None:
        while data := await response.chunk():
            got.append(data)

    async def main() -> None:
        gone = asyncio.Event()
        async with serve(playing(fault, gone)) as server:
            client = HttpClient(server.url)
            response = await ask(client)
            if way == "read":
                kind, message = await failure(response.read(100))
                assert kind == "malformed"
            else:
                got: list[bytes] = []
                kind, message = await failure(chunks(response, got))
                assert kind == "stream_cut"
                assert b"".join(got).startswith(b"ok")
            assert fault.says in message
            response.close()
            if fault.then == "hold":
                await asyncio.wait_for(gone.wait(), 60)
            await client.close()

    before = sockets()
    run(main())
    assert sockets() == before


@pytest.mark.parametrize(
    "head",
    [b"content-length: 101", b"transfer-encoding: chunked", b"connection: close"],
    ids=lambda head: head.decode(),
)
def test_body_limit(head: bytes, serve: Any) -> None:
    body = b"64\r\n" + b"x" * 100 + b"\r\n1\r\nx\r\n0\r\n\r\n" if b"chunked" in head else b"x" * 101

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body)

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(server.url)
            kind, message = await failure(whole(client, limit=100))
            assert kind == "malformed"
            assert "the 100" in message
            if b"close" not in head:
                assert await whole(client, limit=101) == (200, b"x" * 101)
            await client.close()

    asyncio.run(main())


def test_refused(run: Run, unused_port: int) -> None:
    async def main() -> None:
        client = HttpClient(f"http://127.0.0.1:{unused_port}/v1")
        kind, message = await failure(ask(client))
        assert kind == "connect"
        assert message == "cannot connect: Connection refused"  # without the address, which is not the client's to know
        await client.close()

    run(main())


def test_unknown_host(run: Run) -> None:
    async def main() -> None:
        client = HttpClient("http://nobody.invalid/v1")
        kind, message = await failure(ask(client))
        assert kind == "connect"
        assert message.startswith("cannot connect: ")
        assert "nobody.invalid" not in message
        await client.close()

    run(main())


def test_ipv6(run: Run) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + head.split(b"\r\n")[1])
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "::1", 0)
        port = server.sockets[0].getsockname()[1]
        client = HttpClient(f"http://[::1]:{port}")
        assert await whole(client) == (200, f"host: [::1]:{port}".encode())
        await client.close()
        server.close()

    run(main())


@pytest.mark.parametrize("url", ["ftp://a/v1", "a:80", "http:///v1", "http://user:secret@a/v1", "http://a:99999"])
def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        HttpClient(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nb", b"a\rb", b"a\0b"])
def test_headers_cannot_smuggle(value: bytes) -> None:
    async def main() -> None:
        client = HttpClient("http://127.0.0.1:1")
        with pytest.raises(ValueError, match="line break"):
            await client.request("/", [(b"x", value)], b"", connect_timeout=1)

    asyncio.run(main())


def test_query_of_the_base_url_is_kept(serve: Any) -> None:
    async def script(peer: Any) -> None:
        head, _ = await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + head.split(b"\r\n")[0])

    async def main() -> None:
        async with serve(script) as server:
            client = HttpClient(f"http://localhost:{server.port}/openai/v1/?api-version=1")
            assert await whole(client) == (200, b"POST /openai/v1/chat?api-version=1 HTTP/1.1")
            await client.close()

    asyncio.run(main())
