"""Upstreams that fail at a chosen moment: replies for `tests.upstream`, and ports where no HTTP comes about."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

from tests import replies
from tests.replies import DONE, END, ERROR, Tokens, chunked, event, http, role, stream_head, words_then
from tests.upstream import CLOSE, End, Received, Reply, Step

CONTENT = "word0 word1 "  # what `replies.words_then` sends before it fails, and what `part` holds
FILTERED = {"message": "the response was filtered by the content management policy", "code": "content_filter"}


def refusal(code: int, error: Mapping[str, Any] | None = None, *, sent: float = 1.0) -> Reply:
    """A 4xx or 5xx. `sent`: how much of its body comes before the connection ends."""
    made_up = {"message": f"made-up {code}", "type": "made_up", "param": None, "code": None}
    body = json.dumps({"error": {**made_up, **(error or {})}}).encode()
    whole = http(code, body)
    if sent == 1.0:
        return replies.raw(whole)
    return replies.raw(whole[: len(whole) - len(body) + int(len(body) * sent)], CLOSE)


def head_then(ending: End) -> Reply:
    """The status and headers of a good answer, and nothing of its body."""
    return by_mode(lambda received: [answer(received)[0]], [stream_head()], ending)


def role_then(*ending: Step) -> Reply:
    """Streamed: a role chunk and a comment. Not streamed: the answer up to where its content would begin."""

    def reply(received: Received) -> Iterator[Step]:
        if received.stream:
            yield stream_head() + role(received) + chunked(b": still here\n\n")
        else:
            head, body = answer(received)
            yield head + body[: body.index(CONTENT.encode())]
        yield from ending

    return reply


def part(ending: End, *, but: int = 40) -> Reply:
    """Not streamed: an answer with its content, without the last `but` bytes."""
    return lambda received: [b"".join(answer(received))[:-but], ending]


def by_mode(plain: Callable[[Received], list[bytes]], streamed: list[bytes], ending: End) -> Reply:
    return lambda received: [*(streamed if received.stream else plain(received)), ending]


def answer(received: Received) -> tuple[bytes, bytes]:
    """The head and the body of a good answer that is not streamed."""
    body = json.dumps(replies.body_of(received, CONTENT, Tokens().reported(), {})).encode()
    whole = http(200, body)
    return whole[: -len(body)], body


def finish(received: Received, reason: str = "stop") -> bytes:
    """The final chunk of a stream."""
    choice = {"index": 0, "delta": {}, "finish_reason": reason}
    chunk = {"id": "cmpl-1", "object": "chat.completion.chunk", "model": f"{received.model}-2026"}
    return event({**chunk, "choices": [choice]})


def words_and_finish(*ending: Step, reason: str = "stop") -> Reply:
    """Streamed: content, its finish, and then `ending`."""

    return lambda received: [*words_then([finish(received, reason)])(received), *ending]


def half_a_finish_then(ending: End) -> Reply:
    """Streamed: the connection stops inside the chunk that holds the finish."""

    def reply(received: Received) -> Iterator[Step]:
        whole = finish(received)
        yield from words_then([whole[: len(whole) // 2], ending])(received)

    return reply


def finishes_with(reason: str, content: str | None, message: Mapping[str, Any] | None = None) -> Reply:
    """A whole, proper 200 with this finish; without content where it is None."""

    def reply(received: Received) -> Iterator[Step]:
        if received.stream:
            yield from (words_then([]) if content else replies.raw(stream_head() + role(received)))(received)
            yield finish(received, reason)
            usage = Tokens(output=5 if content else 0).reported()
            yield event({"id": "cmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": usage}) + DONE + END
        else:
            extra = {"content": content, **(message or {})}
            body = replies.body_of(received, "", Tokens(output=5 if content else 0).reported(), extra)
            body["choices"][0]["finish_reason"] = reason
            yield http(200, json.dumps(body).encode())

    return reply


def error_as_json() -> Reply:
    """A 200 of application/json whose body is an error, also where a stream was asked for."""
    return replies.raw(http(200, json.dumps(ERROR).encode()))


def whole_answer() -> Reply:
    """A good answer in one piece, whatever was asked for."""
    return lambda received: [b"".join(answer(received))]


def endless_event() -> Reply:
    """Streamed: after content, one event of more than 16 MiB."""
    piece = chunked(b"x" * 1024 * 1024)
    return words_then([chunked(b"data: "), *[piece] * 17, CLOSE])


def final_chunk_is_not_json() -> Reply:
    return words_then([chunked(b'data: {"choices": [{"finish_reas\n\n') + DONE + END])


class Port(Enum):
    """Ports where no request arrives whole."""

    REFUSED = "nobody listens at the port"
    NO_TLS = "the port answers TLS with something else"
    SILENT_TLS = "the port accepts and never answers the TLS greeting"
    RESETS = "the connection is reset while a large request is on its way"
    NEVER_READS = "the port takes the connection and never reads the large request"

    @property
    def large(self) -> bool:
        """Whether it takes a request that does not fit the socket's buffers."""
        return self in (Port.RESETS, Port.NEVER_READS)

    @property
    def scheme(self) -> str:
        return "https" if self in (Port.NO_TLS, Port.SILENT_TLS) else "http"


@contextlib.contextmanager
def faulty_ports() -> Iterator[dict[Port, str]]:
    """The base URL of each."""
    with contextlib.ExitStack() as stack:
        yield {port: f"{port.scheme}://127.0.0.1:{stack.enter_context(_serving(port))}/v1" for port in Port}


@contextlib.contextmanager
def _serving(port: Port) -> Iterator[int]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))  # held, but without `listen` every connection is refused
        number = int(listener.getsockname()[1])
        if port is Port.REFUSED:
            yield number
            return
        listener.listen(64)
        if port in (Port.SILENT_TLS, Port.NEVER_READS):
            yield number  # the kernel accepts; nobody reads
            return
        thread = threading.Thread(target=_misbehave, args=(listener, port), daemon=True)
        thread.start()
        try:
            yield number
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # ends `accept`
            thread.join(5)


def _misbehave(listener: socket.socket, port: Port) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # the test is over
        with connection, contextlib.suppress(ConnectionError):
            connection.settimeout(5)
            connection.recv(1024)
            if port is Port.NO_TLS:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            else:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
