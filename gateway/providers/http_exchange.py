"""One connection, and the one exchange that may own it: where bytes of an upstream become one answer.

An `HttpResponse` is an exchange: it is made for one request, has its own parser, and knows its connection only until
it ends. The connection knows its exchange only as long. Both links are cut in `HttpResponse._let_go`, the one place
from which a connection goes back to the pool, so an exchange that has ended can neither receive nor release anything.

A connection goes back only after a whole message with keep-alive, every byte of it taken, and nothing behind it.
Bytes that nobody asked for, an end of file, a parse error, an answer that began before the request was sent, and a
cancelled wait each end the connection.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Mapping
from typing import NamedTuple, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.errors import UpstreamFailure

HEADER_LIMIT = 64 * 1024  # bytes of status lines, headers and trailers; also of framing between two pieces of body
READ_SIZE = 32 * 1024  # bytes read from a socket at once
UNREAD_LIMIT = 64 * 1024  # bytes waiting for the reader before the socket is left to fill up


class Pool(Protocol):
    """Where a connection comes from."""

    def release(self, connection: Connection) -> None:
        """Takes back a connection that is fit for another exchange."""

    def forget(self, connection: Connection, *, closed: bool) -> None:
        """The connection must not be used again; `closed` says that its socket is gone as well."""


class Failure(NamedTuple):
    malformed: bool  # the bytes were wrong; else the connection was lost
    detail: str


class BadAnswerError(HttpParserError):
    """Raised in a parser callback to stop the parser."""


class Connection(asyncio.BufferedProtocol):
    """A socket, with or without TLS. `exchange` is its owner; None while it is idle.

    `buffer` is shared by all connections of a pool: what is read is copied out before anything else is read. Without
    one, uvloop reads up to 256 KiB at a time into memory of each connection's own, which stalled readers would hold.
    """

    def __init__(self, pool: Pool, buffer: bytearray) -> None:
        self._pool = pool
        self._buffer = buffer
        self.exchange: HttpResponse | None = None
        self.transport: asyncio.Transport
        self.write_paused = False
        self.gone = False  # the socket no longer exists
        self._poll = select.poll()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        # So that `write_paused` says whether anything is unsent. To TLS transports (asyncio's and uvloop's), which
        # compare with >=, 0 would mean "paused for ever".
        tls = transport.get_extra_info("ssl_object") is not None
        self.transport.set_write_buffer_limits(high=1 if tls else 0)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002  # the buffer has the size it has
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.exchange is None:
            self.drop()
        else:
            self.exchange.feed(bytes(memoryview(self._buffer)[:nbytes]))

    def eof_received(self) -> None:
        if self.exchange is None:
            self.drop()
        else:
            self.exchange.end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.gone = True
        self.write_paused = False
        self._pool.forget(self, closed=True)
        if self.exchange is not None:
            self.exchange.end(error)

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.exchange is not None:
            self.exchange.wake()

    def doubtful(self) -> bool:
        """Whether an idle connection has ended or has bytes waiting that the event loop has not delivered yet.

        Such bytes would be taken for the next request's answer.
        """
        return self.gone or self.transport.is_closing() or bool(self._poll.poll(0))

    def release(self) -> None:
        if self.gone or self.transport.is_closing():
            self.drop()
        else:
            self._pool.release(self)

    def drop(self) -> None:
        """Closes at once. What is unsent or unread is lost."""
        self._pool.forget(self, closed=self.gone)
        self.transport.abort()


class HttpResponse:
    """An answer under way: implements `gateway.providers.base.Upstream`. Made and started by `HttpClient.request`."""

    def __init__(self, connection: Connection, *, reused: bool) -> None:
        self.status = 0
        self.reused = reused  # the connection has served another exchange before
        self.sent = False  # the request has been handed over whole
        self.began = False  # a byte has come
        self.started = False  # status and headers are there
        self.failure: Failure | None = None
        self._headers: dict[str, str] = {}
        self.headers: Mapping[str, str] = (
            self._headers
        )  # lower-case names; repeated ones joined (RFC 9110, section 5.3)
        self._connection: Connection | None = connection
        self._parser = HttpResponseParser(self)  # refers to us: `_let_go` breaks the cycle
        self._pieces: list[bytes] = []  # of the body, that nobody has taken yet
        self._unread = 0  # bytes in there
        self._header_size = 0
        self._fed = 0  # bytes since the last piece of body
        self._complete = False
        self._until_eof = False
        self._reusable = True
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        connection.exchange = self

    # What the caller does.

    async def read(self, limit: int) -> bytes:
        """The whole body that is left. Raises UpstreamFailure `malformed`: cut short, or longer than `limit` bytes."""
        declared = self._headers.get("content-length", "")
        if declared and int(declared) > limit:
            self._let_go()
            raise UpstreamFailure("malformed", f"the answer has {declared} bytes, more than the {limit} allowed")
        parts: list[bytes] = []
        size = 0
        while piece := await self._next("malformed"):
            size += len(piece)
            if size > limit:
                self._let_go()
                raise UpstreamFailure("malformed", f"the answer has more than the {limit} bytes allowed")
            parts.append(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunk(self) -> bytes:
        """All that has arrived since the last call, or else the next piece; b"" at the proper end of the body."""
        return await self._next("stream_cut")

    def close(self) -> None:
        """Gives the connection back if the answer was read whole, else drops it at once."""
        self._let_go()

    async def _next(self, kind: str) -> bytes:
        while not self._pieces:
            if self.failure is not None:
                self._let_go()
                raise UpstreamFailure(kind, self.failure.detail)
            if self._complete:
                return b""
            await self.wait()
        pieces = self._pieces
        self._pieces = []
        self._unread = 0
        if self._paused and self._connection is not None:
            self._paused = False
            self._connection.transport.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def wait(self) -> None:
        """Returns when something has changed. A cancelled wait closes the connection at once."""
        if self._waiter is not None:
            raise RuntimeError("an answer has one reader")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except BaseException:  # cancellation above all; it goes on, but never with the connection left owned
            self._let_go()
            raise
        finally:
            self._waiter = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _let_go(self) -> None:
        """Ends the ownership, once: the connection goes back to the pool, or dies."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.exchange = None
        del self._parser
        if self._complete and self._reusable and not self._pieces:
            connection.release()
            return
        connection.drop()
        if not self._complete and self.failure is None:
            self.failure = Failure(malformed=False, detail="the exchange was closed")
        self.wake()

    # What the connection does.

    def feed(self, data: bytes) -> None:
        if self._complete or self.failure is not None:
            self._stray()
            return
        if not self.began:
            self.began = True
            if not self.sent:
                self._reusable = False
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._parser_stopped(str(error.__context__ or error))
        if self._fed > HEADER_LIMIT and not self._complete:
            self._fail(f"more than {HEADER_LIMIT} bytes of headers or framing")
        if self._unread > UNREAD_LIMIT and not (self._paused or self._complete) and self._connection is not None:
            self._paused = True
            self._connection.transport.pause_reading()
        self.wake()

    def end(self, error: Exception | None) -> None:
        """The end of file, or the loss of the connection with an error."""
        self._reusable = False
        if self._complete or self.failure is not None:
            return
        if self._until_eof and error is None:
            self._complete = True
        else:
            what = "the answer was whole" if self.started else "it answered"
            reason = f" ({error})" if error is not None and str(error) else ""
            self.failure = Failure(malformed=False, detail=f"the upstream closed the connection before {what}{reason}")
        self.wake()

    def _parser_stopped(self, detail: str) -> None:
        if self._complete:
            self._stray()
        else:
            self._fail(detail)

    def _fail(self, detail: str) -> None:
        self._reusable = False
        if self.failure is None:
            self.failure = Failure(malformed=True, detail=f"the upstream's answer is not proper HTTP: {detail}")

    def _stray(self) -> None:
        """Bytes behind the answer. On a connection that served before, the answer may be that of an older request."""
        self._reusable = False
        if self.reused and self.failure is None and (self._pieces or not self.started):
            self._pieces = []
            self._complete = False
            self._fail("bytes that belong to no request")

    # What the parser does (httptools' callbacks).

    def on_message_begin(self) -> None:
        if self._complete:
            raise BadAnswerError("bytes behind the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_size += len(name) + len(value) + 4
        if self._header_size > HEADER_LIMIT:
            raise BadAnswerError(f"more than {HEADER_LIMIT} bytes of headers")
        if self.started:
            return  # a trailer
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1").rstrip(" \t")  # llhttp strips the front only
        before = self._headers.get(key)
        self._headers[key] = text if before is None else f"{before}, {text}"

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101 or status < 100:
                raise BadAnswerError(f"status {status}, which nobody asked for")
            self._headers.clear()
            return
        self.status = status
        headers = self._headers
        encoding = headers.get("content-encoding")
        if encoding is not None and encoding.strip().lower() not in ("identity", ""):
            raise BadAnswerError("it is content-encoded, although the request allowed identity only")
        coding = headers.get("transfer-encoding")
        if coding is None:
            self._until_eof = "content-length" not in headers and status not in (204, 304)
        elif coding.strip().lower() != "chunked":
            raise BadAnswerError("an unknown transfer coding")
        self.started = True

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._unread += len(body)
        self._fed = 0

    def on_message_complete(self) -> None:
        if not self.started:
            return  # 1xx
        self._complete = True
        if not self._parser.should_keep_alive():
            self._reusable = False
