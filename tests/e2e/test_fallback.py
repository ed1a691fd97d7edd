"""Each kind of failure, streamed and not: the client gets the fallback's answer, and is told why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import replies
from tests.e2e.conftest import SECRET
from tests.servers import Gateway, until
from tests.upstream import STALL, Gate, Reply, Upstream

KINDS: list[tuple[str, Reply]] = [
    ("rate_limited", replies.rate_limited("30")),
    ("server_error", replies.status(500)),
    ("server_error", replies.status(503)),
    ("server_error", replies.status(529)),
    ("server_error", replies.status(408)),
    ("server_error", replies.reset()),
    ("account", replies.status(401)),
    ("account", replies.status(402)),
    ("account", replies.status(403)),
    ("account", replies.status(404)),
    ("account", replies.status(429, {"error": {"message": "no credit", "type": "x", "code": "insufficient_quota"}})),
    ("context_length", replies.context_too_long()),
    ("timeout", replies.hang()),
    ("empty", replies.empty()),
    ("empty", replies.no_choices()),
]
PLAIN = [
    ("malformed", replies.error_in_200()),
    ("malformed", replies.html_in_200()),
    ("malformed", replies.truncated()),
]
STREAMED = [
    ("timeout", replies.role_then_stall()),
    ("stream_cut", replies.error_in_200()),
    ("stream_cut", replies.truncated()),
    ("stream_cut", replies.cut_after(0)),
    ("stream_cut", replies.ends_without_finish(0)),
    ("malformed", replies.html_in_200()),
]


CASES = (
    [(kind, reply, stream) for kind, reply in KINDS for stream in (False, True)]
    + [(kind, reply, False) for kind, reply in PLAIN]
    + [(kind, reply, True) for kind, reply in STREAMED]
)


@pytest.fixture
def gateway(tmp_path: Path, routes: str) -> Iterator[Gateway]:
    """A fresh one for each test: a model that failed in one must not be left alone in the next."""
    with Gateway(tmp_path, routes, env={"UP_KEY": SECRET}) as started:
        yield started


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory, routes: str) -> Iterator[Gateway]:
    """One for all cases, with a model and a route for each."""
    models = "".join(f"  a{n}: {{provider: up, model: a{n}-up, price: unmetered}}\n" for n in range(len(CASES)))
    pairs = "".join(PAIR.replace("NUMBER", str(n)) for n in range(len(CASES)))
    written = routes.replace("models:\n", "models:\n" + models).replace("routes:\n", "routes:\n" + pairs)
    with Gateway(tmp_path_factory.mktemp("cases"), written, env={"UP_KEY": SECRET}) as started:
        yield started


PAIR = """
  - name: pairNUMBER
    match: {model: pairNUMBER}
    use: [aNUMBER]
    fallback: [b]
    retries: 0
    timeout: {attempt: 1500ms, first_token: 1500ms, idle: 1500ms, total: 15s}
"""


@pytest.mark.parametrize(
    ("number", "kind", "reply", "stream"),
    [(number, *case) for number, case in enumerate(CASES)],
    ids=lambda value: value.__qualname__.split(".")[0] if callable(value) else str(value),
)
def test_the_fallback_answers(
    cases: Gateway, upstream: Upstream, number: int, kind: str, reply: Reply, stream: bool
) -> None:
    upstream.script(f"a{number}-up", reply)
    answer = cases.chat(f"pair{number}", stream=stream)
    assert answer.status_code == 200
    assert "Hello" in answer.text
    assert answer.headers["x-gateway-model"] == "b"
    assert answer.headers["x-gateway-attempts"] == "2"
    assert answer.headers["x-gateway-fallback-reason"] == kind
    assert [request.model for request in upstream.requests] == [f"a{number}-up", "b-up"]


def test_a_key_that_an_upstream_quotes_is_shown_to_nobody(cases: Gateway, upstream: Upstream) -> None:
    quoting = {"error": {"message": f"Bearer {SECRET} of acme is no good, nor is {SECRET}", "type": "x", "code": None}}
    refused, failed = replies.status(401, quoting), replies.status(500, quoting)
    for again in ([refused], [failed, failed]):  # what failed is tried again
        upstream.script("a-up", *again)
        answer = cases.chat("a")
        assert answer.status_code >= 500
        assert SECRET not in answer.text
    query = "SELECT request_id, status, detail FROM attempts WHERE model = 'a'"
    until("both requests' rows", lambda: {row["status"] for row in cases.rows(query)} >= {401, 500})
    rows = cases.rows(query)
    shown = "Bearer [redacted] of acme is no good, nor is [redacted]"
    assert {row["detail"].partition(": ")[2] for row in rows} == {shown}
    until("the log lines", lambda: all(row["request_id"] in cases.log for row in rows))
    assert SECRET not in cases.log


def test_connect(gateway: Gateway, upstream: Upstream) -> None:
    answer = gateway.chat("both-dead")
    assert answer.status_code == 200
    assert answer.headers["x-gateway-fallback-reason"] == "connect"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("reply", [replies.tool_call(), replies.reasoning(), replies.ok("", extra={"refusal": "No."})])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_text_is_no_failure(gateway: Gateway, upstream: Upstream, reply: Reply, stream: bool) -> None:
    upstream.script("a-up", reply)
    assert gateway.chat("pair", stream=stream).headers["x-gateway-model"] == "a"


def test_content_filter_is_no_fallback_by_default(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", replies.content_filtered())
    assert gateway.chat("pair").status_code == 400
    assert len(upstream.requests) == 1


def test_no_fallback_when_the_client_says_so(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", replies.status(500))
    answer = gateway.chat("pair", headers={"x-gateway-no-fallback": "true"})
    assert answer.status_code == 502
    assert {request.model for request in upstream.requests} == {"a-up"}


def test_a_model_that_the_client_named_has_no_fallback(gateway: Gateway, upstream: Upstream) -> None:
    upstream.always("a-up", replies.status(500))
    answer = gateway.chat("a")
    assert answer.status_code == 502
    assert answer.headers["x-gateway-route"] == "direct"
    assert {request.model for request in upstream.requests} == {"a-up"}


def test_exhausted(gateway: Gateway, upstream: Upstream) -> None:
    upstream.always("a-up", replies.status(500))
    upstream.always("b-up", replies.status(401))
    answer = gateway.chat("pair")
    assert answer.status_code == 502
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("upstream_error", "upstream_error", None)
    assert all(word in error["message"] for word in ("a", "b", "500", "401"))
    assert answer.headers["x-should-retry"] == "false"


def test_nothing_listens(gateway: Gateway, upstream: Upstream) -> None:
    answer = gateway.chat("hopeless")
    assert answer.status_code in (502, 503)
    assert answer.headers["x-should-retry"] == "false"
    assert "connect" in answer.json()["error"]["message"]
    assert upstream.requests == []


def test_a_timeout_everywhere_is_504(gateway: Gateway, upstream: Upstream) -> None:
    upstream.always("a-up", replies.hang())
    upstream.always("b-up", replies.hang())
    answer = gateway.chat("pair")
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "upstream_timeout"
    assert all(request.gone.wait(60) for request in upstream.requests)


def test_the_client_can_shorten_the_total(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", replies.hang())
    began = time.monotonic()
    answer = gateway.chat("a", headers={"x-gateway-timeout": "0.3"})
    assert answer.status_code == 504
    assert time.monotonic() - began < 30  # it would hang for an hour


def test_a_retry_obeys_retry_after(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", replies.rate_limited("1"))
    answer = gateway.chat("again")
    assert answer.headers["x-gateway-model"] == "a"
    first, second = upstream.requests
    assert 1.0 <= second.at - first.at < 20


def test_a_long_retry_after_moves_on(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", replies.rate_limited("60"))
    began = time.monotonic()
    assert gateway.chat("again").headers["x-gateway-model"] == "b"
    assert time.monotonic() - began < 30


def test_retry_after_ms(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", replies.rate_limited(headers={"retry-after-ms": "300"}))
    assert gateway.chat("again").headers["x-gateway-model"] == "a"
    first, second = upstream.requests
    assert 0.3 <= second.at - first.at < 20


BROKEN = {
    "cut": replies.cut_after(2),
    "no finish": replies.ends_without_finish(2),
    "error event": replies.error_after(2),
    "stall": replies.words_then([STALL], 2),
}


@pytest.mark.parametrize("how", BROKEN)
def test_after_content_the_client_sees_an_error_event(gateway: Gateway, upstream: Upstream, how: str) -> None:
    upstream.script("a-up", BROKEN[how])
    before = len(gateway.rows())
    answer = gateway.chat("pair", stream=True)
    assert answer.status_code == 200
    assert "word0" in answer.text
    assert "word1" in answer.text
    assert '"error"' in answer.text.split("\n\n")[-2]
    assert "[DONE]" not in answer.text
    assert {request.model for request in upstream.requests} == {"a-up"}
    assert gateway.wait_rows(before + 1)[-1]["outcome"] == "upstream_error"


def test_a_client_that_leaves(gateway: Gateway, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("a-up", replies.ok("One two three four.", gate=gate))
    before = len(gateway.rows())
    body = {"model": "pair", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(answer.iter_bytes())
        assert gate.reached.wait(60)
        time.sleep(2)  # an upstream that thinks: not our overhead
    left = time.monotonic()
    assert upstream.requests[0].gone.wait(60)
    assert upstream.requests[0].gone_at - left < 20  # the gate would open by itself after 30
    gate.open()
    row = gateway.wait_rows(before + 1)[-1]
    assert (row["outcome"], row["model"]) == ("cancelled", "a")
    assert row["cost_nano"] > 0
    assert row["overhead"] < 1.5
    attempt = gateway.rows("SELECT * FROM attempts WHERE request_id = ?", row["id"])[0]
    assert (attempt["result"], attempt["usage_estimated"]) == ("cancelled", 1)
    assert attempt["output_tokens"] > 0
    assert until("no leaked gauge", lambda: gateway.metric("gateway_requests_in_flight") == 0)


def test_a_client_that_leaves_before_the_answer(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", replies.hang())
    before = len(gateway.rows())
    with pytest.raises(httpx.ReadTimeout):
        gateway.client.post(
            "/v1/chat/completions",
            json={"model": "only", "messages": [{"role": "user", "content": "hi"}]},
            timeout=httpx.Timeout(30, read=1),
        )
    assert upstream.requests[0].gone.wait(60)
    assert gateway.wait_rows(before + 1)[-1]["outcome"] == "cancelled"


def test_one_row_for_each_attempt(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", replies.status(500))
    before = len(gateway.rows())
    gateway.chat("pair")
    row = gateway.wait_rows(before + 1)[-1]
    attempts = gateway.rows("SELECT * FROM attempts WHERE request_id = ? ORDER BY number", row["id"])
    assert [(a["model"], a["purpose"], a["reason"], a["result"], a["status"]) for a in attempts] == [
        ("a", "retry", "first", "server_error", 500),
        ("b", "answer", "server_error", "ok", 200),
    ]
    assert row["fallback_reason"] == "server_error"
