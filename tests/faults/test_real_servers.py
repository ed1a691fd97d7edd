"""Two real llama.cpp servers with a real model: one is killed, stopped or overfilled, the other takes over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any, NamedTuple, Self, TypeVar

import pytest

from gateway.providers.local import LocalServer
from tests.faults.drive import Event, read_events
from tests.servers import Gateway, until

T = TypeVar("T")
IDLE = 1.0  # seconds
QUESTION = [{"role": "user", "content": "Tell me a long story about a lighthouse and the people who keep it."}]
ROUTES = """
version: 1
providers:
  one: {base_url: "@ONE@", api_key: "${KEY_ONE}"}
  two: {base_url: "@TWO@", api_key: "${KEY_TWO}"}
models:
  one:
    provider: one
    model: smollm2-135m
    hosting: self
    price: {input: 1, output: 2}
    supports: [prefill, tools, json_schema]
  two:
    provider: two
    model: smollm2-135m
    hosting: self
    price: {input: 3, output: 4}
    supports: [prefill, tools, json_schema]
defaults:
  timeout: {connect: 2s, attempt: 40s, first_token: 40s, idle: 1s, total: 60s}
  retries: 0
routes:
  - {name: pair, match: {model: pair}, use: [one], fallback: [two]}
  - {name: hedged, match: {model: hedged}, use: [one], fallback: [two], hedge: {after: 300ms}}
  - {name: goes-on, match: {model: goes-on}, use: [one], fallback: [two], mid_stream: continue}
"""


class Pair:
    """The two servers, on an event loop in a thread of its own. `one` has room for 256 tokens, `two` for 2048."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="llama.cpp", daemon=True)
        self.one = LocalServer({"threads": 1, "context": 256, "parallel": 2})  # for `n`
        self.two = LocalServer({"threads": 1, "context": 2048, "parallel": 1})

    def __enter__(self) -> Self:
        self._thread.start()
        for server in (self.one, self.two):
            self._run(server.start())
        for server in (self.one, self.two):
            self.wait_ready(server)
        return self

    def __exit__(self, *error: object) -> None:
        for server in (self.one, self.two):
            self._run(server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def wait_ready(self, server: LocalServer) -> None:
        assert self._run(server.wait_ready(60)), server.failure

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(60)


class Answer(NamedTuple):
    """A stream, as read to its end."""

    model: str  # the header's
    events: list[Event]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [event.json for event in self.events if event.data != "[DONE]"]

    @property
    def text(self) -> str:
        deltas = [choice["delta"] for chunk in self.chunks for choice in chunk.get("choices", ())]
        return "".join(delta.get("content") or "" for delta in deltas)

    @property
    def done(self) -> int:
        return sum(event.data == "[DONE]" for event in self.events)


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    with Pair() as pair:
        yield pair


@pytest.fixture
def gateway(tmp_path_factory: pytest.TempPathFactory, servers: Pair) -> Iterator[Gateway]:
    """A fresh one for each test: no breaker remembers the last. The servers are up."""
    servers.wait_ready(servers.one)
    text = ROUTES.replace("@ONE@", servers.one.base_url).replace("@TWO@", servers.two.base_url)
    keys = {"KEY_ONE": servers.one.api_key, "KEY_TWO": servers.two.api_key}
    with Gateway(tmp_path_factory.mktemp("real"), text, env=keys) as started:
        yield started


def tell(gateway: Gateway, model: str, strike: int = 0, **more: Any) -> Answer:
    """Streams a story; after some content, `strike` (a signal) hits the server that tells it: `more["pid"]`."""
    pid = more.pop("pid", 0)
    body = {"model": model, "stream": True, "messages": QUESTION, "max_tokens": 120, "temperature": 0, **more}
    received = b""
    with gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        for piece in answer.iter_bytes():
            received += piece
            if strike and received.count(b'"content"') > 12:
                os.kill(pid, strike)
                strike = 0
    assert not strike, "the story was over before the blow"
    return Answer(answer.headers["x-gateway-model"], list(read_events(received)))


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def attempts(gateway: Gateway) -> list[dict[str, Any]]:
    gateway.wait_rows(1)
    return gateway.rows("SELECT * FROM attempts ORDER BY number")


def read(attempt: dict[str, Any]) -> int:
    """Tokens of input, from llama.cpp's prompt cache or not."""
    return int(attempt["input_tokens"] + attempt["cached_input_tokens"])


def test_killed_mid_stream(gateway: Gateway, servers: Pair) -> None:
    broken = tell(gateway, "pair", signal.SIGKILL, pid=servers.one.pid)
    assert len(broken.text) > 20
    assert broken.done == 0
    assert broken.chunks[-1]["error"]["type"] == "upstream_error"
    whole = tell(gateway, "pair", max_tokens=8)
    assert whole.done == 1
    rows = until("both rows", lambda: [row for row in gateway.wait_rows(2) if row["stream"]])
    assert [row["outcome"] for row in rows] == ["upstream_error", "ok"]
    assert rows[0]["output_tokens"] > 5


def test_stopped_mid_stream_the_idle_limit_notices(gateway: Gateway, servers: Pair) -> None:
    pid = servers.one.pid
    began = time.monotonic()
    try:
        broken = tell(gateway, "pair", signal.SIGSTOP, pid=pid)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert broken.done == 0
    assert broken.chunks[-1]["error"]["code"] == "upstream_timeout"
    assert IDLE < time.monotonic() - began < IDLE + 10
    assert attempts(gateway)[0]["result"] == "timeout"


@pytest.mark.parametrize("stream", [False, True])
def test_stopped_before_it_answers_the_other_does(gateway: Gateway, servers: Pair, stream: bool) -> None:
    limits = {"attempt: 40s": "attempt: 3s", "first_token: 40s": "first_token: 3s"}
    text = gateway.routes.read_text()
    for old, new in limits.items():
        text = text.replace(old, new)
    gateway.reload(text)
    gateway.signal(signal.SIGHUP)
    until("the reload", lambda: gateway.metric("gateway_config_reloads_total", result="ok") == 1)
    with stopped(servers.one.pid):
        answer = gateway.chat("pair", stream=stream, max_tokens=4)
    assert answer.status_code == 200
    assert answer.headers["x-gateway-model"] == "two"
    assert answer.headers["x-gateway-fallback-reason"] == "timeout"
    assert '"error"' not in answer.text


def test_stopped_before_it_answers_the_hedge_does(gateway: Gateway, servers: Pair) -> None:
    for _ in range(21):  # a route earns a hedge with twenty requests
        assert gateway.chat("hedged", max_tokens=1, stream=True).headers["x-gateway-model"] == "one"
    began = time.monotonic()
    with stopped(servers.one.pid):
        answer = gateway.chat("hedged", max_tokens=4, stream=True)
        assert time.monotonic() - began < 30  # the first token may take 40 s
        assert answer.headers["x-gateway-model"] == "two"
        assert answer.text.endswith("data: [DONE]\n\n")
    gateway.wait_rows(22)
    rows = gateway.rows("SELECT * FROM attempts WHERE model = 'two' OR result = 'cancelled' ORDER BY started")
    assert [(row["model"], row["result"]) for row in rows] == [("one", "cancelled"), ("two", "ok")]
    assert min(row["cost_nano"] for row in rows) > 0
    until("the count", lambda: gateway.metric("gateway_hedges_total", route="hedged", won="true") == 1)


@pytest.mark.parametrize("stream", [False, True])
def test_overfilled_the_larger_one_answers(gateway: Gateway, stream: bool) -> None:
    """llama.cpp's own 400 for a prompt of more tokens than its context has."""
    long = [{"role": "user", "content": "lighthouse " * 290 + "\nSay hello."}]
    answer = gateway.chat("pair", stream=stream, messages=long, max_tokens=4)
    assert answer.status_code == 200
    assert answer.headers["x-gateway-model"] == "two"
    assert answer.headers["x-gateway-fallback-reason"] == "context_length"
    first, second = attempts(gateway)
    assert (first["result"], first["status"], first["cost_nano"]) == ("context_length", 400, 0)
    assert read(second) > 256


def test_overfilled_with_nobody_else_its_own_words_are_relayed(gateway: Gateway) -> None:
    long = [{"role": "user", "content": "lighthouse " * 290}]
    answer = gateway.chat("one", messages=long)
    assert answer.status_code == 400
    assert "context size" in answer.json()["error"]["message"]


def test_killed_mid_sentence_the_other_goes_on(gateway: Gateway, servers: Pair) -> None:
    whole = tell(gateway, "two")
    continued = tell(gateway, "goes-on", signal.SIGKILL, pid=servers.one.pid)
    assert continued.model == "one"
    assert continued.done == 1
    assert continued.events[-1].data == "[DONE]"
    assert not [chunk for chunk in continued.chunks if "error" in chunk]
    assert len({chunk["id"] for chunk in continued.chunks}) == 1
    assert len({chunk["model"] for chunk in continued.chunks}) == 1
    finishes = [choice["finish_reason"] for chunk in continued.chunks for choice in chunk["choices"]]
    assert [finish for finish in finishes if finish] == ["length"]
    assert whole.text[:40] == continued.text[:40]
    gateway.wait_rows(2)
    row = gateway.rows("SELECT * FROM requests WHERE route = 'goes-on'")[0]
    assert (row["outcome"], row["status"]) == ("ok", 200)
    first, second = gateway.rows("SELECT * FROM attempts WHERE request_id = ? ORDER BY number", row["id"])
    print(f"\n--- whole: {whole.text!r}\n--- continued: {continued.text!r}")
    assert (first["model"], first["result"], first["usage_estimated"]) == ("one", "stream_cut", 1)
    assert (second["model"], second["result"], second["usage_estimated"]) == ("two", "ok", 0)
    assert first["output_tokens"] > 5
    assert read(second) > read(first)
    assert min(first["cost_nano"], second["cost_nano"]) > 0
    assert row["cost_nano"] == first["cost_nano"] + second["cost_nano"]


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "object", "properties": {"story": {"type": "string"}}, "required": ["story"]}


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"tools": [TOOL], "tool_choice": "none"},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "story", "schema": SCHEMA}}},
    ],
    ids=["n", "tools", "schema"],
)
def test_what_must_not_be_continued_ends_in_an_error(gateway: Gateway, servers: Pair, more: dict[str, Any]) -> None:
    broken = tell(gateway, "goes-on", signal.SIGKILL, pid=servers.one.pid, **more)
    assert broken.done == 0
    assert broken.chunks[-1]["error"]["type"] == "upstream_error"
    assert len(attempts(gateway)) == 1
