"""How answers end, and who is to blame: each test is a way in which a good answer was lost, or a bad one passed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests import replies
from tests.replies import DONE, END, chunk
from tests.servers import Gateway, until
from tests.upstream import CUT, STALL, Gate, Received, Reply, Step, Upstream

ROUTES = """
version: 1
providers: {up: {base_url: "@BASE@"}, hole: {base_url: "https://127.0.0.1:@HOLE@/v1"}}
defaults: {retries: 0, timeout: {first_token: 5s, attempt: 5s, total: 20s, idle: 5s}}
models:
  a: {provider: up, model: a-up, price: {input: 1, output: 2}, supports: [prefill]}
  b: {provider: up, model: b-up, price: {input: 1, output: 2}, supports: [prefill]}
  one: {provider: up, model: one-up, price: {input: 1, output: 2}, max_in_flight: 1}
  late: {provider: up, model: late-up, price: unmetered}
  spare: {provider: up, model: spare-up, price: unmetered}
  dead: {provider: up, model: dead-up, price: unmetered}
  black: {provider: hole, model: black-up, price: {input: 1, output: 2}}
routes:
  - {name: plain, match: {model: plain}, use: [a], fallback: [b]}
  - {name: goes-on, match: {model: goes-on}, use: [a], fallback: [b], mid_stream: continue}
  - {name: brief, match: {model: brief}, use: [a], timeout: {total: 3s}}
  - {name: pinged, match: {model: pinged}, use: [a], timeout: {idle: 300ms, total: 1s}}
  - {name: hedged, match: {model: hedged}, use: [a], fallback: [b], hedge: {after: 100ms}}
  - {name: roomy, match: {model: roomy}, use: [one], fallback: [b]}
  - {name: tight, match: {model: tight}, use: [late], fallback: [spare], timeout: {attempt: 280ms, total: 300ms}}
  - {name: hasty, match: {model: hasty}, use: [dead], timeout: {total: 100ms}}
"""


@pytest.fixture(scope="module")
def hole() -> Iterator[int]:
    """A port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok()) as server:
        yield server


@pytest.fixture(scope="module")
def routes(shared_upstream: Upstream, hole: int) -> str:
    return ROUTES.replace("@BASE@", shared_upstream.base_url).replace("@HOLE@", str(hole))


def stream(*steps: Any) -> Reply:
    """Deltas as chunks of content; everything else as `tests.upstream` takes it."""

    def reply(received: Received) -> Iterator[Step]:
        yield replies.stream_head()
        for step in steps:
            yield chunk(received, step) if isinstance(step, dict) else step(received) if callable(step) else step

    return reply


def finish(index: int = 0) -> Any:
    return lambda received: chunk(received, {}, "stop", index)


def second(text: str) -> Any:
    return lambda received: chunk(received, {"content": text}, index=1)


HELLO = {"role": "assistant", "content": "Hello "}


def story(gateway: Gateway, model: str, **more: Any) -> tuple[httpx.Response, dict[str, Any], list[dict[str, Any]]]:
    """The answer, its row and its attempts."""
    answer = gateway.chat(model, **more)
    name = answer.headers["x-request-id"]
    (row,) = until("its row", lambda: gateway.rows("SELECT * FROM requests WHERE id = ?", name))
    return answer, row, gateway.rows("SELECT * FROM attempts WHERE request_id = ? ORDER BY started", name)


# Several choices


def test_a_stream_of_two_choices_ends_with_the_second(gateway: Gateway, upstream: Upstream) -> None:
    begun = (HELLO, second("first "), finish(0))
    upstream.script("a-up", stream(*begun, 2.5, second("later"), finish(1), DONE, END))
    answer, row, _ = story(gateway, "plain", stream=True, n=2)
    assert "later" in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
    assert row["outcome"] == "ok"
    upstream.script("a-up", stream(*begun, 0.05, CUT))
    answer, row, _ = story(gateway, "plain", stream=True, n=2)
    assert "the answer broke off" in answer.text
    assert row["outcome"] == "upstream_error"


def test_content_after_a_finish_is_waited_for(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", stream(HELLO, finish(), {"content": "and "}, 2.5, {"content": "more"}, finish(), DONE, END))
    assert '"more"' in gateway.chat("plain", stream=True).text


# The last event


def unended(received: Received) -> bytes:
    """An event that lacks its blank line, and the end of the body."""
    whole = chunk(received, {"content": "brave "}).split(b"\r\n", 1)[1].rstrip(b"\r\n")
    return replies.chunked(whole + b"\n") + END


def test_an_event_without_its_blank_line_is_whole_all_the_same(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", stream(HELLO, unended))
    events = gateway.chat("plain", stream=True).text.split("\n\n")
    assert '"brave "' in events[1]
    assert events[2].startswith('data: {"error":')
    upstream.script("a-up", stream(HELLO, unended))
    upstream.script("b-up", replies.ok("new world."))
    answer = gateway.chat("goes-on", stream=True)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert upstream.seen("b-up")[-1].json["messages"][-1] == {"role": "assistant", "content": "Hello brave "}


# A finished answer


@pytest.mark.parametrize("end", [(finish(), DONE), (finish(),)], ids=["after [DONE]", "after the finish"])
def test_the_end_of_time_does_not_make_it_less(gateway: Gateway, upstream: Upstream, end: tuple[Any, ...]) -> None:
    upstream.script("a-up", stream(HELLO, 1.5, *end, STALL))
    answer, row, attempts = story(gateway, "brief", stream=True)
    assert "error" not in answer.text
    assert (row["outcome"], [each["result"] for each in attempts]) == ("ok", ["ok"])
    assert row["duration"] < 6  # not until the idle limit, 5 s after the last byte


# Signs of life


def test_comments_are_some_until_the_total_limit(gateway: Gateway, upstream: Upstream) -> None:
    """Servers send them while they think (`tests/faults/test_positives.py`); for ever they do not help."""
    pings = [step for _ in range(300) for step in (0.1, replies.chunked(b": ping\n\n"))]
    upstream.script("a-up", stream(HELLO, *pings))
    began = time.monotonic()
    assert "no next chunk within" in gateway.chat("pinged", stream=True).text
    assert 0.9 < time.monotonic() - began < 15  # they come for 30


def test_comments_without_end_are_not_kept(gateway: Gateway, upstream: Upstream) -> None:
    noise = replies.chunked(b": " + b"x" * 65_000 + b"\n\n")
    upstream.script("a-up", stream(*[noise] * 5_000))
    answer, _, attempts = story(gateway, "plain", stream=True)
    assert answer.headers["x-gateway-model"] == "b"
    assert (attempts[0]["result"], attempts[0]["detail"]) == ("malformed", "4194304 bytes without content")


# What is charged


def test_what_follows_an_early_report_is_charged(gateway: Gateway, upstream: Upstream) -> None:
    early = {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}
    begun = [lambda received: chunk(received, HELLO, usage=early), {"content": "x" * 400}, 0.05, CUT]
    upstream.script("a-up", stream(*begun))
    _, row, _ = story(gateway, "plain", stream=True)
    assert row["usage_estimated"]
    assert row["output_tokens"] >= 100


def test_what_was_never_sent_is_free(gateway: Gateway) -> None:
    answer, _, attempts = story(gateway, "black", headers={"x-gateway-timeout": "0.3"})
    assert answer.status_code == 504
    assert [(each["result"], each["cost_nano"]) for each in attempts] == [("connect", 0)]
    assert attempts[0]["detail"] == "no connection within 0.3 s"


def test_nothing_is_sent_when_its_time_ended_in_a_queue(gateway: Gateway, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("one-up", replies.ok(gate=gate))
    first = threading.Thread(target=gateway.chat, args=("one",))
    first.start()
    until("the first is there", lambda: upstream.seen("one-up"))
    answer = gateway.chat("one", headers={"x-gateway-timeout": "0.2"})
    assert answer.status_code == 504
    assert not gate.opened.is_set()
    gate.open()
    first.join()
    assert len(upstream.seen("one-up")) == 1


# Races and refusals


def test_a_refusal_does_not_beat_an_answer(gateway: Gateway, upstream: Upstream) -> None:
    for _ in range(21):
        gateway.chat("hedged")
    upstream.script("a-up", replies.after(0.5, replies.ok()))
    upstream.script("b-up", replies.status(400))
    answer, _, attempts = story(gateway, "hedged")
    assert (answer.status_code, answer.headers["x-gateway-model"]) == (200, "a")
    assert [(each["result"], each["purpose"]) for each in attempts] == [("ok", "answer"), ("cancelled", "hedge")]
    for _ in range(21):
        gateway.chat("hedged")
    upstream.script("a-up", replies.after(0.3, replies.status(500)))
    upstream.script("b-up", replies.status(400))
    assert gateway.chat("hedged").status_code == 400, "with nobody left to wait for, it is the last word"


def test_a_race_that_the_first_wins(gateway: Gateway, upstream: Upstream) -> None:
    """The row names who answered, and the loser ends when the race is decided, not when the answer ends."""
    for _ in range(21):
        gateway.chat("hedged", stream=True)
    begin, end = Gate(), Gate()
    upstream.script("a-up", stream(begin, HELLO, end, finish(), DONE, END))
    upstream.script("b-up", replies.hang())
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(story, gateway, "hedged", stream=True)
        (loser,) = until("the hedge", lambda: upstream.seen("b-up"))
        begin.open()
        left = loser.gone.wait(4)  # where the answer has not ended: no next chunk within 5 s is an error
        end.open()
        answer, row, _ = told.result(60)
    assert left
    assert (answer.headers["x-gateway-model"], row["model"], row["outcome"]) == ("a", "a", "ok")


def test_whoever_wants_no_fallback_waits_for_a_place(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("one-up", replies.after(0.4, replies.ok()))
    first = threading.Thread(target=gateway.chat, args=("roomy",))
    first.start()
    until("the first is there", lambda: upstream.seen("one-up"))
    assert gateway.chat("roomy").headers["x-gateway-model"] == "b"
    answer = gateway.chat("roomy", headers={"x-gateway-no-fallback": "true"})
    assert (answer.status_code, answer.headers["x-gateway-model"]) == (200, "one")
    first.join()


def test_a_refusal_whose_reason_does_not_come(gateway: Gateway, upstream: Upstream) -> None:
    stalled = b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    upstream.script("a-up", replies.raw(stalled, STALL))
    answer, _, attempts = story(gateway, "plain", stream=True)
    assert answer.headers["x-gateway-model"] == "b"
    assert (attempts[0]["result"], attempts[0]["cost_nano"]) == ("malformed", 0)


def test_a_media_type_has_no_case(gateway: Gateway, upstream: Upstream) -> None:
    head = replies.stream_head({"content-type": "Text/Event-Stream"})
    body = [lambda received: chunk(received, HELLO), finish(), DONE, END]
    upstream.script("a-up", lambda received: [head, *(s(received) if callable(s) else s for s in body)])
    assert gateway.chat("plain", stream=True).headers["x-gateway-model"] == "a"


# Blame


def open_breakers(gateway: Gateway) -> set[str]:
    return {
        sample.labels["model"]
        for sample in gateway.samples()
        if sample.name == "gateway_breaker_state" and sample.value
    }


def test_what_had_only_the_rest_of_the_time_is_not_blamed(gateway: Gateway, upstream: Upstream) -> None:
    upstream.always("late-up", replies.hang())
    upstream.always("spare-up", replies.hang())

    def blamed() -> bool:
        assert gateway.chat("tight").status_code == 504
        return "late" in open_breakers(gateway)

    until("the first to be blamed", blamed)
    assert "spare" not in open_breakers(gateway)


def test_a_client_with_more_patience_than_the_route_exempts_nobody(gateway: Gateway, upstream: Upstream) -> None:
    upstream.always("dead-up", replies.hang())

    def blamed() -> bool:
        gateway.chat("hasty", headers={"x-gateway-timeout": "3600"})
        return "dead" in open_breakers(gateway)

    until("it to be blamed", blamed)


# What is not continued


@pytest.mark.parametrize(
    "begun",
    [
        (HELLO, {"reasoning_content": "the user wants"}),
        ({"role": "assistant", "content": "\n"},),
    ],
    ids=["reasoning came last", "white space alone"],
)
def test_not_continued(gateway: Gateway, upstream: Upstream, begun: tuple[dict[str, str], ...]) -> None:
    upstream.script("a-up", stream(*begun, 0.05, CUT))
    assert "the answer broke off" in gateway.chat("goes-on", stream=True).text
    assert not upstream.seen("b-up")


def test_what_the_client_itself_began_is_not_continued(gateway: Gateway, upstream: Upstream) -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Once upon "}]
    upstream.script("a-up", replies.cut_after(2))
    answer = gateway.post(json={"model": "goes-on", "stream": True, "messages": messages})
    assert "the answer broke off" in answer.text
    assert not upstream.seen("b-up")
