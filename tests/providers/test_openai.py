"""What goes up, and what an upstream that does not know `stream_options` is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from gateway import __version__
from gateway.config.types import ProviderConfig
from gateway.core.call import Endpoint, parse
from gateway.core.rules import Model, Target, Timeouts
from gateway.errors import UpstreamFailure
from gateway.providers.base import Attempt, Passage
from gateway.providers.openai import REMEMBERED, OpenAIProvider
from gateway.providers.passing import PassingProvider
from gateway.wire import CODEC

KEY = "sk-very-secret"
ANSWER = b'{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": {"total_tokens": 3}}'
MESSAGES = b'"messages": [{"role": "user", "content": "hi"}]'


def attempt(
    body: bytes = b'{"model": "m", %b}' % MESSAGES,
    headers: Mapping[str, str] | None = None,
    model: Model | None = None,
    endpoint: Endpoint = Endpoint.CHAT,
    name: str = "up",
) -> Attempt:
    sent = [(key.encode(), value.encode("latin-1")) for key, value in (headers or {}).items()]
    target = Target(model or Model("m", "p", "up"), name, None, Timeouts(connect=2.0), False, "listed 1st")
    return Attempt(parse(endpoint, sent, body, CODEC), target)


def response(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nx-request-id: up-1\r\n\r\n%b" % (status, len(body), body)


class Upstream:
    """Answers each request by a function of its decoded body, and keeps what it was sent."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self.lines: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []

    async def __call__(self, peer: Any) -> None:
        while True:
            head, body = await peer.request()
            line, *fields = head.decode("latin-1").split("\r\n")
            self.lines.append(line)
            self.headers.append(dict(field.split(": ", 1) for field in fields if field))
            self.bodies.append(json.loads(body))
            await peer.send(response(*self.reply(self.bodies[-1])))


async def ask(provider: OpenAIProvider, what: Attempt) -> tuple[int, bytes]:
    upstream = await provider.open(what)
    try:
        assert upstream.headers["x-request-id"] == "up-1"
        return upstream.status, await upstream.read(10_000)
    finally:
        upstream.close()


def test_what_goes_up(serve: Any) -> None:
    upstream = Upstream(lambda _: (200, ANSWER))
    client = {
        "authorization": "Bearer the-clients", "cookie": "a=b", "x-api-key": "the-clients", "x-gateway-task": "support",
        "x-session-id": "s", "connection": "keep-alive", "te": "trailers", "host": "gateway", "accept-encoding": "gzip",
        "user-agent": "sdk", "openai-organization": "theirs", "content-length": "1",
        "openai-beta": "assistants=v2", "anthropic-version": "2023-06-01", "anthropic-beta": "x",
        "traceparent": "00-a-b-01", "tracestate": "v=1",
    }  # fmt: skip

    async def main() -> None:
        async with serve(upstream) as server:
            config = ProviderConfig(
                "p", "openai", server.url, KEY, {"OpenAI-Organization": "ours", "Anthropic-Beta": "y"}
            )
            provider = OpenAIProvider(config)
            for endpoint, body in (
                (Endpoint.CHAT, b'{"model": "m", "x": 1, %b}' % MESSAGES),
                (Endpoint.EMBEDDINGS, b'{"model": "m", "input": "a"}'),
            ):
                assert await ask(provider, attempt(body, client, endpoint=endpoint)) == (200, ANSWER)
            await provider.close()

    asyncio.run(main())
    assert upstream.lines == ["POST /v1/chat/completions HTTP/1.1", "POST /v1/embeddings HTTP/1.1"]
    assert upstream.bodies[0] == {"model": "up", "x": 1, "messages": [{"role": "user", "content": "hi"}]}
    sent = upstream.headers[0]
    assert sent.pop("host").startswith("127.0.0.1:")
    assert sent == {
        "accept-encoding": "identity",
        "accept": "application/json",
        "content-type": "application/json",
        "content-length": str(len(b'{"model": "up", "x": 1, %b}' % MESSAGES)),
        "user-agent": f"open-model-gateway/{__version__}",
        "authorization": f"Bearer {KEY}",
        "openai-organization": "ours",
        "openai-beta": "assistants=v2",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "y",
        "traceparent": "00-a-b-01",
        "tracestate": "v=1",
    }


def test_without_a_key_none_is_sent(serve: Any) -> None:
    upstream = Upstream(lambda _: (200, ANSWER))

    async def main() -> None:
        async with serve(upstream) as server:
            provider = OpenAIProvider(ProviderConfig("p", "openai", server.url, ""))
            await ask(provider, attempt(headers={"authorization": "Bearer x", "openai-beta": "a\rb: c"}))
            await provider.close()

    asyncio.run(main())
    assert not {"authorization", "openai-beta"} & upstream.headers[0].keys()


OWN = "https://api.anthropic.com/v1"
ANTHROPICS: list[tuple[str, Endpoint, dict[str, str], dict[str, str], dict[str, str]]] = [
    (OWN, Endpoint.MESSAGES, {}, {}, {"x-api-key": KEY, "anthropic-version": "2023-06-01"}),
    (OWN, Endpoint.COUNT_TOKENS, {}, {}, {"x-api-key": KEY, "anthropic-version": "2023-06-01"}),
    (OWN, Endpoint.MESSAGES, {"x-api-key": "theirs", "anthropic-version": "2099"}, {},
     {"x-api-key": KEY, "anthropic-version": "2099"}),
    (OWN, Endpoint.MESSAGES, {"anthropic-version": "2099"}, {"x-api-key": "a", "anthropic-version": "2000"},
     {"x-api-key": "a", "anthropic-version": "2000"}),
    (OWN, Endpoint.CHAT, {"x-api-key": "theirs"}, {}, {"authorization": f"Bearer {KEY}"}),
    ("https://elsewhere.test/v1", Endpoint.MESSAGES, {"x-api-key": "theirs"}, {}, {"authorization": f"Bearer {KEY}"}),
]  # fmt: skip


@pytest.mark.parametrize(("url", "endpoint", "given", "configured", "sent"), ANTHROPICS)
def test_anthropics_own_api_is_told_whose_request_it_is(
    url: str, endpoint: Endpoint, given: dict[str, str], configured: dict[str, str], sent: dict[str, str]
) -> None:
    """It takes no key as a bearer's token, and no request without a version."""
    config = ProviderConfig("p", "openai", url, KEY, configured)
    body = b'{"model": "m", "max_tokens": 1, %b}' % MESSAGES
    call = attempt(body, given, endpoint=endpoint).call
    headers = OpenAIProvider(config).headers(call, None)
    telling = ("authorization", "x-api-key", "anthropic-version")
    found = [(name.decode(), value.decode()) for name, value in headers if name.decode() in telling]
    assert dict(found) == sent
    assert len(found) == len(sent), "none twice"


def test_what_is_let_through_to_anthropic() -> None:
    async def nothing() -> bytes:
        return b""

    call = parse(Endpoint.PASSTHROUGH, [], b'{"input": ""}', CODEC)
    passing = PassingProvider(ProviderConfig("p", "openai", OWN, KEY))
    headers = passing.headers(Passage("p", "GET", "/messages/batches", call, 0, nothing))
    assert (b"x-api-key", KEY.encode()) in headers
    assert (b"anthropic-version", b"2023-06-01") in headers
    assert b"authorization" not in dict(headers)


def test_set_and_drop(serve: Any) -> None:
    upstream = Upstream(lambda _: (200, ANSWER))
    model = Model("m", "p", "up", set={"top_k": 1}, drop=frozenset({"logit_bias"}))

    async def main() -> None:
        async with serve(upstream) as server:
            provider = OpenAIProvider(ProviderConfig("p", "openai", server.url, ""))
            await ask(provider, attempt(b'{"model": "m", "logit_bias": {}, %b}' % MESSAGES, model=model))
            await provider.close()

    asyncio.run(main())
    assert upstream.bodies[0].keys() == {"model", "messages", "top_k"}


STREAM = b'{"model": "m", "stream": true, %b}' % MESSAGES


def refuses(body: dict[str, Any]) -> tuple[int, bytes]:
    if "stream_options" in body:
        return 422, b'{"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]}'
    return 200, ANSWER


def run_streams(upstream: Upstream, serve: Any, attempts: list[Attempt]) -> list[tuple[int, bytes]]:
    """The answers to these attempts, one after the other, of one provider."""
    answers: list[tuple[int, bytes]] = []

    async def main() -> None:
        async with serve(upstream) as server:
            provider = OpenAIProvider(ProviderConfig("p", "openai", server.url, KEY))
            answers.extend([await ask(provider, each) for each in attempts])
            await provider.close()

    asyncio.run(main())
    return answers


def asked(upstream: Upstream) -> list[tuple[str, Any]]:
    return [(body["model"], body.get("stream_options")) for body in upstream.bodies]


def test_a_stream_asks_for_usage(serve: Any) -> None:
    upstream = Upstream(lambda _: (200, ANSWER))
    assert run_streams(upstream, serve, [attempt(STREAM)]) == [(200, ANSWER)]
    assert asked(upstream) == [("up", {"include_usage": True})]
    assert upstream.headers[0]["accept"] == "text/event-stream"


def test_who_refuses_is_asked_again_without_and_remembered(serve: Any) -> None:
    upstream = Upstream(refuses)
    both = [attempt(STREAM), attempt(STREAM), attempt(STREAM, name="other")]
    assert run_streams(upstream, serve, both) == [(200, ANSWER)] * 3
    ask_usage = {"include_usage": True}
    assert asked(upstream) == [("up", ask_usage), ("up", None), ("up", None), ("other", ask_usage), ("other", None)]


def test_the_clients_own_stream_options_go_too(serve: Any) -> None:
    upstream = Upstream(refuses)
    own = STREAM[:-1] + b', "stream_options": {"include_usage": true}}'
    assert run_streams(upstream, serve, [attempt(own), attempt(own)]) == [(200, ANSWER)] * 2
    assert asked(upstream) == [("up", {"include_usage": True}), ("up", None), ("up", None)]


def test_a_clients_odd_stream_options_are_not_held_against_the_upstream(serve: Any) -> None:
    def picky(body: dict[str, Any]) -> tuple[int, bytes]:
        return (400, b"stream_options.odd: unknown") if "odd" in (body.get("stream_options") or {}) else (200, ANSWER)

    upstream = Upstream(picky)
    odd = STREAM[:-1] + b', "stream_options": {"odd": 1}}'
    assert run_streams(upstream, serve, [attempt(odd), attempt(STREAM)]) == [(200, ANSWER)] * 2
    assert asked(upstream)[-1] == ("up", {"include_usage": True})


@pytest.mark.parametrize("status", [400, 422])
def test_another_refusal_is_relayed(status: int, serve: Any) -> None:
    upstream = Upstream(lambda _: (status, b'{"error": {"message": "temperature"}}'))
    assert run_streams(upstream, serve, [attempt(STREAM)]) == [(status, b'{"error": {"message": "temperature"}}')]
    assert len(upstream.bodies) == 1


def test_a_refusal_that_stays_is_relayed_and_not_remembered(serve: Any) -> None:
    upstream = Upstream(lambda _: (400, b"your prompt says stream_options"))
    assert run_streams(upstream, serve, [attempt(STREAM)] * 2) == [(400, b"your prompt says stream_options")] * 2
    assert [options for _, options in asked(upstream)] == [{"include_usage": True}, None] * 2


def test_what_is_remembered_is_bounded(serve: Any) -> None:
    """A wildcard entry lets clients choose the upstream's model names."""
    upstream = Upstream(refuses)
    names = [f"m{number}" for number in range(REMEMBERED + 1)]
    run_streams(upstream, serve, [attempt(STREAM, name=name) for name in [*names, "m1", "m0"]])
    assert [options for _, options in asked(upstream)][-3:] == [None, {"include_usage": True}, None]


def test_connect_limit_is_the_targets(serve: Any) -> None:
    async def silent(peer: Any) -> None:
        await peer.closed()

    async def main() -> None:
        async with serve(silent) as server:
            provider = OpenAIProvider(ProviderConfig("p", "openai", server.url.replace("http:", "https:"), KEY))
            one = attempt()
            one = one._replace(target=one.target._replace(timeouts=Timeouts(connect=0.05)))
            with pytest.raises(UpstreamFailure, match=r"within 0\.05 s"):
                await provider.open(one)
            await provider.close()

    asyncio.run(main())


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\n", "\N{SNOWMAN}"])
@pytest.mark.parametrize("where", ["key", "header"])
def test_a_secret_that_cannot_be_sent_is_not_shown(value: str, where: str) -> None:
    secret = KEY + value
    config = ProviderConfig("p", "openai", "http://a", secret) if where == "key" else None
    config = config or ProviderConfig("p", "openai", "http://a", "", {"x-token": secret})
    with pytest.raises(ValueError, match="provider p: the header") as caught:
        OpenAIProvider(config)
    assert KEY not in str(caught.value)


def test_views_are_the_gateways() -> None:
    provider = OpenAIProvider(ProviderConfig("p", "openai", "http://a", ""))
    one = attempt()
    seen = provider.read_answer(one.call, ANSWER)
    assert seen is not None
    assert (seen.useful, seen.finish, seen.usage) == (True, "stop", {"total_tokens": 3})
    assert provider.read_chunk(one.call, b"nonsense") is None
