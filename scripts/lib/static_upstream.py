"""For scripts/bench: an upstream of static bytes, fast enough never to be what is measured.

`python static_upstream.py PORT`. A body with `"stream":true` gets EVENTS SSE events, one every PACE seconds.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

EVENTS, PACE = 500, 0.002

ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"static","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Hello! How can I help you today?"},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":20,"completion_tokens":9,"total_tokens":29}}'
)
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BASE = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"static","choices":['


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


WORD = chunk(BASE + b'{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}\n\n')
FINISH = chunk(BASE + b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n')
USAGE = chunk(BASE + b'],"usage":{"prompt_tokens":20,"completion_tokens":498,"total_tokens":518}}\n\n')
TAIL = FINISH + USAGE + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Static(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            lower = self.buffer[:end].lower()
            at = lower.find(b"content-length:")
            length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            if b'"stream":true' in body:
                self.transport.write(HEAD)
                self.send_event(EVENTS - 2)
            else:
                self.transport.write(PLAIN)

    def send_event(self, left: int) -> None:
        if self.transport.is_closing():
            return
        if left == 0:
            self.transport.write(TAIL)
            return
        self.transport.write(WORD)
        self.loop.call_later(PACE, self.send_event, left - 1)


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Static(loop), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
