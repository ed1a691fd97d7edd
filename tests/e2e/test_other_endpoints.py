"""Moderations, rankings, pictures and speech: through the same engine, to the nano-dollar, whole and streamed."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from tests import documented as doc
from tests import replies
from tests.documented import Ask
from tests.replies import END, chunked, stream_head
from tests.servers import Gateway, until
from tests.upstream import CLOSE, CUT, Gate, Received, Reply, Step, Upstream

ROUTES = """
version: 1
providers:
  up: {base_url: "@BASE@"}
models:
  tokens:
    provider: up
    model: tokens-up
    price: {input: 5, output: 20, image_input: 10, image_output: 40, audio_output: 30}
  images: {provider: up, model: images-up, price: {per_image: 0.04}}
  letters: {provider: up, model: letters-up, price: {per_character: 0.000015}}
  seconds: {provider: up, model: seconds-up, price: {per_second: 0.0001}}
  units: {provider: up, model: units-up, price: {input: 0, output: 0, per_search: 0.002}}
  free: {provider: up, model: free-up, price: {input: 0, output: 0}}
  unpriced: {provider: up, model: unpriced-up}
  other: {provider: up, model: other-up, price: unmetered}
routes:
  - {name: tokens, match: {model: "try-tokens"}, use: [tokens], fallback: [other], retries: 0}
  - {name: images, match: {model: "try-images"}, use: [images], fallback: [other], retries: 0}
  - {name: letters, match: {model: "try-letters"}, use: [letters], fallback: [other], retries: 0}
  - {name: seconds, match: {model: "try-seconds"}, use: [seconds], fallback: [other], retries: 0}
  - {name: units, match: {model: "try-units"}, use: [units], fallback: [other], retries: 0}
  - {name: kept, match: {model: kept}, use: [letters], capture: {keep: 1d}}
  - {name: free, match: {model: ["try-free", "omni-moderation-latest"]}, use: [free], fallback: [other], retries: 0}
keys:
  - {name: rich, value: rich-0123456789abcdef}
  - {name: poor, value: poor-0123456789abcdef, budget: {limit_usd: 0.0001, window: total}}
  - {name: some, value: some-0123456789abcdef, budget: {limit_usd: 1, window: total}}
  - {name: narrow, value: narrow-0123456789abcdef, allow: ["try-free"]}
"""


class Case(NamedTuple):
    ask: Ask
    model: str
    reply: Reply
    cost: int  # nano-USD
    tokens: tuple[int, int]  # of input and output
    more: dict[str, Any]
    estimated: bool = False


MADE = 27 * 20 // 15  # tokens of sound: 20 a second, 15 letters a second
DRAWN = 10 * 5000 + 40 * 10_000 + 4160 * 40_000  # text and pictures read, and a picture made
OF_IMAGES = {"image_input": 40, "image_output": 4160}
DRAW_IN_EVENTS = doc.DRAW._replace(fields={**doc.DRAW.fields, "stream": True, "partial_images": 1})
SPEAK_IN_EVENTS = doc.SPEAK._replace(fields={**doc.SPEAK.fields, "stream_format": "sse"})
GUESS = 7 * 5000 + MADE * 30_000
CASES = {
    "moderation": Case(doc.MODERATE, "free", doc.answer(doc.MODERATION), 0, (5, 0), {}, True),
    "ranking by tokens": Case(doc.RANK, "tokens", doc.answer(doc.JINA), 815 * 5000, (815, 0), {}),
    "ranking by units": Case(doc.RANK, "units", doc.answer(doc.COHERE), 2_000_000, (0, 0), {"searches": 1}),
    "a picture by tokens": Case(doc.DRAW, "tokens", doc.answer(doc.IMAGE), DRAWN, (50, 4160), OF_IMAGES),
    "pictures by the piece": Case(doc.DRAW, "images", doc.answer(doc.PICTURES), 80_000_000, (0, 0), {"images": 2}),
    "a picture in events": Case(DRAW_IN_EVENTS, "tokens", doc.events(*doc.DRAWING), DRAWN, (50, 4160), OF_IMAGES),
    "speech by letters": Case(doc.SPEAK, "letters", doc.spoken(), 27 * 15_000, (0, 0), {"characters": 27}),
    "speech by seconds": Case(doc.SPEAK, "seconds", doc.spoken(), 180_000, (0, 0), {"milliseconds": 1800}, True),
    "speech by tokens": Case(doc.SPEAK, "tokens", doc.spoken(), GUESS, (7, MADE), {"audio_output": MADE}, True),
    "speech in events": Case(
        *(SPEAK_IN_EVENTS, "tokens", doc.events(*doc.SPEAKING), 14 * 5000 + 101 * 30_000),
        tokens=(14, 101),
        more={"audio_output": 101},
    ),
}
WHOLE = ["moderation", "ranking by tokens", "a picture by tokens", "speech by letters"]  # one of each endpoint


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with Upstream(replies.status(500)) as running:
        yield running


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.forget()
    return server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, server: Upstream) -> Iterator[Gateway]:
    """One for all tests, each of which looks for its own row; breakers stay closed."""
    with Gateway(tmp_path_factory.mktemp("others"), ROUTES.replace("@BASE@", server.base_url)) as running:
        yield running


def send(gateway: Gateway, ask: Ask, model: str, key: str = "rich", **headers: str) -> httpx.Response:
    given = {"authorization": f"Bearer {key}-0123456789abcdef", "x-request-id": secrets.token_hex(8), **headers}
    return gateway.client.post(f"/v1{ask.path}", json={"model": model, **ask.fields}, headers=given)


def recover(gateway: Gateway, upstream: Upstream, case: Case) -> None:
    """A good answer of both models, so that no breaker opens."""
    for model in (case.model, "other"):
        upstream.script(f"{model}-up", case.reply)
        assert send(gateway, case.ask, model).status_code == 200


def row_of(gateway: Gateway, request_id: str) -> dict[str, Any]:
    query = "SELECT * FROM requests WHERE client_request_id = ?"
    return until("the row", lambda: gateway.rows(query, request_id))[0]


def cases() -> Iterator[Any]:
    """Each, with what the compatibility page may say of it. Both rankings are their makers', all else is OpenAI's."""
    makers = {"ranking by tokens": "jina", "ranking by units": "cohere"}
    for name, case in CASES.items():
        how = "streamed" if name.endswith("in events") else "whole"
        mark = pytest.mark.compatible(endpoint=case.ask.path, system=makers.get(name, "openai"), how=how)
        yield pytest.param(name, marks=mark)


@pytest.mark.parametrize("name", [*cases()])
def test_an_answer_is_passed_charged_and_counted(gateway: Gateway, upstream: Upstream, name: str) -> None:
    case = CASES[name]
    labels = {"route": case.model, "model": case.model}
    upstream.script(f"{case.model}-up", case.reply)
    before = gateway.metric("gateway_requests_total", **labels), gateway.metric("gateway_cost_usd_total", **labels)
    answer = send(gateway, case.ask, f"try-{case.model}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-gateway-model"] == case.model
    sent = upstream.requests[-1]
    assert sent.path == f"/v1{case.ask.path}"
    assert sent.json == {"model": f"{case.model}-up", **case.ask.fields}
    row = row_of(gateway, answer.headers["x-request-id"])
    assert (row["endpoint"], row["outcome"], row["status"]) == (case.ask.path, "ok", 200)
    assert row["cost_nano"] == case.cost
    assert (row["input_tokens"], row["output_tokens"], bool(row["usage_estimated"])) == (*case.tokens, case.estimated)
    assert json.loads(row["usage_more"] or "{}") == case.more
    until("it in the metrics", lambda: gateway.metric("gateway_requests_total", **labels) == before[0] + 1)
    assert gateway.metric("gateway_cost_usd_total", **labels) - before[1] == pytest.approx(case.cost / 1e9)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (replies.status(503), "server_error"),
        (replies.error_in_200(), "malformed"),
        (replies.html_in_200(), "malformed"),
        (replies.truncated(), "malformed"),
        (doc.answer(b""), "malformed"),
    ],
    ids=["503", "an error in a 200", "a page", "cut short", "nothing"],
)
def test_what_is_no_answer_is_answered_by_the_fallback(
    gateway: Gateway, upstream: Upstream, name: str, reply: Reply, reason: str
) -> None:
    case = CASES[name]
    upstream.script(f"{case.model}-up", reply)
    upstream.script("other-up", case.reply)
    answer = send(gateway, case.ask, f"try-{case.model}")
    assert answer.status_code == 200
    assert answer.headers["x-gateway-model"] == "other"
    assert answer.headers["x-gateway-fallback-reason"] == reason
    assert row_of(gateway, answer.headers["x-request-id"])["outcome"] == "ok"
    recover(gateway, upstream, case)


@pytest.mark.parametrize("name", CASES)
def test_when_nobody_can_the_error_is_in_the_envelope(gateway: Gateway, upstream: Upstream, name: str) -> None:
    case = CASES[name]
    answer = send(gateway, case.ask, f"try-{case.model}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "upstream_error")
    assert [request.model for request in upstream.calls] == [f"{case.model}-up", "other-up"]
    recover(gateway, upstream, case)


@pytest.mark.parametrize("name", WHOLE)
def test_a_refusal_about_the_request_is_relayed(gateway: Gateway, upstream: Upstream, name: str) -> None:
    case = CASES[name]
    refusal = {"error": {"message": "no such voice", "type": "invalid_request_error", "param": "voice", "code": None}}
    upstream.script(f"{case.model}-up", replies.status(400, refusal))
    answer = send(gateway, case.ask, f"try-{case.model}")
    assert (answer.status_code, answer.json()) == (400, refusal)
    assert row_of(gateway, answer.headers["x-request-id"])["cost_nano"] == 0


@pytest.mark.parametrize("name", WHOLE)
def test_a_key_and_what_it_may_use(gateway: Gateway, upstream: Upstream, name: str) -> None:
    case = CASES[name]
    assert send(gateway, case.ask, f"try-{case.model}", key="nobody").status_code == 401
    refused = send(gateway, case.ask, "images", key="narrow")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
    assert upstream.calls == []


@pytest.mark.parametrize(
    ("name", "key", "model", "error"),
    [
        ("ranking by tokens", "poor", "units", (429, "insufficient_quota")),  # a unit is 0.002
        ("pictures by the piece", "poor", "images", (429, "insufficient_quota")),
        ("speech by letters", "poor", "letters", (429, "insufficient_quota")),
        ("pictures by the piece", "some", "unpriced", (400, "unpriced_model")),
        ("pictures by the piece", "some", "letters", (400, "unpriced_model")),  # it has a price, but none for pictures
        ("speech by letters", "some", "images", (400, "unpriced_model")),
        ("ranking by tokens", "some", "images", (400, "unpriced_model")),
        ("a picture by tokens", "some", "tokens", (429, "insufficient_quota")),  # of how many tokens?
        ("speech by seconds", "some", "seconds", (429, "insufficient_quota")),  # of how many seconds?
    ],
)
def test_a_budget_refuses_what_it_cannot_bound(
    gateway: Gateway, upstream: Upstream, name: str, key: str, model: str, error: tuple[int, str]
) -> None:
    answer = send(gateway, CASES[name].ask, model, key=key)
    assert (answer.status_code, answer.json()["error"]["code"]) == error, answer.text
    assert upstream.calls == []


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("moderation", 0),
        ("ranking by units", 2_000_000),
        ("pictures by the piece", 80_000_000),
        ("speech by letters", 27 * 15_000),
    ],
)
def test_a_budget_holds_the_most_it_may_cost_and_settles_what_it_did(
    gateway: Gateway, upstream: Upstream, name: str, held: int
) -> None:
    case = CASES[name]
    upstream.always(f"{case.model}-up", case.reply)
    ask = case.ask._replace(fields={**case.ask.fields, "n": 2}) if case.model == "images" else case.ask
    answer = send(gateway, ask, case.model, key="some")
    assert answer.status_code == 200
    row = row_of(gateway, answer.headers["x-request-id"])
    attempt = gateway.rows("SELECT * FROM attempts WHERE request_id = ?", row["id"])[0]
    assert (attempt["reserved_nano"], attempt["cost_nano"]) == (held, case.cost)


def test_a_price_for_something_else_is_none(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("letters-up", doc.answer(doc.PICTURES))
    answer = send(gateway, doc.DRAW, "letters")
    row = row_of(gateway, answer.headers["x-request-id"])
    assert (row["outcome"], row["cost_nano"], row["unpriced"]) == ("ok", 0, 1)


def test_of_sound_only_the_prompt_is_kept(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("letters-up", doc.spoken())
    answer = send(gateway, doc.SPEAK, "kept")
    row = row_of(gateway, answer.headers["x-request-id"])
    kept = until("the content", lambda: gateway.rows("SELECT * FROM content WHERE request_id = ?", row["id"]))[0]
    assert doc.SPEAK.fields["input"] in kept["prompt"]
    assert not kept["answer"]


def test_moderations_need_no_model(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("free-up", doc.answer(doc.MODERATION))
    bearer = {"authorization": "Bearer rich-0123456789abcdef", "x-request-id": "no-model"}
    answer = gateway.client.post("/v1/moderations", json=doc.MODERATE.fields, headers=bearer)
    assert answer.json() == doc.MODERATION
    assert upstream.requests[-1].json == {**doc.MODERATE.fields, "model": "free-up"}
    assert row_of(gateway, "no-model")["requested_model"] == "omni-moderation-latest"


class TestSpeech:
    def test_sound_passes_unchanged_and_as_it_comes(self, gateway: Gateway, upstream: Upstream) -> None:
        gate = Gate()

        def slowly(_: Received) -> Iterator[Step]:
            yield stream_head({"content-type": "audio/mpeg"}) + chunked(doc.SOUND[:100])
            yield gate
            yield chunked(doc.SOUND[100:]) + END

        upstream.script("letters-up", slowly)
        body = {"model": "try-letters", **doc.SPEAK.fields}
        bearer = {"authorization": "Bearer rich-0123456789abcdef"}
        with gateway.client.stream("POST", "/v1/audio/speech", json=body, headers=bearer) as answer:
            assert answer.headers["content-type"] == "audio/mpeg"
            assert answer.headers["x-gateway-cost-usd"] == "0.000405"
            pieces = answer.iter_raw()
            first = next(pieces)
            assert doc.SOUND.startswith(first), "the first bytes are here while the rest is not made yet"
            gate.open()
            assert first + b"".join(pieces) == doc.SOUND

    def test_an_empty_answer_is_none(self, gateway: Gateway, upstream: Upstream) -> None:
        upstream.script("letters-up", doc.spoken(b""))
        upstream.script("other-up", doc.spoken())
        answer = send(gateway, doc.SPEAK, "try-letters")
        assert (answer.headers["x-gateway-fallback-reason"], answer.content) == ("empty", doc.SOUND)

    def test_an_error_that_calls_itself_sound(self, gateway: Gateway, upstream: Upstream) -> None:
        upstream.script("letters-up", doc.answer(replies.ERROR, "audio/mpeg"))
        upstream.script("other-up", doc.spoken())
        answer = send(gateway, doc.SPEAK, "try-letters")
        assert (answer.headers["x-gateway-fallback-reason"], answer.content) == ("malformed", doc.SOUND)
        recover(gateway, upstream, CASES["speech by letters"])

    @pytest.mark.parametrize("end", [CUT, CLOSE])
    def test_what_breaks_off_is_seen_to_break_off(self, gateway: Gateway, upstream: Upstream, end: Step) -> None:
        upstream.script("letters-up", doc.spoken(ending=(0.05, end)))
        with pytest.raises(httpx.RemoteProtocolError):
            send(gateway, doc.SPEAK, "try-letters", **{"x-request-id": f"broken-{end!r}"})
        row = row_of(gateway, f"broken-{end!r}")
        assert (row["outcome"], row["cost_nano"]) == ("upstream_error", 27 * 15_000), "it read, and spoke, all of it"
        recover(gateway, upstream, CASES["speech by letters"])

    def test_events_that_break_off_end_in_an_error(self, gateway: Gateway, upstream: Upstream) -> None:
        upstream.script("tokens-up", doc.events(doc.SPEAKING[0]))
        answer = send(gateway, SPEAK_IN_EVENTS, "try-tokens")
        last = json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))
        assert last["error"]["type"] == "upstream_error"

    def test_a_slow_reader_holds_the_upstream_back(self, gateway: Gateway, upstream: Upstream) -> None:
        sent: list[int] = []

        def plenty(_: Received) -> Iterator[Step]:
            yield stream_head({"content-type": "audio/pcm"})
            for index in range(400):
                sent.append(index)
                yield chunked(bytes(100_000))
            yield END

        upstream.script("letters-up", plenty)
        body = {"model": "try-letters", **doc.SPEAK.fields}
        bearer = {"authorization": "Bearer rich-0123456789abcdef"}
        with gateway.client.stream("POST", "/v1/audio/speech", json=body, headers=bearer) as answer:
            pieces = answer.iter_raw()
            size = len(next(pieces))
            until("the upstream to be held back", lambda: _settled(sent))
            assert len(sent) < 300, "40 MB would not fit into anybody's buffers"
            assert size + sum(map(len, pieces)) == 400 * 100_000


def _settled(sent: list[int]) -> bool:
    """Whether nothing went out in the last three tenths of a second."""
    before = len(sent)
    time.sleep(0.3)
    return 0 < before == len(sent)
