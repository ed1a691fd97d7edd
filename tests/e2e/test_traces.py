"""Traces at a real OTLP receiver: parents, times, tokens and money, for requests of every kind."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import replies
from tests.collector import Collector, Span
from tests.replies import Tokens
from tests.servers import BIN, Gateway, until
from tests.upstream import Gate, Upstream

SECRET = "sk-upstream-secret-0123456789"
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ROUTES = """
version: 1
providers:
  up: {base_url: "@BASE@", api_key: "${UP_KEY}"}
  also: {base_url: "@BASE@", headers: {traceparent: "00-11111111111111111111111111111111-2222222222222222-00"}}
defaults: {retries: 0, timeout: {idle: 1500ms, first_token: 5s, total: 20s}}
models:
  a: {provider: up, model: a-up, price: {input: 1, cached_input: 0.1, output: 2, reasoning: 4}}
  b: {provider: up, model: b-up, hosting: self, price: {input: 3, output: 6}}
  fixed: {provider: also, model: fixed-up, price: unmetered}
  closed: {provider: up, model: closed-up, price: {input: 10, output: 30}}
routes:
  - {name: hedged, match: {model: hedged}, use: [a], fallback: [b], hedge: {after: 100ms}}
  - {name: default, match: {model: auto}, use: [a], fallback: [b], baseline: closed}
"""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as started:
        yield started


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok()) as server:
        yield server


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.forget()
    return shared_upstream


@pytest.fixture(scope="module")
def routes(shared_upstream: Upstream) -> str:
    return ROUTES.replace("@BASE@", shared_upstream.base_url)


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def gateway(
    tmp_path_factory: pytest.TempPathFactory, routes: str, collector: Collector, request: pytest.FixtureRequest
) -> Iterator[Gateway]:
    env = {"UP_KEY": SECRET, **collector.env}
    args = ["--workers", str(request.param)]
    with Gateway(tmp_path_factory.mktemp("traced"), routes, env=env, args=args) as started:
        yield started


def row_of(gateway: Gateway, answer: httpx.Response) -> dict[str, object]:
    found = until(
        "the row",
        lambda: gateway.rows("SELECT * FROM requests WHERE client_request_id = ?", answer.headers["x-request-id"]),
    )
    return found[0]


def ask(gateway: Gateway, model: str, number: str, **more: object) -> httpx.Response:
    return gateway.chat(model, headers={"x-request-id": number}, **more)


def agree(gateway: Gateway, row: dict[str, object], request: Span, attempts: list[Span]) -> None:
    """Ids, times, tokens and money of a trace are those of the ledger."""
    tried = gateway.rows("SELECT * FROM attempts WHERE request_id = ? ORDER BY started", str(row["id"]))
    assert len(tried) == len(attempts)
    assert request.trace_id == row["trace_id"]
    assert request.attributes["gateway.request.id"] == row["id"]
    assert round(request.attributes["gateway.cost_usd"] * 1e9) == row["cost_nano"]
    assert request.attributes["http.response.status_code"] == row["status"]
    assert request.attributes["gateway.outcome"] == row["outcome"]
    for kept, span in zip(tried, attempts, strict=True):
        assert span.parent_id == request.span_id
        assert span.trace_id == request.trace_id
        assert request.start <= span.start <= span.end <= request.end
        assert span.attributes["gateway.model"] == kept["model"]
        assert span.attributes["gateway.attempt.result"] == kept["result"]
        assert round(span.attributes["gateway.cost_usd"] * 1e9) == kept["cost_nano"]
        inputs = kept["input_tokens"] + kept["cached_input_tokens"] + kept["cache_write_tokens"]
        assert span.attributes["gen_ai.usage.input_tokens"] == inputs
        assert span.attributes["gen_ai.usage.output_tokens"] == kept["output_tokens"] + kept["reasoning_tokens"]
    assert len({span.span_id for span in (request, *attempts)}) == 1 + len(attempts)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer(gateway: Gateway, upstream: Upstream, collector: Collector, *, stream: bool) -> None:
    upstream.script("a-up", replies.ok(tokens=Tokens(100, 20, 30, 40)))
    answer = ask(gateway, "auto", f"answer-{stream}-{gateway.port}", stream=stream, max_tokens=77, n=1 if stream else 2)
    row = row_of(gateway, answer)
    request, attempts = collector.trace(str(row["trace_id"]), 2)
    agree(gateway, row, request, attempts)
    assert request.parent_id == ""
    assert (request.name, request.failed) == ("POST /v1/chat/completions", False)
    assert request.resource["service.name"] == "open-model-gateway"
    about = request.attributes
    assert (about["gateway.route"], about["gateway.task"], about["gen_ai.request.model"]) == (
        *("default", "default"),
        "auto",
    )
    assert round(about["gateway.baseline_usd"] * 1e9) == row["baseline_nano"]
    [attempt] = attempts
    assert (attempt.name, attempt.kind, attempt.failed) == ("chat a-up", "CLIENT", False)
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "up",
        "gen_ai.request.model": "a-up",
        "gen_ai.request.max_tokens": 77,
        "gen_ai.request.stream": stream,
        "gen_ai.response.model": "a-up-2026",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.cache_read.input_tokens": 20,
        "gen_ai.usage.output_tokens": 70,
        "gen_ai.usage.reasoning.output_tokens": 40,
        "server.address": "127.0.0.1",
        "server.port": upstream.port,
        "http.response.status_code": 200,
    }
    assert expected.items() <= attempt.attributes.items()
    assert attempt.attributes.get("gen_ai.request.choice.count") == (None if stream else 2)
    assert ("gateway.time_to_first_token_seconds" in attempt.attributes) is stream
    assert attempt.attributes["gateway.stage.first_byte_seconds"] > 0
    assert SECRET not in str(collector.spans)
    assert "Say hello" not in str(collector.spans)
    assert upstream.seen("a-up")[-1].header("traceparent") == f"00-{attempt.trace_id}-{attempt.span_id}-01"


def test_a_fallback(gateway: Gateway, upstream: Upstream, collector: Collector) -> None:
    upstream.script("a-up", replies.status(500))
    row = row_of(gateway, ask(gateway, "auto", f"fallback-{gateway.port}"))
    request, attempts = collector.trace(str(row["trace_id"]), 3)
    agree(gateway, row, request, attempts)
    failed, answered = attempts
    assert (failed.failed, failed.attributes["error.type"]) == (True, "server_error")
    assert (answered.failed, answered.attributes["gateway.attempt.reason"]) == (False, "server_error")
    assert request.attributes["gateway.fallback.reason"] == "server_error"
    sent = [upstream.seen(model)[-1].header("traceparent") for model in ("a-up", "b-up")]
    assert sent == [f"00-{span.trace_id}-{span.span_id}-01" for span in attempts], "each has its own"


def test_a_hedge(gateway: Gateway, upstream: Upstream, collector: Collector) -> None:
    for _ in range(44):  # at most 5% are hedged, of each worker's own
        gateway.chat("hedged")
    upstream.script("a-up", replies.hang())
    row = row_of(gateway, ask(gateway, "hedged", f"hedge-{gateway.port}"))
    request, attempts = collector.trace(str(row["trace_id"]), 3)
    agree(gateway, row, request, attempts)
    assert [span.attributes["gateway.attempt.result"] for span in attempts] == ["cancelled", "ok"]
    assert [span.attributes["gateway.attempt.reason"] for span in attempts] == ["first", "hedge"]
    assert attempts[0].end > attempts[1].start, "side by side"


def test_a_client_that_leaves(gateway: Gateway, upstream: Upstream, collector: Collector) -> None:
    gate = Gate()
    upstream.script("a-up", replies.ok(gate=gate))
    body = {"model": "auto", "messages": [{"role": "user", "content": "x"}], "stream": True}
    headers = {"x-request-id": f"left-{gateway.port}"}
    with httpx.Client(base_url=gateway.url, trust_env=False) as client, contextlib.ExitStack() as stack:
        answer = stack.enter_context(client.stream("POST", "/v1/chat/completions", json=body, headers=headers))
        assert next(answer.iter_bytes())
    assert upstream.seen("a-up")[-1].gone.wait(60)
    row = row_of(gateway, answer)
    request, attempts = collector.trace(str(row["trace_id"]), 2)
    agree(gateway, row, request, attempts)
    assert (request.attributes["gateway.outcome"], request.failed) == ("cancelled", False)
    assert attempts[0].attributes["gateway.attempt.result"] == "cancelled"


def test_what_is_refused_here_and_there(gateway: Gateway, upstream: Upstream, collector: Collector) -> None:
    row = row_of(gateway, ask(gateway, "nosuch", f"refused-{gateway.port}"))
    request, attempts = collector.trace(str(row["trace_id"]), 1)
    agree(gateway, row, request, attempts)
    assert (request.attributes["error.type"], request.failed) == ("not_found", False)
    upstream.script("a-up", replies.status(400))
    row = row_of(gateway, ask(gateway, "a", f"relayed-{gateway.port}"))
    request, attempts = collector.trace(str(row["trace_id"]), 2)
    agree(gateway, row, request, attempts)
    assert (request.failed, attempts[0].failed, attempts[0].attributes["error.type"]) == (False, True, "400")
    upstream.script("a-up", replies.status(500))
    upstream.script("b-up", replies.status(500))
    row = row_of(gateway, ask(gateway, "auto", f"broken-{gateway.port}"))
    request, attempts = collector.trace(str(row["trace_id"]), 3)
    agree(gateway, row, request, attempts)
    assert (request.failed, request.attributes["error.type"]) == (True, "server_error")


def test_the_clients_trace_goes_on(gateway: Gateway, upstream: Upstream, collector: Collector) -> None:
    trace_id = f"{gateway.port:032x}"
    headers = {"traceparent": f"00-{trace_id}-{CALLER}-01", "tracestate": "congo=t61rcWkgMzE,rojo=00f0"}
    gateway.chat("a", headers=headers)
    request, [attempt] = collector.trace(trace_id, 2)
    assert (request.parent_id, request.state) == (CALLER, "congo=t61rcWkgMzE,rojo=00f0")
    sent = upstream.seen("a-up")[-1]
    assert sent.header("traceparent") == f"00-{trace_id}-{attempt.span_id}-01"
    assert sent.header("tracestate") == "congo=t61rcWkgMzE,rojo=00f0"
    assert [name for name, _ in sent.headers].count("traceparent") == 1


def test_what_is_not_sampled_is_not_sent_but_goes_on(
    gateway: Gateway, upstream: Upstream, collector: Collector
) -> None:
    trace_id = f"{gateway.port + 1:032x}"
    gateway.chat("a", headers={"traceparent": f"00-{trace_id}-{CALLER}-00", "x-request-id": trace_id})
    sent = upstream.seen("a-up")[-1].header("traceparent") or ""
    assert re.fullmatch(f"00-{trace_id}-[0-9a-f]{{16}}-00", sent)
    assert CALLER not in sent
    assert row_of(gateway, ask(gateway, "a", f"after-{gateway.port}"))["trace_id"]
    [row] = gateway.rows("SELECT * FROM requests WHERE client_request_id = ?", trace_id)
    assert row["trace_id"] == trace_id, "somebody else may have recorded it"
    assert not [span for span in collector.spans if span.trace_id == trace_id]


def test_nonsense_begins_a_new_trace(gateway: Gateway, upstream: Upstream, collector: Collector) -> None:
    number = f"nonsense-{gateway.port}"
    answer = gateway.chat("a", headers={"traceparent": f"00-{TRACE}-{CALLER}-01-x", "x-request-id": number})
    row = row_of(gateway, answer)
    assert row["trace_id"] != TRACE
    request, _ = collector.trace(str(row["trace_id"]), 2)
    assert request.parent_id == ""
    assert TRACE not in str(upstream.seen("a-up")[-1].headers)


def test_a_configured_header_wins(gateway: Gateway, upstream: Upstream) -> None:
    gateway.chat("fixed")
    sent = [value for name, value in upstream.seen("fixed-up")[-1].headers if name == "traceparent"]
    assert sent == ["00-11111111111111111111111111111111-2222222222222222-00"]


def test_without_tracing_the_clients_headers_pass_untouched(tmp_path: Path, routes: str, upstream: Upstream) -> None:
    sent = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "a=b"}
    with Gateway(tmp_path, routes, env={"UP_KEY": SECRET}) as gateway:
        gateway.chat("a", headers=sent)
        gateway.chat("a")
        first, second = gateway.wait_rows(2)
        line = next(line for line in gateway.log.splitlines() if TRACE in line)
    assert {name: upstream.seen("a-up")[0].header(name) for name in sent} == sent
    assert upstream.seen("a-up")[1].header("traceparent") is None
    assert (first["trace_id"], second["trace_id"]) == (TRACE, None)
    assert '"event":"request"' in line


def test_a_drain_sends_what_is_left(tmp_path: Path, routes: str, upstream: Upstream, collector: Collector) -> None:
    before = len(collector.spans)
    env = {"UP_KEY": SECRET, **collector.env, "OTEL_BSP_SCHEDULE_DELAY": "60000", "OTEL_SERVICE_NAME": "mine"}
    with Gateway(tmp_path, routes, env=env, args=["--workers", "2"]) as gateway:
        for _ in range(20):
            gateway.chat("a")
        assert len(collector.spans) == before
        assert gateway.stop() == 0
    assert len(collector.spans) - before == 40
    assert {span.resource["service.name"] for span in collector.spans[before:]} == {"mine"}
    assert upstream.requests


def test_a_collector_that_is_down_costs_spans_and_nothing_else(tmp_path: Path, routes: str, upstream: Upstream) -> None:
    with Collector() as sick:
        sick.gate.clear()
        env = {"UP_KEY": SECRET, **sick.env, "OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}
        with Gateway(tmp_path, routes, env=env) as gateway:
            answers = [gateway.chat("a") for _ in range(40)]
            assert {answer.status_code for answer in answers} == {200}
            until("the count", lambda: gateway.metric("gateway_traces_lost_total") >= 20)
            assert gateway.stop(timeout=15) == 0
            assert "were not delivered" in gateway.log
    assert upstream.requests


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "is no URL"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "use http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_SAMPLER": "sometimes"}, "there are: always_on"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, routes: str, env: dict[str, str], said: str) -> None:
    gateway = Gateway(tmp_path, routes, env={"UP_KEY": SECRET, **env})
    assert gateway.run_to_end() == 1
    assert said in gateway.log


def test_without_the_extra_it_says_how_to_get_it(tmp_path: Path, routes: str) -> None:
    """None in `sys.modules` is how Python itself says that there is no such package."""
    hide = "import sys; sys.modules['opentelemetry'] = None; from gateway.cli import main; sys.exit(main())"
    gateway = Gateway(tmp_path, routes, env={"UP_KEY": SECRET, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"})
    gateway.command = [str(BIN.parent / "python"), "-c", hide, *gateway.command[1:]]
    assert gateway.run_to_end() == 1
    assert "pip install 'open-model-gateway[otlp]'" in gateway.log
