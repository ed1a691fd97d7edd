"""HTTP/1.1 to one origin: a pool of connections on httptools, for the hot path only.

Vocabulary: an **origin** is scheme, host and port; an **exchange** is one request and its answer; a connection is
**idle** while it is in the pool and **owned** by one exchange otherwise. `http_exchange.py` has the connection, the
exchange and the rules by which a connection may be used again; this file finds a connection and sends the request.

httpx does everything else, and is what the tests compare this client with. Why there is an own client:
docs/decisions/0004-own-http-client.md. Its worst possible fault is to give one customer's answer to another, so it
gives up a connection on any doubt.

No redirects are followed, no proxies, no cookies, no content codings: `accept-encoding: identity` is sent.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from gateway.errors import UpstreamFailure
from gateway.providers.http_exchange import READ_SIZE, Connection, Failure, HttpResponse

HASTY = 1.0  # seconds: a server that closes so soon after an answer that it promised to keep open will do it again
MISTRUST = 60.0  # seconds without reuse after that (llama.cpp does it after every stream)
IDLE_SECONDS = 55.0  # just under the 60 s after which many servers and load balancers close
_BODILESS = frozenset({b"GET", b"DELETE"})  # RFC 9110, 8.6: no content-length where none is expected
_OTHER_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH (openssl/x509_vfy.h)
PIECE = 256 * 1024  # bytes of a request body handed to the transport at once


class Body(Protocol):
    """What is too large to be in memory."""

    def __len__(self) -> int: ...

    async def read(self, start: int, size: int) -> bytes:
        """Bytes from `start` on: at least one, at most `size`; none at the end. It can be read again."""


class HttpClient:
    """Requests to one base URL. Belongs to the event loop that first uses it."""

    def __init__(self, base_url: str, *, ca_file: str = "", max_idle: int = 256) -> None:
        """`ca_file`: PEM file of the authorities to trust instead of the system's.

        Raises ValueError for a URL that cannot be used, OSError for a `ca_file` that cannot be read.
        """
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("the base URL must be http://host[:port][/path] or https://...")
        if url.username is not None or url.password is not None:
            raise ValueError("the base URL must not hold a user name or password")
        self._host = url.hostname if url.hostname.isascii() else url.hostname.encode("idna").decode()
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._ssl = _tls(ca_file) if url.scheme == "https" else None
        self._path = url.path.rstrip("/").encode("ascii")
        self._query = f"?{url.query}".encode("ascii") if url.query else b""
        host = f"[{self._host}]" if ":" in self._host else self._host
        host = host if url.port is None else f"{host}:{url.port}"
        self._static = f" HTTP/1.1\r\nhost: {host}\r\naccept-encoding: identity\r\n".encode("ascii")
        self._max_idle = max_idle
        self._idle: dict[Connection, float] = {}  # -> since when; a dict, so that nothing can be in it twice
        self._open: set[Connection] = set()  # every connection whose socket exists
        self._sweep: asyncio.TimerHandle | None = None
        self._all_closed: asyncio.Future[None] | None = None
        self._closed = False
        self._mistrust_until = 0.0  # on the loop's clock
        self._buffer = bytearray(READ_SIZE)

    @property
    def idle(self) -> int:
        """How many connections are in the pool."""
        return len(self._idle)

    async def request(
        self,
        path: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes | Body,
        *,
        connect_timeout: float,
        on_sending: Callable[[], None] = lambda: None,
    ) -> HttpResponse:
        """Posts, and returns once status and headers are there. `path` is appended to that of the base URL.

        `connect_timeout`: seconds for DNS, TCP, TLS and what of the request the upstream takes at once; of a large body
        also for each further piece. Waiting for the answer has no limit here.
        `on_sending`: called when there is a connection, before the first byte goes.

        Raises UpstreamFailure `connect` before the request was sent whole, `server_error` when the connection is lost
        before the answer, `malformed` when the answer is not HTTP; ValueError for a header with a line break.
        A connection from the pool that dies before the request was sent whole is replaced by a new one, once. After
        that it is a failure like any other: sending a POST twice is for the attempt loop to decide (RFC 9110, 9.2.2).
        """
        head = self._head(b"POST", path, headers, len(body))
        connection = self._take()
        if connection is not None:
            on_sending()
            response = HttpResponse(connection, reused=True)
            await self._exchange(response, connection, (head, body), connect_timeout)
            if response.started and response.sent:
                return response
            response.close()
            if response.sent:
                self._mistrust()
                raise self._failed(response)
        return await self._request_anew(head, body, connect_timeout, on_sending)

    async def send(
        self,
        method: bytes,
        path: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes | Body,
        connect_timeout: float,
    ) -> HttpResponse:
        """A request of any method whose body can be read only once, so on a connection of its own. Raises as `request`.

        A body of unknown length (`sys.maxsize`) brings the framing of its chunks along.
        """
        head = self._head(method, path, headers, len(body))
        return await self._request_anew(head, body, connect_timeout, lambda: None)

    async def get(self, path: str, headers: Sequence[tuple[bytes, bytes]], *, connect_timeout: float) -> HttpResponse:
        """Asks for `path`, on a connection of its own. Raises as `request`."""
        return await self._request_anew(self._head(b"GET", path, headers, 0), b"", connect_timeout, lambda: None)

    async def close(self) -> None:
        """Closes every connection and returns when the sockets are gone."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in list(self._open):
            connection.drop()
        if self._open:
            self._all_closed = asyncio.get_running_loop().create_future()
            await self._all_closed

    async def _request_anew(
        self, head: bytes, body: bytes | Body, connect_timeout: float, on_sending: Callable[[], None]
    ) -> HttpResponse:
        begun = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(connect_timeout):
                connection = await self._connect()
        except TimeoutError:
            raise UpstreamFailure("connect", f"no connection within {connect_timeout:g} s") from None
        response = HttpResponse(connection, reused=False)
        on_sending()
        left = connect_timeout - (asyncio.get_running_loop().time() - begun)
        await self._exchange(response, connection, (head, body), left)
        if response.started:
            return response
        response.close()
        raise self._failed(response)

    async def _exchange(
        self, response: HttpResponse, connection: Connection, request: tuple[bytes, bytes | Body], limit: float
    ) -> None:
        """Sends, and waits for the head of the answer or for a failure."""
        head, body = request
        if isinstance(body, bytes) and len(body) <= PIECE:
            connection.transport.write(head + body)
            response.sent = not connection.write_paused
            body = b""
        else:
            connection.transport.write(head)
        if not response.sent:
            await self._send_rest(response, connection, body, limit)
        while not response.started and response.failure is None:
            await response.wait()

    async def _send_rest(
        self, response: HttpResponse, connection: Connection, body: bytes | Body, limit: float
    ) -> None:
        """Writes as fast as the upstream reads. An answer that comes before the end (a 413, say) stops it."""
        loop = asyncio.get_running_loop()
        at = 0
        try:
            async with asyncio.timeout(limit) as timer:
                while not response.began and response.failure is None:
                    if connection.write_paused or connection.transport.is_closing():
                        await response.wait()  # for room, or for the failure to be told
                    elif at < len(body):
                        piece = await self._piece(response, body, at)
                        connection.transport.write(piece)
                        at += len(piece)
                        timer.reschedule(loop.time() + limit)
                    else:
                        response.sent = True
                        return
        except TimeoutError:
            raise UpstreamFailure("connect", "the request was not taken in time") from None

    async def _piece(self, response: HttpResponse, body: bytes | Body, at: int) -> bytes | memoryview:
        if isinstance(body, bytes):
            return memoryview(body)[at : at + PIECE]
        try:
            return await body.read(at, PIECE)
        except BaseException:  # cancellation above all: the connection must not stay owned
            response.close()
            raise

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        name = self._host if self._ssl is not None else None
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self, self._buffer), self._host, self._port, ssl=self._ssl, server_hostname=name
            )
        except TimeoutError:
            raise
        except ssl.SSLError as error:
            raise UpstreamFailure("connect", f"TLS failed: {_tls_reason(error)}") from None
        except OSError as error:
            raise UpstreamFailure("connect", f"cannot connect: {_reason(error)}") from None
        # Not in `connection_made`: uvloop never reports the loss of a connection whose making was cancelled.
        if not connection.gone:
            self._open.add(connection)
        if self._closed:
            connection.drop()
            raise UpstreamFailure("connect", "the gateway is closing its connections")
        return connection

    def _head(self, method: bytes, path: str, headers: Sequence[tuple[bytes, bytes]], length: int) -> bytes:
        lines = [b"%b: %b\r\n" % header for header in headers]
        if length == sys.maxsize:
            lines.append(b"transfer-encoding: chunked\r\n")
        elif length or method not in _BODILESS:
            lines.append(b"content-length: %d\r\n" % length)
        query = self._query.replace(b"?", b"&", 1) if "?" in path else self._query
        head = b"".join((method, b" ", self._path, path.encode(), query, self._static, *lines, b"\r\n"))
        breaks = len(lines) + 4  # of the request line, host, accept-encoding and the empty line
        if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
            raise ValueError("a header of the request holds a line break or a null")
        return head

    def _failed(self, response: HttpResponse) -> UpstreamFailure:
        failure = response.failure or Failure(malformed=False, detail="the exchange was closed")
        kind = "malformed" if failure.malformed else "server_error" if response.sent else "connect"
        return UpstreamFailure(kind, failure.detail)

    # The pool (`http_exchange.Pool`).

    def _take(self) -> Connection | None:
        """The connection that was used last, so that the surplus of a busy hour is left to expire."""
        oldest = asyncio.get_running_loop().time() - IDLE_SECONDS
        while self._idle:
            connection, since = self._idle.popitem()
            if since >= oldest:
                if not connection.doubtful():
                    return connection
                self._closed_by_peer(since)
            connection.drop()
        return None

    def _closed_by_peer(self, since: float) -> None:
        if asyncio.get_running_loop().time() - since < HASTY:
            self._mistrust()

    def _mistrust(self) -> None:
        """The next request on a kept connection might be lost to a close on its way, so none is kept for a while."""
        self._mistrust_until = asyncio.get_running_loop().time() + MISTRUST

    def release(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= self._max_idle:
            connection.drop()
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now < self._mistrust_until:
            connection.drop()
            return
        self._idle[connection] = now
        if self._sweep is None:
            self._sweep = loop.call_later(IDLE_SECONDS, self._expire)

    def forget(self, connection: Connection, *, closed: bool) -> None:
        since = self._idle.pop(connection, None)
        if since is not None and not self._closed:
            self._closed_by_peer(since)
        if closed:
            self._open.discard(connection)
            if self._all_closed is not None and not self._open and not self._all_closed.done():
                self._all_closed.set_result(None)

    def _expire(self) -> None:
        """Closes what has been idle too long. Runs at most every IDLE_SECONDS / 2, whatever the traffic."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - IDLE_SECONDS
        for connection in [c for c, since in self._idle.items() if since <= oldest]:
            connection.drop()
        self._sweep = loop.call_later(IDLE_SECONDS / 2, self._expire) if self._idle else None


def _reason(error: OSError) -> str:
    """Without the address, which asyncio writes into `strerror`: clients read this, and it is not theirs to know."""
    if isinstance(error, socket.gaierror):
        return str(error.strerror)  # EAI_* numbers are not errno's
    return os.strerror(error.errno) if error.errno else "several addresses, each failed"


def _tls_reason(error: ssl.SSLError) -> str:
    """OpenSSL's word, and what is wrong with a certificate; without the name that it should have, as above."""
    why = error.reason or type(error).__name__
    if not isinstance(error, ssl.SSLCertVerificationError):
        return why
    return f"{why} ({'it is for another name' if error.verify_code in _OTHER_NAME else error.verify_message})"


def _tls(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file or None)
    context.set_alpn_protocols(["http/1.1"])
    return context
