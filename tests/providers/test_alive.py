"""Probes: whether a server answers, at no cost."""

from __future__ import annotations

import asyncio

import pytest

from gateway.config.types import ProviderConfig
from gateway.providers.local import LocalProvider, LocalServer
from gateway.providers.openai import OpenAIProvider
from tests import replies
from tests.servers import free_port
from tests.upstream import CUT, Reply, Upstream

ANSWERS: list[tuple[str, Reply, bool]] = [
    ("a list of models", replies.ok(), True),
    ("no such list", replies.status(404), True),
    ("a key that is not let in", replies.status(401), True),
    ("too many requests", replies.rate_limited("9"), True),
    ("nothing but POST", replies.status(501), True),
    ("a server in trouble", replies.status(500), False),
    ("a server that is loading", replies.status(503), False),
    ("silence", replies.hang(), False),
    ("not HTTP", replies.raw(b"SSH-2.0-OpenSSH\r\n\r\n", CUT), False),
    ("a reset", replies.reset(), False),
]


async def probe(base_url: str, limit: float = 0.3) -> bool:
    provider = OpenAIProvider(ProviderConfig("up", "openai", base_url, "sk-secret", {"x-account": "acme"}))
    try:
        return await provider.alive(limit)
    finally:
        await provider.close()


@pytest.mark.parametrize(("reply", "alive"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_answers(reply: Reply, alive: bool) -> None:
    with Upstream(reply) as upstream:
        assert asyncio.run(probe(upstream.base_url)) is alive
        [asked] = upstream.probes
    assert (asked.method, asked.path, asked.body) == ("GET", "/v1/models", b"")
    assert (asked.header("authorization"), asked.header("x-account")) == ("Bearer sk-secret", "acme")


def test_nobody_listens() -> None:
    assert asyncio.run(probe(f"http://127.0.0.1:{free_port()}/v1")) is False


def test_the_embedded_model_is_alive_when_it_is_ready() -> None:
    async def story() -> bool:
        return await LocalProvider(ProviderConfig("local", "local", "", ""), LocalServer()).alive(0.1)

    assert asyncio.run(story()) is False
    with Upstream(replies.ok()) as upstream:  # a worker's view: somewhere, another process keeps it
        provider = LocalProvider(ProviderConfig("local", "local", upstream.base_url, "key"))
        assert asyncio.run(provider.alive(1.0)) is True
