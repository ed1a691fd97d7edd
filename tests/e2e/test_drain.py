"""Rolling updates: whoever goes, goes without a refused request, and ends what does not end by itself."""

from __future__ import annotations

import contextlib
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests import replies
from tests.servers import Gateway, until
from tests.upstream import Gate, Upstream

from .conftest import SECRET

ENV = {"UP_KEY": SECRET}
BODY = {"model": "a", "messages": [{"role": "user", "content": "x"}]}
CLIENTS = 8


class Load:
    """Clients that keep their connections and go round a list of endpoints, as behind a Kubernetes service.

    A connection that the server did not announce to close is used again, also where its endpoint has left the list:
    that is what kube-proxy does.
    """

    def __init__(self, endpoints: list[str]) -> None:
        self.endpoints = endpoints
        self.failures: list[str] = []
        self.served: Counter[str] = Counter()
        self._stop = threading.Event()
        self._turn = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(self._client) for _ in range(CLIENTS)]
            try:
                yield
            finally:
                self._stop.set()
            for client in clients:
                client.result()

    def _client(self) -> None:
        limits = httpx.Limits(max_connections=1)
        while not self._stop.is_set():
            self._turn += 1
            endpoint = self.endpoints[self._turn % len(self.endpoints)]
            with httpx.Client(base_url=endpoint, trust_env=False, timeout=60, limits=limits) as client:
                self._use(client, endpoint)

    def _use(self, client: httpx.Client, endpoint: str) -> None:
        """Until the server says that the connection closes."""
        while not self._stop.is_set():
            try:
                answer = client.post("/v1/chat/completions", json=BODY)
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
                return
            self.served[endpoint] += 1
            if answer.status_code != 200:
                self.failures.append(f"{answer.status_code} {answer.text}")
            time.sleep(0.005)
            if answer.headers.get("connection") == "close":
                return


def ready(gateway: Gateway) -> bool:
    try:
        return gateway.ops.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("args", [[], ["--workers", "2"]], ids=["one process", "two workers"])
def test_a_rolling_update_fails_nobody(tmp_path: Path, routes: str, upstream: Upstream, args: list[str]) -> None:
    upstream.always("a-up", replies.after(0.01, replies.ok()))
    with contextlib.ExitStack() as stack:
        gateways = []
        for name in ("old", "new"):
            (tmp_path / name).mkdir()
            gateway = Gateway(tmp_path / name, routes, env=ENV, args=["--drain-delay", "4s", *args])
            gateways.append(stack.enter_context(gateway))
        old, new = gateways
        load = Load([old.url, new.url])
        with load.running():
            until("a steady load", lambda: min(load.served[old.url], load.served[new.url]) > 20)
            old.signal(signal.SIGTERM)
            until("readiness to end", lambda: not ready(old))
            time.sleep(0.7)  # until everybody has heard of it: endpoint controllers are not faster
            load.endpoints.remove(old.url)
            assert old.process
            assert old.process.wait(60) == 0
            before = load.served[new.url]
            until("the rest to go on", lambda: load.served[new.url] > before + 20)
        assert load.failures == []
        assert all_rows(old) == {("ok", 200): load.served[old.url]}


def all_rows(gateway: Gateway) -> dict[tuple[str, int], int]:
    """How many requests the ledger has, by outcome and status."""
    with contextlib.closing(sqlite3.connect(gateway.directory / "gateway.db")) as ledger:
        rows = ledger.execute("SELECT outcome, status, count(*) FROM requests GROUP BY 1, 2").fetchall()
    return {(outcome, status): count for outcome, status, count in rows}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("args", [[], ["--workers", "2"]], ids=["one process", "two workers"])
def test_what_does_not_end_by_itself_is_ended_and_told(
    tmp_path: Path, routes: str, upstream: Upstream, args: list[str], number: int
) -> None:
    upstream.script("a-up", replies.words_then([30.0]))
    upstream.script("b-up", lambda _: [30.0])
    given = ["--drain-delay", "100ms", "--drain-timeout", "500ms", *args]
    with Gateway(tmp_path, routes, env=ENV, args=given) as gateway, ThreadPoolExecutor(2) as pool:
        streamed, whole = pool.submit(gateway.chat, "a", stream=True), pool.submit(gateway.chat, "b")
        upstream.wait_for(lambda up: len(up.requests) == 2)
        time.sleep(0.1)
        began = time.monotonic()
        gateway.signal(number)
        assert gateway.process
        assert gateway.process.wait(60) == 0
        assert 0.5 < time.monotonic() - began < 25  # they would take 30
        assert '"code": "overloaded"' in streamed.result(60).text
        assert "[DONE]" not in streamed.result().text
        assert (whole.result(60).status_code, whole.result().json()["error"]["code"]) == (503, "overloaded")
        assert {outcome for outcome, _ in all_rows(gateway)} == {"cancelled"}
        assert sum(all_rows(gateway).values()) == 2
        assert "Traceback" not in gateway.log


@pytest.mark.parametrize("args", [[], ["--workers", "2"]], ids=["one process", "two workers"])
def test_a_second_sigterm_ends_it_now_and_still_writes_the_ledger(
    tmp_path: Path, routes: str, upstream: Upstream, args: list[str]
) -> None:
    gate = Gate()
    upstream.script("a-up", replies.ok(gate=gate))
    with (
        Gateway(tmp_path, routes, env=ENV, args=["--drain-delay", "30s", *args]) as gateway,
        ThreadPoolExecutor(1) as pool,
    ):
        streaming = pool.submit(gateway.chat, "a", stream=True)
        assert gate.reached.wait(60)
        gateway.signal(signal.SIGTERM)
        until("readiness to end", lambda: not ready(gateway))
        began = time.monotonic()
        gateway.signal(signal.SIGTERM)
        assert gateway.process
        gateway.process.wait(60)
        assert time.monotonic() - began < 25  # the delay is 30
        gate.open()
        assert "[DONE]" not in streaming.result(60).text
        assert all_rows(gateway) == {("cancelled", 200): 1}


def test_idle_connections_do_not_hold_it_up(tmp_path: Path, routes: str, upstream: Upstream) -> None:
    with (
        Gateway(tmp_path, routes, env=ENV, args=["--drain-delay", "100ms"]) as gateway,
        socket.create_connection(("127.0.0.1", gateway.port)) as silent,
        httpx.Client(base_url=gateway.url, trust_env=False) as kept,
    ):
        assert kept.post("/v1/chat/completions", json=BODY).status_code == 200
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < 15  # kept-alive connections may be idle for a minute
        assert silent.recv(1) == b""
    assert len(upstream.requests) == 1
