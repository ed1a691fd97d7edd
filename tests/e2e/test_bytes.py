"""What goes upstream is the client's bytes, what comes back the upstream's, but for what contract section 1 lists."""

from __future__ import annotations

import json
import re

import pytest

from tests import replies
from tests.replies import Tokens
from tests.servers import Gateway
from tests.upstream import Received, Reply, Upstream

from .conftest import SECRET

ODD = (
    b'{ "temperature":1.0E0 ,\n\t"model" : "a", "messages":[{"role":"user","content":"h\\u00e9 \xc3\xa9 \\/"}],'
    b'"x_unknown":{"z":[1 , 2.50, 12345678901234567890]}, "seed":-0.0%s }'
)
COST = re.compile(rb',\s*"cost":\s*[0-9.]+|"cost":\s*[0-9.]+\s*,\s*')
ASKED_USAGE = re.compile(
    rb',\s*"stream_options":\s*\{"include_usage":\s*true\}|"stream_options":\s*\{"include_usage":\s*true\},\s*'
)
JSON = {"content-type": "application/json"}


def upstream_bytes(reply: Reply, received: Received) -> bytes:
    """The body that a reply sent for a request: the HTTP framing taken away."""
    sent = b"".join(step for step in reply(received) if isinstance(step, bytes))
    head, _, body = sent.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return body
    whole = b""
    while (size := int(body.partition(b"\r\n")[0], 16)) > 0:
        body = body.partition(b"\r\n")[2]
        whole, body = whole + body[:size], body[size + 2 :]
    return whole


def events(body: bytes) -> list[bytes]:
    return [event for event in re.split(rb"(?<=\n\n)", body) if event]


def test_only_the_model_name_changes_on_the_way_up(gateway: Gateway, upstream: Upstream) -> None:
    body = ODD % b""
    assert gateway.post(content=body, headers=JSON).status_code == 200
    assert upstream.requests[0].body == body.replace(b'"a"', b'"a-up"', 1)


def test_a_stream_always_asks_for_usage(gateway: Gateway, upstream: Upstream) -> None:
    body = ODD % b',"stream":true'
    assert gateway.post(content=body, headers=JSON).status_code == 200
    received = upstream.requests[0]
    assert received.wants_usage
    assert ASKED_USAGE.sub(b"", received.body) == body.replace(b'"a"', b'"a-up"', 1)


def test_a_client_that_asks_for_usage_is_sent_on_unchanged(gateway: Gateway, upstream: Upstream) -> None:
    body = ODD % b',"stream":true, "stream_options" : {"include_usage":true , "x":1}'
    assert gateway.post(content=body, headers=JSON).status_code == 200
    received = upstream.requests[0].json
    assert received["stream_options"] == {"include_usage": True, "x": 1}
    assert upstream.requests[0].body == body.replace(b'"a"', b'"a-up"', 1)


PLAIN = [
    replies.ok("Hé \u2028 there."),
    replies.ok(tokens=Tokens(3, 9, 5, 2)),
    replies.reasoning(),
    replies.tool_call(),
    replies.ok("", extra={"content": None, "refusal": "No."}),
    replies.ok(usage="zero"),
]


@pytest.mark.parametrize("reply", PLAIN)
def test_a_whole_answer_comes_back_with_cost_and_nothing_else(
    gateway: Gateway, upstream: Upstream, reply: Reply
) -> None:
    upstream.script("a-up", reply)
    answer = gateway.post(content=ODD % b"", headers=JSON)
    assert answer.status_code == 200
    assert "cost" in answer.json()["usage"]
    assert COST.sub(b"", answer.content) == upstream_bytes(reply, upstream.requests[0])


@pytest.mark.parametrize("place", ["end", "choice", "finish", "zero"])
@pytest.mark.parametrize("asked", [True, False])
def test_a_stream_comes_back_event_for_event(
    gateway: Gateway, upstream: Upstream, place: replies.UsagePlace, asked: bool
) -> None:
    reply = replies.ok("One two three.", usage=place, tokens=Tokens(3, 9, 5, 2))
    upstream.script("a-up", reply)
    more = b',"stream":true' + (b',"stream_options":{"include_usage":true}' if asked else b"")
    answer = gateway.post(content=ODD % more, headers=JSON)
    assert answer.headers["content-type"].startswith("text/event-stream")
    expected = events(upstream_bytes(reply, upstream.requests[0]))
    if not asked and place in ("end", "zero"):
        expected = [event for event in expected if b'"choices":[]' not in event]
    assert events(COST.sub(b"", answer.content)) == expected
    assert (b'"cost"' in answer.content) == (asked or place in ("choice", "finish"))


def test_the_cost_is_in_dollars(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", replies.ok(tokens=Tokens(input=100, cached_input=50, output=30, reasoning=20)))
    answer = gateway.chat("a")
    nano = 100 * 1000 + 50 * 100 + 30 * 2000 + 20 * 4000
    assert answer.json()["usage"]["cost"] == nano / 1e9
    assert float(answer.headers["x-gateway-cost-usd"]) == nano / 1e9


def test_a_bad_line_is_left_out_and_the_rest_passes(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", replies.with_bad_line())
    answer = gateway.chat("a", stream=True)
    assert b"not json" not in answer.content
    assert b": a comment" in answer.content
    assert b"event: vendor.ping" in answer.content
    assert answer.content.endswith(b"data: [DONE]\n\n")
    assert gateway.wait_rows(1)[-1]["outcome"] == "ok"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
def test_other_endpoints(gateway: Gateway, upstream: Upstream, path: str) -> None:
    body = b'{"model":"a", "prompt" : "x", "input":["x","y"]}'
    answer = gateway.post(path, content=body, headers=JSON)
    assert answer.status_code == 200
    received = upstream.requests[0]
    assert received.path == path
    assert received.body == body.replace(b'"a"', b'"a-up"')
    assert COST.sub(b"", answer.content) == upstream_bytes(replies.ok(), received)


def test_set_and_drop(gateway: Gateway, upstream: Upstream) -> None:
    gateway.chat("tuned", temperature=2, logit_bias={"1": 2}, chat_template_kwargs={"keep": 1, "enable_thinking": True})
    sent = upstream.requests[0].json
    assert sent["temperature"] == 0.5
    assert sent["chat_template_kwargs"] == {"keep": 1, "enable_thinking": False}
    assert "logit_bias" not in sent


def test_a_wildcard_sends_the_rest_of_the_name(gateway: Gateway, upstream: Upstream) -> None:
    answer = gateway.chat("wild/some/model-7")
    assert upstream.requests[0].model == "some/model-7"
    assert answer.headers["x-gateway-model"] == "wild/*"
    assert answer.headers["x-gateway-route"] == "direct"


@pytest.mark.parametrize(
    ("metadata", "sent"),
    [
        ({"task": "coding", "tags": "x,y"}, None),
        ({"task": "coding", "tags": ["x"]}, None),
        ({"task": "coding", "customer": "7"}, {"customer": "7"}),
        ({"customer": "7"}, {"customer": "7"}),
    ],
)
def test_our_metadata_is_taken_out(
    gateway: Gateway, upstream: Upstream, metadata: dict[str, object], sent: dict[str, object] | None
) -> None:
    answer = gateway.chat("auto", metadata=metadata)
    assert upstream.requests[0].json.get("metadata") == sent
    assert answer.headers["x-gateway-task"] == ("coding" if "task" in metadata else "default")


def test_which_headers_go_upstream(gateway: Gateway, upstream: Upstream) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    given = {
        "authorization": "Bearer client-secret-key",
        "x-api-key": "client-secret-key",
        "cookie": "session=1",
        "x-gateway-task": "coding",
        "x-gateway-tags": "t1",
        "openai-beta": "assistants=v2",
        "anthropic-version": "2023-06-01",
        "traceparent": trace,
        "connection": "keep-alive, x-hop",
        "x-hop": "1",
        "te": "trailers",
    }
    gateway.chat("a", headers=given)
    sent = dict(upstream.requests[0].headers)
    assert sent["authorization"] == f"Bearer {SECRET}"
    assert sent["x-account"] == "acme"
    assert sent["openai-beta"] == "assistants=v2"
    assert sent["anthropic-version"] == "2023-06-01"
    assert sent["traceparent"] == trace
    assert not sent.keys() & {"cookie", "x-api-key", "x-gateway-task", "x-gateway-tags", "x-hop", "te"}
    assert b"client-secret-key" not in upstream.requests[0].head


def test_response_headers(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", replies.ok())
    answer = gateway.chat("auto", headers={"x-request-id": "mine-1"})
    got = answer.headers
    assert got["x-request-id"] == "mine-1"
    assert (got["x-gateway-route"], got["x-gateway-task"]) == ("default", "default")
    assert (got["x-gateway-model"], got["x-gateway-provider"], got["x-gateway-attempts"]) == ("a", "up", "1")
    assert got["x-gateway-upstream-request-id"] == "up-1"
    assert 0 < float(got["x-gateway-overhead-ms"]) < 1000
    assert "x-gateway-fallback-reason" not in got
    assert "connection" not in got or got["connection"] != "close"


def test_a_request_without_an_id_is_given_one(gateway: Gateway, upstream: Upstream) -> None:
    ids = {gateway.chat("a").headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert len(upstream.requests) == 2


def test_stream_headers_are_there_before_the_end(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("b-up", replies.ok())
    body = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": "Traceback: x"}]}
    with gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert (answer.headers["x-gateway-route"], answer.headers["x-gateway-task"]) == ("coding", "coding")
        assert answer.headers["x-gateway-model"] == "b"
        assert "x-gateway-cost-usd" not in answer.headers
        answer.read()
    assert upstream.requests[0].model == "b-up"


def test_an_upstream_that_rejects_stream_options_is_asked_once(gateway: Gateway, upstream: Upstream) -> None:
    upstream.always("strict-up", replies.rejects_stream_options())
    for _ in range(2):
        answer = gateway.chat("strict", stream=True)
        assert answer.status_code == 200
        assert answer.content.endswith(b"data: [DONE]\n\n")
    asked = ["stream_options" in request.json for request in upstream.seen("strict-up")]
    assert asked == [True, False, False]


def test_an_upstreams_own_400_is_relayed(gateway: Gateway, upstream: Upstream) -> None:
    error = {"error": {"message": "temperature is silly", "type": "x", "param": "temperature", "code": "y"}, "more": 1}
    upstream.script("a-up", replies.status(400, error))
    answer = gateway.chat("again", temperature=99)
    assert answer.status_code == 400
    assert answer.content == json.dumps(error).encode()
    assert len(upstream.requests) == 1
