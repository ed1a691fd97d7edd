"""What servers say of themselves: read from their pages, within limits, and never with a key for strangers."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.types import ProviderConfig
from gateway.core.loads import Reading
from gateway.errors import UpstreamFailure
from gateway.providers import server_metrics
from gateway.providers.server_metrics import READ_LIMIT, ServerMetrics, page_url, read_page
from tests import replies
from tests.expositions import page, telling, vllm
from tests.servers import free_port
from tests.upstream import CLOSE, Reply, Upstream

PAGES = {
    "vllm.txt": Reading(12, 3, 2_000_000, 300_000),
    "sglang.txt": Reading(162, 2826, 8_128_902, 7_557_572),
    "sglang-ranks.txt": Reading(8, 3, 400_000, 5_000),
}


@pytest.mark.parametrize("name", PAGES)
def test_pages(name: str) -> None:
    assert read_page(page(name).encode()) == PAGES[name]


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("", None),
        ("<!doctype html><title>404</title>", None),
        ("process_open_fds 12\n", None),
        ("vllm:prompt_tokens_total 5\n", None),  # says nothing of its requests
        ("vllm:num_requests_running 2\n", Reading(2, 0)),
        ("vllm:num_requests_running 2\nvllm:num_requests_waiting NaN\n", Reading(2, 0)),
        ("vllm:num_requests_running +Inf\n", None),
        ("vllm:num_requests_running -1\n", None),
        ("vllm:num_requests_running many\n", None),
        ('vllm:num_requests_running{engine="0} 1\n', None),
        ("vllm:num_requests_running_by_reason 3\n", None),
        ("llamacpp:requests_processing 1\nllamacpp:requests_deferred 4\nllamacpp:tokens_predicted_total 9\n",
         Reading(1, 4, None, 9)),
    ],
)  # fmt: skip
def test_other_pages(text: str, reading: Reading | None) -> None:
    assert read_page(text.encode()) == reading


@given(st.binary(max_size=200))
def test_whatever_comes_it_is_a_reading_or_none(noise: bytes) -> None:
    for start in (b"", b"vllm:num_requests_running ", b'vllm:num_requests_running{a="'):
        assert read_page(start + noise) is None or isinstance(read_page(start + noise), Reading)


def test_a_long_page_costs_little() -> None:
    """The lines that matter are few. 4 MB take about 10 ms on a quiet machine; ten times that here."""
    filler = 'vllm:e2e_request_latency_seconds_bucket{engine="0",le="0.3",model_name="m"} 12.0\n'
    text = (filler * (READ_LIMIT // len(filler)) + vllm(4, 1)).encode()
    began = time.thread_time()
    assert read_page(text) == Reading(4, 1, 0, 0)
    assert time.thread_time() - began < 0.5
    assert read_page(vllm(1).encode() * 10_000) is None, "no server has that many"


@pytest.mark.parametrize(
    ("base_url", "metrics", "url"),
    [
        ("http://vllm:8000/v1", "", "http://vllm:8000/metrics"),
        ("http://vllm:8000", "", "http://vllm:8000/metrics"),
        ("https://gpu/qwen/v1", "", "https://gpu/qwen/metrics"),
        ("http://vllm:8000/v1", "off", ""),
        ("http://vllm:8000/v1", "http://vllm:9000", "http://vllm:9000/metrics"),
        ("http://vllm:8000/v1", "http://vllm:9000/m/x", "http://vllm:9000/m/x"),
        ("", "", ""),
    ],
)
def test_where_the_page_is(base_url: str, metrics: str, url: str) -> None:
    assert page_url(ProviderConfig("p", "openai", base_url, "", metrics=metrics)) == url


def read(config: ProviderConfig) -> Reading | None:
    async def story() -> Reading | None:
        server = ServerMetrics(config)
        try:
            return await server.read()
        finally:
            await server.close()

    return asyncio.run(story())


def of(upstream: Upstream, metrics: str = "") -> ProviderConfig:
    return ProviderConfig("p", "openai", upstream.base_url, "sk-secret", {"X-Account": "acme"}, metrics=metrics)


def test_the_key_goes_to_the_servers_own_page() -> None:
    with Upstream(telling(vllm(3, 2, 10, 20))) as upstream:
        assert read(of(upstream)) == Reading(3, 2, 10, 20)
        [asked] = upstream.probes
    assert (asked.method, asked.path, asked.body) == ("GET", "/metrics", b"")
    assert (asked.header("authorization"), asked.header("x-account")) == ("Bearer sk-secret", "acme")


def test_and_nowhere_else() -> None:
    with Upstream(replies.ok()) as upstream, Upstream(telling(vllm(3))) as other:
        for elsewhere in (f"http://127.0.0.1:{other.port}/metrics", f"http://localhost:{other.port}/metrics"):
            assert read(of(upstream, metrics=elsewhere)) == Reading(3, 0, 0, 0)
        named = other.base_url.replace("127.0.0.1", "localhost")  # another name is another origin
        assert read(of(other)._replace(base_url=named, metrics=f"http://127.0.0.1:{other.port}/metrics"))
        assert len(other.probes) == 3
        for asked in other.probes:
            assert not [name for name, value in asked.headers if "secret" in value or "acme" in value]
        assert not upstream.probes


@pytest.mark.parametrize("status", [204, 401, 404, 500, 503])
def test_no_such_page(status: int) -> None:
    with Upstream(replies.status(status)) as upstream:
        assert read(of(upstream)) is None


def test_a_chat_where_a_page_should_be() -> None:
    with Upstream(replies.ok()) as upstream:
        assert read(of(upstream)) is None


FAILURES: list[tuple[str, Reply]] = [
    ("timeout", replies.hang()),
    ("malformed", replies.raw(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (READ_LIMIT + 1))),
    ("malformed", replies.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nvllm:num", CLOSE)),
]


@pytest.mark.parametrize(("kind", "reply"), FAILURES, ids=["silence", "too long", "cut short"])
def test_failures(monkeypatch: pytest.MonkeyPatch, kind: str, reply: Reply) -> None:
    monkeypatch.setattr(server_metrics, "READ_SECONDS", 0.3)
    with Upstream(reply) as upstream, pytest.raises(UpstreamFailure) as failure:
        read(of(upstream))
    assert failure.value.kind == kind


def test_nobody_there() -> None:
    with pytest.raises(UpstreamFailure, match="cannot connect"):
        read(ProviderConfig("p", "openai", f"http://127.0.0.1:{free_port()}/v1", ""))
