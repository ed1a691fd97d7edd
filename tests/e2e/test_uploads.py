"""Transcripts, translations and edits of pictures: forms with files, kept on disk, sent again where they must be."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests import documented as doc
from tests import replies
from tests.documented import Ask
from tests.replies import http
from tests.servers import Gateway, until
from tests.upstream import CUT, Gate, Received, Reply, Step, Upstream

ROUTES = """
version: 1
providers:
  up: {base_url: "@BASE@"}
models:
  tokens:
    provider: up
    model: tokens-up
    context_window: 16000
    max_output_tokens: 2000
    price: {input: 2, audio_input: 5, image_input: 10, output: 10, image_output: 40}
  seconds: {provider: up, model: seconds-up, price: {per_second: 0.0001}}
  bounded: {provider: up, model: bounded-up, price: {per_second: 0.0001}, max_extra_usd: 0.01}
  images: {provider: up, model: images-up, price: {per_image: 0.04}}
  changed: {provider: up, model: changed-up, price: unmetered, set: {language: en, temperature: 0.5}, drop: [prompt]}
  other: {provider: up, model: other-up, price: unmetered}
routes:
  - {name: tokens, match: {model: "try-tokens"}, use: [tokens], fallback: [other], retries: 0}
  - {name: seconds, match: {model: "try-seconds"}, use: [seconds], fallback: [other], retries: 1}
  - {name: images, match: {model: "try-images"}, use: [images], fallback: [other], retries: 0}
keys:
  - {name: rich, value: rich-0123456789abcdef}
  - {name: some, value: some-0123456789abcdef, budget: {limit_usd: 1, window: total}}
  - {name: narrow, value: narrow-0123456789abcdef, allow: ["tokens"]}
"""
MEGA = 1024 * 1024
FILE = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nsound\r\n'
MODEL = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nother\r\n'
END = b"--B--\r\n"
ENCODED = FILE.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n")


class Case(NamedTuple):
    ask: Ask
    model: str
    reply: Reply
    cost: int  # nano-USD
    tokens: tuple[int, int]
    more: Mapping[str, Any]
    estimated: bool = False


def hearing(**fields: object) -> Ask:
    return doc.HEAR._replace(fields={**doc.HEAR.fields, **fields})


HEARD = 4 * 2000 + 10 * 5000 + 45 * 10_000
OF_SOUND = {"audio_input": 10}
EDITED = 10 * 2000 + 40 * 10_000 + 4160 * 40_000
CASES = {
    "by tokens": Case(doc.HEAR, "tokens", doc.answer(doc.TRANSCRIBE), HEARD, (14, 45), OF_SOUND),
    "in events": Case(hearing(stream="true"), "tokens", doc.events(*doc.HEARING), HEARD, (14, 45), OF_SOUND),
    "by reported seconds": Case(doc.HEAR, "seconds", doc.answer(doc.WHISPER), 900_000, (0, 0), {"milliseconds": 9000}),
    "by the duration of a verbose answer": Case(
        *(hearing(response_format="verbose_json"), "seconds", doc.answer(doc.VERBOSE), 847_000, (0, 0)),
        more={"milliseconds": 8470},
    ),
    "by the last subtitle": Case(
        *(hearing(response_format="srt"), "seconds", doc.answer(doc.SUBTITLES.encode(), "text/plain"), 825_000),
        tokens=(0, 0),
        more={"milliseconds": 8250},
    ),
    "by the length of a text": Case(
        *(hearing(response_format="text"), "seconds", doc.answer(b"Imagine the wildest ideas now.\n", "text/plain")),
        cost=206_600,
        tokens=(0, 0),
        more={"milliseconds": 2066},
        estimated=True,
    ),
    "a translation": Case(doc.TRANSLATE, "seconds", doc.answer(doc.WHISPER), 900_000, (0, 0), {"milliseconds": 9000}),
    "an edit by tokens": Case(
        *(doc.EDIT, "tokens", doc.answer(doc.IMAGE), EDITED, (50, 4160)),
        more={"image_input": 40, "image_output": 4160},
    ),
    "an edit by the piece": Case(doc.EDIT, "images", doc.answer(doc.PICTURES), 80_000_000, (0, 0), {"images": 2}),
}
SILENCE = doc.answer({"text": "", "usage": {"type": "duration", "seconds": 3}})


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
    folder = tmp_path_factory.mktemp("uploads")
    (folder / "files").mkdir()
    routes = ROUTES.replace("@BASE@", server.base_url)
    with Gateway(folder, routes, args=["--max-upload", "70m"], env={"TMPDIR": str(folder / "files")}) as running:
        yield running


def send(gateway: Gateway, ask: Ask, model: str, key: str = "rich", **headers: str) -> httpx.Response:
    given = {"authorization": f"Bearer {key}-0123456789abcdef", "x-request-id": secrets.token_hex(8), **headers}
    return gateway.client.post(f"/v1{ask.path}", data={"model": model, **ask.fields}, files=ask.files, headers=given)


def row_of(gateway: Gateway, request_id: str) -> dict[str, Any]:
    query = "SELECT * FROM requests WHERE client_request_id = ?"
    return until("the row", lambda: gateway.rows(query, request_id))[0]


def recover(gateway: Gateway, upstream: Upstream, case: Case) -> None:
    """A good answer of both models, so that no breaker opens."""
    for model in (case.model, "other"):
        upstream.script(f"{model}-up", case.reply)
        assert send(gateway, case.ask, model).status_code == 200


def expected(ask: Ask, model: str) -> dict[str, list[bytes]]:
    """What the upstream should have got."""
    found = {"model": [model.encode()]} | {name: [str(value).encode()] for name, value in ask.fields.items()}
    for name, (_, content, _) in ask.files:
        found.setdefault(name, []).append(content)
    return found


def cases() -> Iterator[Any]:
    """Each, with what the compatibility page may say of it."""
    for name, case in CASES.items():
        how = "streamed" if name == "in events" else "whole"
        yield pytest.param(name, marks=pytest.mark.compatible(endpoint=case.ask.path, system="openai", how=how))


@pytest.mark.parametrize("name", [*cases()])
def test_a_form_is_passed_charged_and_counted(gateway: Gateway, upstream: Upstream, name: str) -> None:
    case = CASES[name]
    upstream.script(f"{case.model}-up", case.reply)
    labels = {"route": case.model, "model": case.model}
    before = gateway.metric("gateway_requests_total", **labels), gateway.metric("gateway_cost_usd_total", **labels)
    answer = send(gateway, case.ask, f"try-{case.model}")
    assert answer.status_code == 200, answer.text
    sent = upstream.requests[-1]
    assert sent.path == f"/v1{case.ask.path}"
    assert sent.form == expected(case.ask, f"{case.model}-up")
    row = row_of(gateway, answer.headers["x-request-id"])
    assert (row["endpoint"], row["outcome"], row["cost_nano"]) == (case.ask.path, "ok", case.cost)
    assert (row["input_tokens"], row["output_tokens"], bool(row["usage_estimated"])) == (*case.tokens, case.estimated)
    assert json.loads(row["usage_more"] or "{}") == case.more
    assert row["body_bytes"] == int(answer.request.headers["content-length"])
    until("it in the metrics", lambda: gateway.metric("gateway_requests_total", **labels) == before[0] + 1)
    assert gateway.metric("gateway_cost_usd_total", **labels) - before[1] == pytest.approx(case.cost / 1e9)


@pytest.mark.parametrize("name", ["by tokens", "in events", "a translation", "an edit by tokens"])
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
def test_a_form_is_sent_again_to_the_fallback(
    gateway: Gateway, upstream: Upstream, name: str, reply: Reply, reason: str
) -> None:
    case = CASES[name]
    upstream.script(f"{case.model}-up", *[reply] * 2)
    upstream.script("other-up", case.reply)
    answer = send(gateway, case.ask, f"try-{case.model}")
    assert (answer.status_code, answer.headers["x-gateway-model"]) == (200, "other")
    assert answer.headers["x-gateway-fallback-reason"] == reason
    assert upstream.requests[-1].form == expected(case.ask, "other-up")
    upstream.forget()
    recover(gateway, upstream, case)


@pytest.mark.parametrize("reply", [replies.html_in_200(), replies.error_in_200(), doc.answer(b"", "text/plain")])
def test_a_transcript_that_is_no_json_may_not_be_anything(gateway: Gateway, upstream: Upstream, reply: Reply) -> None:
    case = CASES["by the length of a text"]
    upstream.script("tokens-up", reply)
    upstream.script("other-up", case.reply)
    assert send(gateway, case.ask, "try-tokens").headers["x-gateway-model"] == "other"
    recover(gateway, upstream, case._replace(model="tokens"))


def test_a_whole_answer_where_a_stream_was_asked_for(gateway: Gateway, upstream: Upstream) -> None:
    """As whisper-1 answers, by OpenAI's own word: it has been paid for, and is what the client gets."""
    upstream.script("seconds-up", doc.answer(doc.WHISPER))
    answer = send(gateway, hearing(stream="true"), "seconds")
    assert (answer.status_code, answer.json()["text"]) == (200, doc.WHISPER["text"])
    assert answer.headers["x-gateway-attempts"] == "1"
    assert row_of(gateway, answer.headers["x-request-id"])["cost_nano"] == 900_000


def test_of_silence_the_transcript_is_empty(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("seconds-up", SILENCE)
    assert send(gateway, doc.HEAR, "try-seconds").json()["text"] == ""


def test_events_that_break_off_end_in_an_error(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("tokens-up", doc.events(*doc.HEARING[:2]))
    answer = send(gateway, hearing(stream="true"), "try-tokens")
    last = json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))
    assert last["error"]["type"] == "upstream_error"


def test_set_and_drop_are_about_parts_too(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("changed-up", doc.answer(doc.WHISPER))
    assert send(gateway, hearing(language="de", prompt="no"), "changed").status_code == 200
    sent = expected(doc.HEAR, "changed-up") | {"language": [b"en"], "temperature": [b"0.5"]}
    del sent["prompt"]
    assert upstream.requests[-1].form == sent


def test_a_refusal_is_relayed_and_others_may_not_use_it(gateway: Gateway, upstream: Upstream) -> None:
    refusal = {"error": {"message": "no such format", "type": "invalid_request_error", "param": "file", "code": None}}
    upstream.script("seconds-up", replies.status(400, refusal))
    assert send(gateway, doc.HEAR, "try-seconds").json() == refusal
    refused = send(gateway, doc.HEAR, "seconds", key="narrow")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
    assert send(gateway, doc.HEAR, "seconds", key="nobody").status_code == 401
    assert len(upstream.calls) == 1


class TestBudgets:
    @pytest.mark.parametrize(
        ("ask", "model", "error"),
        [
            (doc.HEAR, "seconds", (429, "insufficient_quota")),  # of how many?
            (doc.HEAR, "images", (400, "unpriced_model")),
            (doc.EDIT, "seconds", (400, "unpriced_model")),
        ],
    )
    def test_what_has_no_bound_is_refused(
        self, gateway: Gateway, upstream: Upstream, ask: Ask, model: str, error: tuple[int, str]
    ) -> None:
        answer = send(gateway, ask, model, key="some")
        assert (answer.status_code, answer.json()["error"]["code"]) == error, answer.text
        assert upstream.calls == []

    @pytest.mark.parametrize(
        ("ask", "model", "reply", "held"),
        [
            (doc.HEAR, "bounded", doc.answer(doc.WHISPER), 10_000_000),
            (doc.HEAR, "tokens", doc.answer(doc.TRANSCRIBE), 16_000 * 5000 + 2000 * 40_000),
            (doc.EDIT._replace(fields={**doc.EDIT.fields, "n": "2"}), "images", doc.answer(doc.PICTURES), 80_000_000),
        ],
    )
    def test_what_has_one_is_held(
        self, gateway: Gateway, upstream: Upstream, ask: Ask, model: str, reply: Reply, held: int
    ) -> None:
        upstream.script(f"{model}-up", reply)
        answer = send(gateway, ask, model, key="some")
        assert answer.status_code == 200, answer.text
        row = row_of(gateway, answer.headers["x-request-id"])
        attempt = gateway.rows("SELECT * FROM attempts WHERE request_id = ?", row["id"])[0]
        assert attempt["reserved_nano"] >= held
        assert attempt["reserved_nano"] <= held * 2, "the highest rates of any kind, and no more"


class TestForms:
    def post(self, gateway: Gateway, body: bytes, content_type: str = "multipart/form-data; boundary=B") -> Any:
        bearer = {"authorization": "Bearer rich-0123456789abcdef", "content-type": content_type}
        return gateway.client.post("/v1/audio/transcriptions", content=body, headers=bearer)

    def test_the_model_may_come_last(self, gateway: Gateway, upstream: Upstream) -> None:
        upstream.script("other-up", doc.answer(doc.WHISPER))
        assert self.post(gateway, FILE + MODEL + END).status_code == 200
        assert upstream.requests[-1].form == {"file": [b"sound"], "model": [b"other-up"]}

    @pytest.mark.parametrize(
        ("body", "status", "said"),
        [
            (FILE + END, 400, "model must be"),
            (MODEL + END, 400, "file is missing"),
            (FILE + MODEL + MODEL + END, 400, "stands twice"),
            (FILE + MODEL, 400, "ended before"),
            (b"nonsense", 400, "cannot be read"),
            (FILE + MODEL.replace(b'name="model"', b'name="m\xc3\xb6del"') + END, 400, "has no name"),
            (FILE + MODEL + MODEL.replace(b"other", b"\xff").replace(b"model", b"prompt") + END, 400, "UTF-8"),
            (ENCODED + MODEL + END, 400, "encoding"),
            (FILE + b"".join(MODEL.replace(b"model", b"x%d" % i) for i in range(64)) + END, 413, "64 parts"),
            (FILE + MODEL.replace(b"other", bytes(300_000)) + END, 413, "longer than"),
            (FILE.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * 5000 + b"\r\n\r\n") + MODEL + END, 400, "cannot be read"),
        ],
    )
    def test_what_nobody_should_send(
        self, gateway: Gateway, upstream: Upstream, body: bytes, status: int, said: str
    ) -> None:
        answer = self.post(gateway, body)
        assert (answer.status_code, said in answer.json()["error"]["message"]) == (status, True), answer.text
        assert upstream.calls == []

    def test_a_boundary_hidden_in_a_file_stays_in_it(self, gateway: Gateway, upstream: Upstream) -> None:
        """Servers that take a bare line feed for a line's end would find a part in it, and another model."""
        upstream.script("other-up", doc.answer(doc.WHISPER))
        hidden = b'\n--B\nContent-Disposition: form-data; name="model"\n\ndear\n--B--\n'
        body = FILE.replace(b"sound", b"sound" + hidden) + MODEL + END
        assert self.post(gateway, body).status_code == 200
        sent = upstream.requests[-1]
        assert sent.form["file"] == [b"sound" + hidden]
        assert b"boundary=B" not in sent.head, "a boundary that nobody could guess"

    def test_json_without_files_is_json(self, gateway: Gateway, upstream: Upstream) -> None:
        body = {"model": "images", "prompt": "A hat", "images": [{"image_url": "data:image/png;base64,AAAA"}]}
        upstream.script("images-up", doc.answer(doc.PICTURES))
        bearer = {"authorization": "Bearer rich-0123456789abcdef"}
        assert gateway.client.post("/v1/images/edits", json=body, headers=bearer).status_code == 200
        assert upstream.requests[-1].json == {**body, "model": "images-up"}


class TestLargeUploads:
    def test_memory_stays_flat_and_nothing_is_left(self, gateway: Gateway, upstream: Upstream) -> None:
        upstream.script("seconds-up", doc.answer(doc.WHISPER))
        assert send(gateway, doc.HEAR, "try-seconds").status_code == 200  # warm
        gate = Gate()

        def waits(_: Received) -> Iterator[Step]:
            yield gate
            yield http(200, json.dumps(doc.WHISPER).encode())

        content = secrets.token_bytes(MEGA) * 60
        ask = doc.HEAR._replace(files=(("file", ("long.wav", content, "audio/wav")),))
        upstream.script("seconds-up", replies.status(503), waits)  # once more, from the disk
        before = peak(gateway)
        gate.open()
        answer = send(gateway, ask, "try-seconds")
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-gateway-attempts"] == "2"
        assert [request.form["file"] == [content] for request in upstream.requests[-2:]] == [True, True]
        assert peak(gateway) - before < 10 * MEGA
        assert list((gateway.directory / "files").iterdir()) == []
        assert open_files(gateway) == [], "the file is gone with its descriptor"

    def test_beyond_the_limit(self, gateway: Gateway, upstream: Upstream) -> None:
        ask = doc.HEAR._replace(files=(("file", ("long.wav", bytes(71 * MEGA), "audio/wav")),))
        answer = send(gateway, ask, "try-seconds")
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
        assert upstream.calls == []

    def test_a_client_that_leaves_in_the_middle(self, gateway: Gateway, upstream: Upstream) -> None:
        head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer rich-0123456789abcdef\r\n"
        head += b"content-type: multipart/form-data; boundary=B\r\ncontent-length: 3000000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.sendall(head + FILE.replace(b"sound\r\n", bytes(2 * MEGA)))
            until("the file", lambda: open_files(gateway))
        until("the file to be gone", lambda: not open_files(gateway))
        assert upstream.calls == []

    def test_an_upstream_that_resets_while_it_is_sent(self, gateway: Gateway, upstream: Upstream) -> None:
        upstream.script("tokens-up", lambda _: [CUT])
        upstream.script("other-up", doc.answer(doc.WHISPER))
        ask = doc.HEAR._replace(files=(("file", ("long.wav", bytes(5 * MEGA), "audio/wav")),))
        answer = send(gateway, ask, "try-tokens")
        assert (answer.status_code, answer.headers["x-gateway-model"]) == (200, "other")


def peak(gateway: Gateway) -> int:
    """Bytes of memory that the process has had at most."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def open_files(gateway: Gateway) -> list[str]:
    """Files in the folder for temporary ones that the process has open, with or without a name."""
    folder = str(gateway.directory / "files")
    found = []
    for descriptor in Path(f"/proc/{gateway.pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith(folder):
            found.append(target)
    return found
