"""More than there is room for: a fallback takes it, a short queue holds it, or an honest 503 says when to come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests import replies
from tests.servers import Gateway, until
from tests.upstream import Gate, Received, Reply, Step, Upstream

from .conftest import SECRET

ENV = {"UP_KEY": SECRET}
TIGHT = """
  - {name: relief, match: {model: relief}, use: [tight], fallback: [b], retries: 0}
  - {name: alone, match: {model: alone}, use: [tight], retries: 0}
  - {name: text-only"""


@pytest.fixture(scope="module")
def tight_routes(routes: str) -> str:
    """`relief` has a fallback behind the model `tight`, which takes one request at a time; `alone` has none."""
    model = "  tight: {provider: up, model: tight-up, price: unmetered, max_in_flight: 1}\n"
    return routes.replace("tasks:\n", model + "tasks:\n").replace("\n  - {name: text-only", TIGHT)


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory, tight_routes: str) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("tight"), tight_routes, env=ENV) as started:
        yield started


@pytest.fixture
def occupied(tight: Gateway, upstream: Upstream) -> Iterator[Gate]:
    """`tight` has its one request, until the gate opens."""
    gate = Gate()
    upstream.script("tight-up", replies.ok(gate=gate))
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(tight.chat, "tight")
        assert gate.reached.wait(60)
        yield gate
        gate.open()
        assert busy.result(60).status_code == 200


@pytest.mark.usefixtures("occupied")
def test_a_full_model_s_fallback_takes_it_at_once(tight: Gateway, upstream: Upstream) -> None:
    took = []
    for _ in range(3):
        began = time.monotonic()
        answer = tight.chat("relief")
        took.append(time.monotonic() - began)
        assert (answer.status_code, answer.headers["x-gateway-model"]) == (200, "b")
    assert min(took) < 0.5, "each would wait a second"
    assert len(upstream.seen("tight-up")) == 1


def test_where_nothing_else_is_left_it_waits_its_turn(tight: Gateway, upstream: Upstream, occupied: Gate) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(tight.chat, "alone")
        time.sleep(0.3)
        assert len(upstream.seen("tight-up")) == 1
        occupied.open()
        assert waiting.result(60).status_code == 200


@pytest.mark.usefixtures("occupied")
def test_then_it_gets_an_honest_503(tight: Gateway, upstream: Upstream) -> None:
    before = tight.metric("gateway_rejections_total", reason="overload")
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        answers = [asked.result(60) for asked in [pool.submit(tight.chat, "alone") for _ in range(2)]]
    assert 0.9 < time.monotonic() - began < 20  # one waited a second, for the other the queue was full
    for answer in answers:
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("overloaded_error", "overloaded")
        assert "tight" in error["message"]
    assert len(upstream.seen("tight-up")) == 1
    until("the count", lambda: tight.metric("gateway_rejections_total", reason="overload") == before + 2)


def test_who_hangs_up_in_the_queue_leaves_no_trace(tight: Gateway, upstream: Upstream, occupied: Gate) -> None:
    body = {"model": "alone", "messages": [{"role": "user", "content": "x"}]}

    def waited_and_left() -> bool:
        """Not where the one before has only just left: the queue has one place."""
        try:
            answer = httpx.post(
                f"{tight.url}/v1/chat/completions", json=body, timeout=httpx.Timeout(30, read=0.2), trust_env=False
            )
        except httpx.ReadTimeout:
            return True
        assert answer.status_code == 503
        return False

    for _ in range(3):
        until("a place in the queue", waited_and_left)
    occupied.open()
    until("room", lambda: tight.chat("relief").headers["x-gateway-model"] == "tight")
    assert upstream.requests


def test_a_reload_with_another_limit_holds_at_once(tmp_path: Path, tight_routes: str, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("tight-up", replies.ok(gate=gate))
    with Gateway(tmp_path, tight_routes, env=ENV) as gateway, ThreadPoolExecutor(1) as pool:
        busy = pool.submit(gateway.chat, "tight")
        assert gate.reached.wait(60)
        assert gateway.chat("relief").headers["x-gateway-model"] == "b"
        gateway.reload(tight_routes.replace("max_in_flight: 1", "max_in_flight: 2"))
        until("the reload", lambda: gateway.chat("relief").headers["x-gateway-model"] == "tight")
        gate.open()
        assert busy.result(60).status_code == 200


def test_the_limit_in_all(tmp_path: Path, routes: str, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("a-up", replies.ok(gate=gate))
    with Gateway(tmp_path, routes, env=ENV, args=["--max-in-flight", "1"]) as gateway, ThreadPoolExecutor(1) as pool:
        busy = pool.submit(gateway.chat, "a")
        assert gate.reached.wait(60)
        refused = gateway.chat("b")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["code"] == "overloaded"
        assert gateway.client.get("/healthz").status_code == 200  # alive, only busy
        gate.open()
        assert busy.result(60).status_code == 200
        assert gateway.chat("b").status_code == 200
        rejected = [row["rejection"] for row in gateway.wait_rows(3) if row["outcome"] == "rejected"]
        assert rejected == ["overload"]


class Counting:
    """The most requests that were under way at the same time."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def around(self, reply: Reply) -> Reply:
        def counted(received: Received) -> Iterator[Step]:
            with self._lock:
                self.now += 1
                self.most = max(self.most, self.now)
            try:
                yield from reply(received)
            finally:
                with self._lock:
                    self.now -= 1

        return counted


def test_workers_share_a_limit(tmp_path: Path, tight_routes: str, upstream: Upstream) -> None:
    counting = Counting()
    upstream.always("tight-up", counting.around(replies.after(0.05, replies.ok())))
    routes = tight_routes.replace("max_in_flight: 1", "max_in_flight: 3")
    with Gateway(tmp_path, routes, env=ENV, args=["--workers", "2"]) as gateway, ThreadPoolExecutor(12) as pool:

        def one(_: int) -> str:
            with httpx.Client(base_url=gateway.url, trust_env=False, timeout=10) as client:
                body = {"model": "relief", "messages": [{"role": "user", "content": "x"}]}
                return client.post("/v1/chat/completions", json=body).headers["x-gateway-model"]

        models = list(pool.map(one, range(60)))
    assert counting.most <= 3
    assert counting.most >= 2
    assert set(models) == {"tight", "b"}
