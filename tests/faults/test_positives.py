"""What is no failure, how long is waited, and what bounds the waiting. Each test has a model and a route of its own."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from gateway.core.index import BUILT_IN_REASONING
from tests import replies
from tests.faults.drive import read_events
from tests.faults.faulty import finishes_with
from tests.replies import DONE, END, chunked, event, stream_head, words_then
from tests.servers import Gateway, until
from tests.upstream import STALL, Reply, Step, Upstream

IDLE = 0.5  # seconds, of what is to stall
LIMITS = {"stall": 1000 * IDLE, "stall-in-thought": 1000 * IDLE, "total-plain": 500, "kept-alive": 2000}
PATIENCE = 9_000  # milliseconds, like those of LIMITS, of what is to be taken as it is, however busy the machine
LATE = 5.0  # seconds: what such a machine may add to a wait; what must not be waited for would take longer
GRAIN = 0.005  # seconds: the upstream notes when it has read a request, not when it came
ROUTE = """
  - name: {name}
    match: {{model: ask-{name}}}
    use: [{name}]
    fallback: [spare]
    retries: {retries}
    timeout: {{attempt: {limit}, first_token: {limit}, idle: {limit}, total: {total}}}
"""
HEAD = """
version: 1
providers:
  up: {base_url: "@BASE@"}
models:
  spare: {provider: up, price: unmetered}
"""


def delta(delta: dict[str, object], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event({"id": "cmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})


def stream_of(*steps: Step) -> Reply:
    """A stream of these steps with a proper finish."""
    return replies.raw(stream_head(), *steps, delta({}, "stop") + DONE + END)


CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
THOUGHT = {"reasoning_content": "Let me think."}


class Fine(NamedTuple):
    """An answer that must be taken as it is."""

    name: str
    reply: Reply
    modes: tuple[bool, ...]  # streamed or not
    messages: tuple[dict[str, object], ...] = ({"role": "user", "content": "Say hello."},)


TOOL_RESULT: tuple[dict[str, object], ...] = (
    {"role": "user", "content": "Look."},
    {"role": "tool", "tool_call_id": "call_1", "content": "seen"},
)
BOTH, PLAIN, STREAM = (False, True), (False,), (True,)
FINE = [
    Fine("tool-call-null-content", replies.tool_call(), BOTH),
    Fine("reasoning-and-text", replies.reasoning(), BOTH),
    Fine("reasoning-null-content", finishes_with("stop", None, THOUGHT), PLAIN),
    Fine("reasoning-under-its-other-name", finishes_with("stop", None, {"reasoning": "Hm."}), PLAIN),
    Fine("reasoning-only", stream_of(delta({"content": None, "reasoning_content": "Hm."})), STREAM),
    Fine("refusal", finishes_with("stop", None, {"refusal": "No."}), PLAIN),
    Fine("refusal-streamed", stream_of(delta({"refusal": "No."})), STREAM),
    Fine("length-without-content", finishes_with("length", None), BOTH),
    Fine("nothing-to-add-to-a-tool-result", finishes_with("stop", None), BOTH, TOOL_RESULT),
    Fine("bad-line-comment-unknown-event", replies.with_bad_line(), STREAM),
    Fine("role-and-comments-first", stream_of(delta({"role": "assistant"}), 0.1, delta({"content": "hi"})), STREAM),
    Fine("no-finish-but-done", words_then([DONE + END]), STREAM),
    Fine("finish-but-no-done", words_then([delta({}, "stop") + END]), STREAM),
]


class Wait(NamedTuple):
    """A first answer with Retry-After, and what follows: who answers, and no sooner and no later than these seconds."""

    name: str
    headers: Callable[[], dict[str, str]]
    status: int
    by: str  # "same" target again, or "spare"
    least: float
    most: float  # but for what a busy machine adds
    total: str = "10s"


def in_seconds(seconds: int) -> Callable[[], dict[str, str]]:
    """An HTTP date has whole seconds: it means up to one less."""
    return lambda: {"retry-after": email.utils.formatdate(time.time() + seconds, usegmt=True)}


WAITS = [
    Wait("seconds", lambda: {"retry-after": "1"}, 429, "same", 1.0, 1.0),
    Wait("fraction", lambda: {"retry-after": "0.4"}, 429, "same", 0.4, 0.4),
    Wait("milliseconds", lambda: {"retry-after-ms": "300"}, 429, "same", 0.3, 0.3),
    Wait("milliseconds-win", lambda: {"retry-after-ms": "300", "retry-after": "60"}, 429, "same", 0.3, 0.3),
    Wait("date", in_seconds(2), 429, "same", 0.9, 2.0),
    Wait("date-gone-by", in_seconds(-60), 429, "same", 0.0, 0.5),
    Wait("unavailable", lambda: {"retry-after": "1"}, 503, "same", 1.0, 1.0),
    Wait("long", lambda: {"retry-after": "60"}, 429, "spare", 0.0, 0.0),
    Wait("long-date", in_seconds(3600), 429, "spare", 0.0, 0.0),
    Wait("nonsense", lambda: {"retry-after": "soon"}, 429, "same", 0.0, 0.5),
    Wait("beyond-the-deadline", lambda: {"retry-after": "2"}, 429, "spare", 0.0, 0.0, total="1900ms"),
]
OTHERS = ("stall", "stall-in-thought", "kept-alive", "thinks", "total-plain", "total-stream", "alone")


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok()) as server:
        yield server


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.forget()
    return shared_upstream


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Gateway]:
    fine = [f"{case.name}-{'s' if stream else 'p'}" for case in FINE for stream in case.modes]
    names = [*fine, *OTHERS, *(f"wait-{wait.name}" for wait in WAITS)]
    totals = {f"wait-{wait.name}": wait.total for wait in WAITS} | {"total-plain": "800ms", "total-stream": "1200ms"}
    text = HEAD.replace("@BASE@", shared_upstream.base_url)
    text += "".join(f"  {name}: {{provider: up, price: {{input: 1, output: 1}}}}\n" for name in names)
    text += "  thinker: {provider: up, price: unmetered, supports: [reasoning]}\nroutes:"
    for name in names:
        retries = 1 if name.startswith("wait") else 5 if name.startswith("total") else 0
        limit = f"{LIMITS.get(name, PATIENCE):.0f}ms"
        text += ROUTE.format(name=name, retries=retries, limit=limit, total=totals.get(name, "10s"))
    text += "  - {name: thinker, match: {model: ask-thinker}, use: [thinker], fallback: [spare]}\n"
    with Gateway(tmp_path_factory.mktemp("positives"), text) as started:
        yield started


@pytest.mark.parametrize(
    ("case", "stream"),
    [(case, stream) for case in FINE for stream in case.modes],
    ids=lambda value: value.name if isinstance(value, Fine) else "streamed" if value else "plain",
)
def test_this_is_an_answer(gateway: Gateway, upstream: Upstream, case: Fine, stream: bool) -> None:
    name = f"{case.name}-{'s' if stream else 'p'}"
    upstream.script(name, case.reply)
    answer = gateway.chat(f"ask-{name}", stream=stream, messages=case.messages)
    assert answer.status_code == 200
    assert (answer.headers["x-gateway-model"], answer.headers["x-gateway-attempts"]) == (name, "1")
    assert '"error"' not in answer.text
    assert len(upstream.calls) == 1


def test_a_bad_line_is_counted_and_left_out(gateway: Gateway, upstream: Upstream) -> None:
    name = "bad-line-comment-unknown-event-s"
    before = gateway.metric("gateway_stream_lines_dropped_total", model=name)
    upstream.script(name, replies.with_bad_line())
    answer = gateway.chat(f"ask-{name}", stream=True)
    assert "{not json" not in answer.text
    assert ": a comment" in answer.text
    assert "event: vendor.ping" in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
    until("the count", lambda: gateway.metric("gateway_stream_lines_dropped_total", model=name) == before + 1)


def test_a_stall_is_noticed_at_the_idle_limit(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("stall", words_then([STALL]))
    answer = gateway.chat("ask-stall", stream=True)
    request = upstream.calls[0]
    assert request.gone.wait(60)
    assert IDLE <= request.gone_at - request.at < IDLE + LATE  # `total` is 10 s
    *_, last = read_events(answer.content)
    assert last.json["error"]["code"] == "upstream_timeout"


def test_a_stall_within_visible_thought_is_a_stall_too(gateway: Gateway, upstream: Upstream) -> None:
    """Reasoning that the client sees is content: what follows it cannot come from another model."""
    upstream.script("stall-in-thought", replies.raw(stream_head() + delta(dict(THOUGHT)), STALL))
    answer = gateway.chat("ask-stall-in-thought", stream=True)
    assert answer.headers["x-gateway-model"] == "stall-in-thought"
    *_, last = read_events(answer.content)
    assert last.json["error"]["code"] == "upstream_timeout"


def test_comments_keep_a_stream_alive(gateway: Gateway, upstream: Upstream) -> None:
    """Servers that send comments while they think (OpenRouter's `: OPENROUTER PROCESSING`) have not stalled."""
    beats: list[Step] = [step for _ in range(6) for step in (chunked(b": thinking\n\n"), 0.5)]
    upstream.script("kept-alive", words_then([*beats, delta({}, "stop") + DONE + END]))
    began = time.monotonic()
    answer = gateway.chat("ask-kept-alive", stream=True)
    assert time.monotonic() - began > 2.9  # of two without a next chunk
    assert answer.text.endswith("data: [DONE]\n\n")
    assert '"error"' not in answer.text


def test_hidden_reasoning_is_no_stall_where_the_model_reasons(gateway: Gateway, upstream: Upstream) -> None:
    """Minutes of silence cannot be tried here; that they are allowed is in the plan, and seconds of it pass."""
    explained = gateway.chat("ask-thinker", headers={"x-gateway-dry-run": "true"}).json()
    limits = {target["model"]: target["timeouts"] for target in explained["targets"]}
    assert limits["thinker"]["first_token"] == limits["thinker"]["idle"] == BUILT_IN_REASONING.idle == 600
    assert limits["spare"]["idle"] < 600
    upstream.script("thinker", stream_of(1.0, delta({"content": "So."}), 1.0, delta({"content": " Yes."})))
    answer = gateway.chat("ask-thinker", stream=True)
    assert answer.headers["x-gateway-model"] == "thinker"
    assert answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: wait.name)
def test_retry_after(gateway: Gateway, upstream: Upstream, wait: Wait) -> None:
    name = f"wait-{wait.name}"
    upstream.script(name, replies.status(wait.status, headers=wait.headers()))
    answer = gateway.chat(f"ask-{name}")
    assert answer.status_code == 200
    first, second = upstream.calls
    assert second.model == {"same": name, "spare": "spare"}[wait.by]
    assert wait.least - GRAIN <= second.at - first.at < wait.most + LATE


def test_without_anybody_else_a_wait_beyond_patience_is_the_clients(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("alone", replies.rate_limited("30"))
    began = time.monotonic()
    answer = gateway.chat("ask-alone", headers={"x-gateway-no-fallback": "true"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_healthy_upstream")
    assert time.monotonic() - began < 30


def test_the_total_bounds_all_attempts(gateway: Gateway, upstream: Upstream) -> None:
    upstream.always("total-plain", replies.hang())
    upstream.always("spare", replies.hang())
    began = time.monotonic()
    answer = gateway.chat("ask-total-plain")
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    assert 0.8 <= time.monotonic() - began < 0.8 + LATE  # twelve attempts would take six


def test_the_total_bounds_an_answer_under_way(gateway: Gateway, upstream: Upstream) -> None:
    drip = [step for index in range(100) for step in (delta({"content": f"{index} "}), 0.2)]
    upstream.script("total-stream", stream_of(*drip))
    began = time.monotonic()
    answer = gateway.chat("ask-total-stream", stream=True)
    assert 1.2 <= time.monotonic() - began < 1.2 + LATE  # all of it would take 20
    *_, last = read_events(answer.content)
    assert last.json["error"]["code"] == "upstream_timeout"
    assert "[DONE]" not in answer.text
    row = until("its row", lambda: gateway.rows("SELECT * FROM requests WHERE route = 'total-stream'"))[0]
    assert row["outcome"] == "upstream_error"
    assert row["cost_nano"] > 0
