"""uvicorn's HTTP protocol with the limits it lacks, and with errors in OpenAI's envelope.

A connection is always in one **phase**: NEW (not a byte yet), HEAD (of a request, not whole), BODY (not whole), ANSWER
(the request is whole, its answer is not) or IDLE (between requests). Limits in time are kept by `look`, which the
listener calls about twice a second for every connection: nothing on the way of a request reads a clock or sets a timer.

Heads are bounded in size (RFC 9110, 5.4; RFC 6585, 5: status 431), heads and bodies in time (RFC 9110, 15.5.9: 408),
pipelined requests in number. What a client does not read of its answer is not kept: the writer waits, and a client that
reads nothing at all is cut off.

Two things that uvicorn makes of a request are not made here. Who asks for another protocol (Java's HTTP client offers
h2c with each request) is served in this one, with its body (RFC 9110, 7.8; Kludex/uvicorn#2722). And what comes behind
a body is no header of the request (RFC 9110, 6.5.1): a proxy in front may have taken out what must not be said.
"""

from __future__ import annotations

import asyncio
import http
from enum import IntEnum
from typing import Any, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.errors import GatewayError, Overloaded, RequestError
from gateway.flight import new_id
from gateway.server.errors import envelope

HEAD_LIMIT = 32 * 1024  # bytes of request line and headers together
HEADER_COUNT_LIMIT = 200
PIPELINE_LIMIT = 8  # requests that wait behind the one that is being answered
WRITE_BUFFER = 64 * 1024  # bytes of an answer that wait for their reader before whoever writes has to wait as well
LAST_CALL = 0.5  # seconds an idle connection is kept once the listener is closed: its next request may be under way
CONNECTION = "connection"  # in the scope's `state`: the BoundedHttpProtocol that a request came by

NEW, IDLE, HEAD, BODY, ANSWER = range(5)
_OF_UPGRADES = (b"upgrade", b"http2-settings")  # headers, and options of `connection`


class Limits(NamedTuple):
    """What a client may take. Times are seconds, exact to half a second."""

    connections: int = 10_000  # of one process
    first_byte: float = 30.0  # from the connection on
    head: float = 10.0  # from its first byte to its last
    body_idle: float = 15.0  # between two pieces of a body
    body: float = 30.0  # a whole body, plus its size divided by
    body_rate: float = 64 * 1024  # bytes a second
    leftover: float = 15.0  # for the rest of a body that was answered before it was whole
    keep_alive: float = 75.0  # longer than the 60 s after which common load balancers drop theirs
    unread: float = 30.0  # for any progress in taking an answer that is complete on our side


class Stage(IntEnum):
    """How far a listener is from its end."""

    SERVING = 0
    LEAVING = 1  # everything is served, but answers say `connection: close`
    CLOSING = 2  # no new connections, and idle ones end


class ListenerState(ServerState):
    """uvicorn's state of one listener, which it hands to each connection."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self.stage = Stage.SERVING
        self.refused = 0  # connections beyond the limit


class BoundedHttpProtocol(HttpToolsProtocol):
    """One client connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(server_state, ListenerState)
        self.listener = server_state
        self.too_slow = False  # the body did not come in time: answer 408
        self._phase = NEW
        self._messages = 0  # begun so far; with the phase it tells one moment from another
        self._head_size = 0  # of the parts the parser has delivered
        self._head_received = 0  # of what came in while the head was incomplete
        self._body_received = 0
        self._error: GatewayError | None = None
        self._deaf = False  # refused: what still comes in is not looked at
        self._declined = False  # another protocol was asked for: the parser has read the head, and stops there
        self._looked = (NEW, 0)
        self._since: float | None = None  # of the phase
        self._moved = 0.0  # when it last got on
        self._seen = 0  # bytes received or unsent at that time

    # What comes in

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        limit = self.listener.limits.connections
        if len(self.connections) > limit:
            self.listener.refused += 1
            self._refuse(Overloaded(f"The gateway has {limit} connections open, its limit."))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._deaf = True
        self.pipeline.clear()
        # Else the connection and its last request would keep each other alive.
        self.scope = self.cycle = None  # type: ignore[assignment]  # as they are at first

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._phase == BODY:
            self._body_received += len(data)
        else:
            self._head_received += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._decline(data[upgrade.args[0] :])
        except HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        if self._head_received > HEAD_LIMIT and self._phase != BODY and not self._deaf:
            self._refuse(_too_large())

    def on_message_begin(self) -> None:
        self._phase = HEAD
        self._messages += 1
        self._head_size = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow(len(name) + len(value) + 4)
        if self._phase == BODY:
            return  # it comes behind it
        if len(self.headers) >= HEADER_COUNT_LIMIT:
            self._grow(HEAD_LIMIT)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= PIPELINE_LIMIT:
            raise ValueError("too many pipelined requests")  # see `_grow`; the client must expect it (RFC 9112, 9.3.2)
        self._declined = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if self._declined:
            return
        self._phase = BODY
        self._head_received = self._body_received = 0
        self.scope["state"][CONNECTION] = self
        super().on_headers_complete()
        if self.listener.stage:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        if self._declined:
            return
        self._phase = IDLE if self.cycle.response_complete else ANSWER
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """uvicorn's, without its timer for idle connections."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._phase == ANSWER:
            self._phase = IDLE
        else:
            self._messages += 1  # what is left of the body is another thing now

    def _grow(self, size: int) -> None:
        self._head_size += size
        if self._head_size > HEAD_LIMIT:
            self._error = _too_large()
            raise ValueError("head too large")  # httptools makes it HttpParserCallbackError, uvicorn a refusal

    def _decline(self, rest: bytes) -> None:
        """Reads a request once more, without its wish for another protocol: a parser that saw that reads no body."""
        if not self._declined:  # CONNECT
            self.send_400_response("There is no tunnel here.")
            return
        self._declined = False
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                kept = [each for each in value.split(b",") if each.strip().lower() not in _OF_UPGRADES]
                lines.append(b"connection: " + b",".join(kept))
            elif name not in _OF_UPGRADES:
                lines.append(b"%b: %b" % (name, value))
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    # What goes out of the usual

    def send_400_response(self, msg: str) -> None:
        """uvicorn's hook for a head that cannot be served."""
        self._refuse(self._error or RequestError(f"{msg} The request is not valid HTTP/1.1."))

    def _refuse(self, error: GatewayError) -> None:
        """Ends the connection with an error; after the answers that are under way, where there are any."""
        self._deaf = True
        cycle = self.cycle
        answering = cycle is not None and not cycle.response_complete
        if answering and self._phase != BODY:
            cycle.keep_alive = False
            return
        if answering:
            if cycle.response_started or self.pipeline:
                self.abort()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        named = {"x-request-id": new_id(), **error.headers}  # of ours: the client's may not have been whole
        extra = "".join(f"{name}: {value}\r\n" for name, value in named.items()).encode("latin-1")
        body = envelope(error)
        head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\nconnection: close\r\n\r\n"
        reason = http.HTTPStatus(error.status).phrase.encode()
        self.transport.write(head % (error.status, reason, extra, len(body)) + body)
        self.transport.close()

    def abort(self) -> None:
        """Drops the connection and all that is unsent; `transport.close` would wait for the client to read it."""
        if self.cycle is not None:
            self.cycle.disconnected = True
        self.transport.abort()

    @property
    def reading(self) -> bool:
        """Whether the client takes what it is sent."""
        return not self.flow.write_paused

    def announce(self) -> None:
        """Lets the answer under way say `connection: close`, if it has not begun: later nobody would be told."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """uvicorn's, when the listener closes. `look` ends idle connections then."""
        self.announce()

    # Limits in time

    def look(self, now: float) -> None:
        """Ends what has taken too long. `now`: seconds on the loop's clock."""
        moment = (self._phase, self._messages)
        if moment != self._looked or self._since is None:
            self._looked = moment
            self._since = self._moved = now
        limits = self.listener.limits
        if self.transport.is_closing():
            self._look_at_rest(now)
        elif self._phase == BODY:
            self._look_at_body(now, self._since)
        elif self.cycle is not None and not self.cycle.response_complete:
            self._since = now  # the next head has its time after this answer
        elif self._phase == HEAD:
            if now - self._since > limits.head:
                self._refuse(RequestError(f"The head was not whole within {limits.head:g} s.", status=408))
        elif self.transport.get_write_buffer_size():
            self._look_at_rest(now)
            self._since = now
        else:
            idle = limits.first_byte if self._phase == NEW else limits.keep_alive
            if now - self._since > (LAST_CALL if self.listener.stage == Stage.CLOSING else idle):
                self.transport.close()

    def _look_at_body(self, now: float, since: float) -> None:
        limits = self.listener.limits
        if self.cycle.response_complete:
            if now - since > limits.leftover:
                self.abort()
        elif self.flow.read_paused:  # by us: its turn has not come
            self._since = self._moved = now
        elif not self.too_slow:
            self._got_on(now, self._body_received)
            whole = limits.body + self._body_received / limits.body_rate
            if now - self._moved > limits.body_idle or now - since > whole:
                self.too_slow = True
                self.cycle.keep_alive = False
                self.cycle.message_event.set()

    def _look_at_rest(self, now: float) -> None:
        """Of an answer, which only the client's reading can bring out."""
        got_on = self._got_on(now, self.transport.get_write_buffer_size())
        if not got_on and now - self._moved > self.listener.limits.unread:
            self.abort()

    def _got_on(self, now: float, count: int) -> bool:
        if count == self._seen:
            return False
        self._seen, self._moved = count, now
        return True


def connection_of(scope: Scope) -> BoundedHttpProtocol:
    """The connection that a request came by."""
    connection: BoundedHttpProtocol = scope["state"][CONNECTION]
    return connection


def _too_large() -> RequestError:
    return RequestError(
        f"The request line and headers are larger than {HEAD_LIMIT} bytes or more than {HEADER_COUNT_LIMIT} in number.",
        status=431,
        code="request_too_large",
    )
