"""Clients that read slowly, send slowly or leave: none of them costs memory, a connection, or an upstream's work."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import replies
from tests.servers import Gateway, until
from tests.upstream import STALL, Received, Reply, Step, Upstream

from .conftest import SECRET

ENV = {"UP_KEY": SECRET}
CLIENTS = 100
PIECE = 64 * 1024
PIECES = 400  # of one answer: 25 MB
MB = 1024 * 1024
HELD = 0.6 * MB  # at most, of one stream: what waits on both sides, and the sockets' own books
UPLOAD = 1.0  # seconds that a client makes a body wait
CANCELLED = "SELECT * FROM requests WHERE outcome = 'cancelled'"
IDLE = """
  - {name: flood, match: {model: flood}, use: [a], retries: 0, timeout: {idle: 1s, total: 30s}}
  - {name: text-only"""


def request(model: str, **more: object) -> bytes:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}], **more}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def connect(gateway: Gateway, receive_buffer: int = 0) -> socket.socket:
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", gateway.port))
    return connection


def rss(pid: int) -> int:
    """Bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def sockets(pid: int) -> int:
    count = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(each.readlink()).startswith("socket:")
    return count


class Flood:
    """A long stream, and how much of it the gateways took."""

    def __init__(self) -> None:
        self.taken = 0  # bytes

    def reply(self) -> Reply:
        event = {"choices": [{"index": 0, "delta": {"content": "x" * PIECE}, "finish_reason": None}]}
        piece = replies.event(event)

        def reply(received: Received) -> Iterator[Step]:
            yield replies.stream_head() + replies.role(received)
            for _ in range(PIECES):
                yield piece
                self.taken += len(piece)
            yield STALL

        return reply


def test_clients_that_never_read_cost_little_memory_and_are_cut_off(
    tmp_path: Path, routes: str, upstream: Upstream
) -> None:
    flood = Flood()
    upstream.always("a-up", flood.reply())
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(Gateway(tmp_path, routes.replace("\n  - {name: text-only", IDLE), env=ENV))
        for _ in range(50):
            gateway.chat("b")  # warm
        quiet, before = sockets(gateway.pid), rss(gateway.pid)
        clients = [stack.enter_context(connect(gateway, receive_buffer=4096)) for _ in range(CLIENTS)]
        for client in clients:
            client.sendall(request("flood", stream=True))
        most = 0

        def all_cut_off() -> bool:
            nonlocal most
            most = max(most, rss(gateway.pid))
            return len(gateway.rows(CANCELLED)) == CLIENTS

        until("the end of all streams", all_cut_off, 60)
        assert (most - before) / CLIENTS < HELD
        assert flood.taken < CLIENTS * PIECES * PIECE / 2  # the rest was never read from the upstream
        until("the upstreams to be closed", lambda: sum(r.gone.is_set() for r in upstream.seen("a-up")) == CLIENTS)
        until("the clients' connections to be dropped", lambda: sockets(gateway.pid) <= quiet + 2)
        for client in clients:
            with pytest.raises(ConnectionError):
                read_to_end(client)
        assert gateway.chat("b").status_code == 200
        assert "Traceback" not in gateway.log


def read_to_end(client: socket.socket) -> None:
    """Ends in a ConnectionError where the answer was cut off."""
    tail = b""
    while data := client.recv(MB):
        tail = (tail + data)[-64:]
    if not tail.endswith(b"0\r\n\r\n"):
        raise ConnectionResetError


def test_a_slow_upload_is_no_part_of_the_duration(gateway: Gateway) -> None:
    """It is the stage `read`. The pause begins once the gateway has asked for the body, when it knows the head."""

    def told() -> tuple[float, float, float]:
        names = [("gateway_request_duration_seconds_count", "b"), ("gateway_request_duration_seconds_sum", "b")]
        count, seconds = (gateway.metric(name, model=model) for name, model in names)
        return count, seconds, gateway.metric("gateway_stage_seconds_sum", stage="read")

    before = told()
    head, _, body = request("b").partition(b"\r\n\r\n")
    with contextlib.closing(connect(gateway)) as client:
        client.sendall(head + b"\r\nexpect: 100-continue\r\n\r\n")
        assert client.recv(MB).startswith(b"HTTP/1.1 100 ")
        client.sendall(body[:10])
        time.sleep(UPLOAD)
        whole = time.monotonic()
        client.sendall(body[10:])
        answered = client.recv(MB)
        assert answered.startswith(b"HTTP/1.1 200 ")
        until("it is counted", lambda: told()[0] == before[0] + 1)
        took = time.monotonic() - whole
    _, seconds, read = told()
    assert read - before[2] >= UPLOAD
    assert seconds - before[1] <= took
    found = re.search(rb"x-request-id: (\S+)", answered)
    assert found is not None
    one = "SELECT * FROM requests WHERE id = ?"
    assert until("its row", lambda: gateway.rows(one, found[1].decode()))[0]["duration"] <= took


def silence(_: Received) -> list[Step]:
    return [STALL]


@pytest.mark.parametrize(
    ("stream", "reply"),
    [(True, replies.words_then([STALL])), (True, replies.role_then_stall()), (True, silence), (False, silence)],
    ids=["mid-stream", "before the first token", "before the head", "not streamed"],
)
def test_a_client_that_hangs_up_frees_the_upstream_within_100_ms(
    gateway: Gateway, upstream: Upstream, stream: bool, reply: Reply
) -> None:
    before = len(gateway.rows(CANCELLED))
    took = [leave(gateway, upstream, stream, reply) for _ in range(5)]
    assert sorted(took)[1] < 0.1, took  # not of each: others share this machine
    until("the rows", lambda: len(gateway.rows(CANCELLED)) == before + 5)


def leave(gateway: Gateway, upstream: Upstream, stream: bool, reply: Reply) -> float:
    upstream.script("a-up", reply)
    seen = len(upstream.seen("a-up"))
    client = connect(gateway)
    client.sendall(request("a", stream=stream))
    upstream.wait_for(lambda up: len(up.seen("a-up")) > seen)
    time.sleep(0.02)
    client.close()
    left = time.monotonic()
    received = upstream.seen("a-up")[seen]
    assert received.gone.wait(60), "the upstream was left working"
    return received.gone_at - left
