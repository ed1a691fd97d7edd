"""uvicorn's HTTP protocol with the limits it lacks, and with errors in OpenAI's envelope.

uvicorn's httptools protocol collects a head of any size and answers a malformed one in plain text. Here a head is
bounded (RFC 9110, 5.4; RFC 6585, 5: status 431) and every refusal is one an SDK can read.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import GatewayError, RequestError
from gateway.server.errors import envelope

HEAD_LIMIT = 32 * 1024  # bytes of request line and headers together
HEADER_COUNT_LIMIT = 200


class BoundedHttpProtocol(HttpToolsProtocol):
    """Counts the bytes of each request's head, also of one whose end never comes."""

    _in_head = True
    _head_size = 0  # of the parts the parser has delivered
    _head_received = 0  # of what came in while the head was incomplete
    _error: GatewayError | None = None

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_received += len(data)
        super().data_received(data)
        if self._in_head and self._head_received > HEAD_LIMIT and not self.transport.is_closing():
            self._error = _too_large()
            self.send_400_response("")

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_size = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow(len(name) + len(value) + 4)
        if len(self.headers) >= HEADER_COUNT_LIMIT:
            self._grow(HEAD_LIMIT)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_received = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def _grow(self, size: int) -> None:
        self._head_size += size
        if self._head_size > HEAD_LIMIT:
            self._error = _too_large()
            raise ValueError(
                "head too large"
            )  # httptools turns it into HttpParserCallbackError, uvicorn into a refusal

    def send_400_response(self, msg: str) -> None:
        """uvicorn's hook for a head that cannot be served."""
        error = self._error or RequestError(f"{msg} The request is not valid HTTP/1.1.")
        body = envelope(error)
        reason = b"Request Header Fields Too Large" if error.status == 431 else b"Bad Request"
        head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (error.status, reason, len(body)) + body)
        self.transport.close()


def _too_large() -> RequestError:
    return RequestError(
        f"The request line and headers are larger than {HEAD_LIMIT} bytes or more than {HEADER_COUNT_LIMIT} in number.",
        status=431,
        code="request_too_large",
    )
