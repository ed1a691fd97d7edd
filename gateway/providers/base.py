"""The seam between the engine and whatever serves models: one method wide."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol

from gateway.core.answers import Seen
from gateway.core.call import Call
from gateway.core.rules import Target
from gateway.core.traces import Header

REFUSAL_LIMIT = 1024 * 1024  # bytes of the body of an error status that are read
REFUSAL_SECONDS = 3.0  # and for how long: it follows the status at once, or never


class Upload(Protocol):
    """A request's body that is not in memory."""

    async def read(self, start: int, size: int) -> bytes:
        """Exactly so many bytes. Several may read at a time."""


class Attempt(NamedTuple):
    call: Call
    target: Target
    cap: int | None = None  # tokens of output to ask for at most, where the client has set no cap
    on_sending: Callable[[], None] = lambda: None  # called when the upstream may begin to work: until then it is free
    trace: tuple[Header, ...] | None = None  # traceparent, tracestate to send; None: the client's own, untouched
    upload: Upload | None = None  # of a form with files: its body as it came


class Passage(NamedTuple):
    """A request that goes to a provider as it is."""

    provider: str
    method: str
    target: str  # path below the base URL, with the query
    call: Call  # its headers, and what the gateway's own say; its body is not in it
    size: int  # bytes of its body; -1: it comes in chunks
    receive: Callable[[], Awaitable[bytes]]  # the next piece of its body; b"" at the end


class Passing(Protocol):
    """A provider with `passthrough:`."""

    async def open(self, passage: Passage) -> Upstream:
        """Sends it on and returns once the status and headers are there. Raises UpstreamFailure as Provider.open."""

    async def close(self) -> None:
        """Closes idle connections."""


class Upstream(Protocol):
    """An answer under way. Owned by one attempt; `close` must be called, always, and may be called twice."""

    status: int
    headers: Mapping[str, str]  # lower-case names

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamFailure `malformed` when it is cut short or longer than `limit` bytes."""

    async def chunk(self) -> bytes:
        """The next piece of the body as it arrives; b"" at its proper end. Raises UpstreamFailure `stream_cut`."""

    def close(self) -> None:
        """Gives the connection back if the answer was read whole, else drops it at once. Never blocks, never raises."""


class Provider(Protocol):
    """One entry under `providers:`, made live."""

    async def open(self, attempt: Attempt) -> Upstream:
        """Sends the call and returns once the status and headers are there.

        Raises UpstreamFailure: `connect` before the request was sent whole (refused, DNS, TLS, reset, connect timeout),
        `server_error` when the connection is lost before the answer, `malformed` when what came is not proper HTTP.
        Honours `target.timeouts.connect`; the longer limits are the engine's. Cancelling it closes the connection.
        """

    def read_answer(self, call: Call, body: bytes) -> Seen | None:
        """The view of a whole answer; None where it is not a JSON object."""

    def read_chunk(self, call: Call, data: bytes) -> Seen | None:
        """The view of one event's data; None where it is not a JSON object."""

    async def alive(self, timeout: float) -> bool:  # noqa: ASYNC109  # one number is the whole need
        """Whether the server answers at all, within `timeout` seconds. Costs no tokens; never raises."""

    async def close(self) -> None:
        """Closes idle connections. Answers under way have been waited for."""
