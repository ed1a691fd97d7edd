"""A real llama.cpp server tells its load: of clients that the gateway knows nothing of, and of the embedded model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from gateway.providers.local import LocalServer
from tests.servers import Gateway, until

ROUTES = """
version: 1
providers:
  busy: {base_url: "@BUSY@", api_key: "${KEY}"}
  embedded: {dialect: local, threads: 1, context: 1024, parallel: 1}
models:
  busy:
    provider: busy
    model: smollm2-135m
    hosting: self
    price: {usd_per_hour: 3.60, tokens_per_second: {input: 300, output: 50}}
  embedded: {provider: embedded, model: smollm2-135m, price: unmetered}
  paid: {provider: busy, model: smollm2-135m, price: {input: 1, output: 4}}
routes:
  - {name: least, match: {model: least}, use: [busy, embedded], fallback: [paid], order: least_busy}
"""
STORY = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Tell a long story."}], "max_tokens": 600}


class Busy:
    """A server in a thread of its own, for one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="llama.cpp", daemon=True)
        self._thread.start()
        self.server = LocalServer({"threads": 1, "context": 1024, "parallel": 1})
        asyncio.run_coroutine_threadsafe(self.server.start(), self._loop).result(60)

    def wait(self) -> None:
        ready = asyncio.run_coroutine_threadsafe(self.server.wait_ready(90), self._loop).result(100)
        assert ready, self.server.failure

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def tell(self, stop: threading.Event) -> None:
        """A client that asks for stories until it is told to stop, past the gateway."""
        headers = {"authorization": f"Bearer {self.server.api_key}"}
        once = httpx.Limits(max_keepalive_connections=0)  # the server closes one that was kept just as it is used again
        with httpx.Client(
            base_url=self.server.base_url, headers=headers, trust_env=False, timeout=120, limits=once
        ) as client:
            while not stop.is_set():
                with client.stream("POST", "/chat/completions", json={**STORY, "stream": True}) as answer:
                    for _ in answer.iter_lines():
                        if stop.is_set():
                            return


@pytest.fixture(scope="module")
def busy() -> Iterator[Busy]:
    server = Busy()
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["1", "2"], ids=["one process", "two workers"])
def gateway(tmp_path: Path, busy: Busy, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    text = ROUTES.replace("@BUSY@", busy.server.base_url)
    with Gateway(tmp_path, text, env={"KEY": busy.server.api_key}, args=["--workers", request.param]) as started:
        until("the embedded model", lambda: started.chat("embedded", max_tokens=1).is_success, 90)
        yield started


def test_the_load_of_clients_that_go_past_the_gateway(gateway: Gateway, busy: Busy) -> None:
    def load(state: str) -> float:
        return gateway.metric("gateway_server_requests", model="busy", state=state)

    stop = threading.Event()
    with ThreadPoolExecutor(3) as clients:
        try:
            asked = [clients.submit(busy.tell, stop) for _ in range(3)]
            until("one running and two that wait", lambda: (load("running"), load("waiting")) == (1, 2), 60)
            until(
                "its speed",
                lambda: gateway.metric("gateway_server_tokens_per_second", model="busy", type="output") > 1,
                60,
            )
            answer = gateway.chat("least", max_tokens=1)
            assert answer.headers["x-gateway-model"] == "embedded", "busy is listed first, and has others to serve"
            price = until(
                "what its tokens came to, none of them through the gateway",
                lambda: gateway.metric("gateway_effective_price_usd_per_million_tokens", model="busy"),
                60,
            )
            assert price > 0
            assert gateway.metric("gateway_tokens_total", model="busy") == 0
            assert gateway.metric("gateway_break_even_tokens_per_second", model="busy", versus="paid") > 0
        finally:
            stop.set()
        for each in asked:
            each.result(60)
    until("it to be idle again", lambda: load("running") == load("waiting") == 0, 60)


def test_the_embedded_models_own_server_is_read_too(gateway: Gateway) -> None:
    def running() -> bool:
        return gateway.metric("gateway_server_requests", model="embedded", state="running") == 1

    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            assert gateway.chat("embedded", max_tokens=300).is_success

    with ThreadPoolExecutor(1) as client:
        stories = client.submit(ask)
        try:
            until("our own request at the embedded model's server", running, 60)
        finally:
            stop.set()
        stories.result(120)
