"""What our OpenAPI descriptions say, asked of a real gateway by schemathesis: valid and invalid bodies, headers, types.

The upstream always answers well, so whatever goes wrong is the gateway's: a 5xx, a status or an error that is not as
described, a valid request that is refused, an invalid one that is not.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.dialects import BY_NAME
from tests import documented as doc
from tests.e2e.test_native_apis import answers
from tests.odd_bodies import CONTENT, ODD
from tests.replies import DONE, END, event, http, stream_head
from tests.servers import Gateway
from tests.upstream import Received, Step, Upstream

KEY = "sk-openapi-0123456789"
TOKEN = "admin-0123456789abcdef"
DIALECTS = "".join(f'  {name}: {{base_url: "@BASE@", server: {name}}}\n' for name in BY_NAME)
MODELS = "".join(f"  {name}: {{provider: {name}, price: {{input: 1, output: 2}}}}\n" for name in BY_NAME)
ROUTES = f"""
version: 1
providers:
  native: {{base_url: "@BASE@", apis: [chat, messages, count_tokens, responses]}}
  plain: {{base_url: "@BASE@"}}
{DIALECTS}
models:
  native: {{provider: native, model: native-up, price: unmetered}}
  plain: {{provider: plain, model: plain-up, price: unmetered}}
{MODELS}
tasks:
  tools: {{when: [{{has: tools}}]}}
  words: {{when: [{{last_message: "(?i)traceback"}}, {{system_prompt: "helpdesk"}}]}}
routes:
  - {{name: auto, match: {{model: auto}}, use: [native], fallback: [plain]}}
  - {{name: kept, match: {{model: kept}}, use: [plain], cache: {{ttl: 10m}}, capture: {{keep: 1d}}, sticky: session}}
budgets:
  - {{name: b, limit_usd: 1000000, window: total}}
keys:
  - {{name: k, value: "{KEY}"}}
"""


def _choices(received: Received) -> int:
    asked = received.json
    prompts = asked.get("prompt")
    items = len(prompts) if isinstance(prompts, list) and not any(isinstance(each, int) for each in prompts) else 1
    return int(asked.get("n") or 1) * max(1, items)


def generation(received: Received) -> Iterator[Step]:
    """A chat or a completion, with as many choices as were asked for."""
    chat = received.path.endswith("/chat/completions")
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    what = {"content": "Hi.", "role": "assistant"}
    said: Any = {"delta" if received.stream else "message": what} if chat else {"text": "Hi."}
    choices = [{"index": index, **said, "finish_reason": "stop"} for index in range(_choices(received))]
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}
    if not received.stream:
        yield http(200, json.dumps(body).encode())
        return
    yield stream_head() + event(body) + DONE + END


def answer(received: Received) -> Iterator[Step]:
    """As the documentation has it, at every endpoint."""
    path = received.path.removeprefix("/v1")
    stream = received.stream or received.form.get("stream") == [b"true"]
    match path:
        case "/chat/completions" | "/completions":
            yield from generation(received)
        case "/messages" | "/responses":
            yield from answers()(received)
        case "/messages/count_tokens":
            yield http(200, b'{"input_tokens": 7}')
        case "/embeddings":
            yield http(200, b'{"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "usage": {}}')
        case "/moderations":
            yield from doc.answer(doc.MODERATION)(received)
        case "/rerank":
            yield from doc.answer(doc.JINA)(received)
        case "/images/generations" | "/images/edits":
            yield from (doc.events(*doc.DRAWING) if stream else doc.answer(doc.IMAGE))(received)
        case "/audio/speech":
            events = received.json.get("stream_format") == "sse"
            yield from (doc.events(*doc.SPEAKING) if events else doc.spoken())(received)
        case "/audio/transcriptions" | "/audio/translations":
            yield from (doc.events(*doc.HEARING) if stream else doc.answer(doc.WHISPER))(received)
        case _:
            yield http(404, b"{}")


CHAT = "/v1/chat/completions"
FORM = "multipart/form-data"
IN_WORDS = "x-gateway-timeout"  # that it is above zero, and enough for an upstream, no schema says


def narrowed(document: dict[str, Any]) -> dict[str, Any]:
    """What holds for this gateway and its upstream alone: names of models, time enough, no refusals.

    Headers and `metadata` are described alike at every endpoint, and tried at one.
    """
    schemas = document["components"]["schemas"]
    schemas["Model"] = {"enum": ["native", "auto"]}
    schemas["Relayed"] = {"not": {}}
    for path, call in calls(document):
        keep = [each for each in call.get("parameters", ()) if path == CHAT or "$ref" not in each]
        call["parameters"] = [each for each in keep if IN_WORDS not in str(each)]
        if path != CHAT and call.get("requestBody"):
            call["requestBody"]["content"]["application/json"]["schema"]["properties"].pop("metadata")
    return document


def calls(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for call in methods.values():
            yield path, call


def only(kind: str, document: dict[str, Any]) -> dict[str, Any]:
    """Bodies of one content type, and the calls that have them; JSON also where there is no body."""
    document = narrowed(document)
    kept = {path for path, call in calls(document) if kind in call.get("requestBody", {}).get("content", {kind: 0})}
    document["paths"] = {path: methods for path, methods in document["paths"].items() if path in kept}
    for _, call in calls(document):
        if "requestBody" in call:
            content = call["requestBody"]["content"]
            call["requestBody"]["content"] = {kind: content[kind]}
    return document


def odd(document: dict[str, Any]) -> dict[str, Any]:
    """Bodies that look like what clients send and are not, for models of every dialect."""
    document = only("application/json", document)
    document["components"]["schemas"]["Model"] = {"enum": ["plain", "kept", *BY_NAME]}
    for _, call in calls(document):
        call["parameters"] = [each for each in call["parameters"] if "$ref" not in each]
        if "requestBody" in call:
            shape = call["requestBody"]["content"]["application/json"]["schema"]
            members = shape["properties"]
            members |= {name: odd for name, odd in ODD.items() if name in CONTENT or name not in members}
            shape["additionalProperties"] = False
    return document


def admin(document: dict[str, Any]) -> dict[str, Any]:
    """What the description says in words: which zones and dates there are."""
    schemas = document["components"]["schemas"]
    schemas["Spending"]["properties"]["timezone"] = {"enum": ["UTC", "Europe/Berlin"]}
    schemas["NewKey"]["properties"]["expires"] = {"enum": [None, "2090-01-01", "2090-01-01T00:00:00Z"]}
    return document


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Upstream(answer) as upstream:
        routes = ROUTES.replace("@BASE@", upstream.base_url)
        with Gateway(tmp_path_factory.mktemp("openapi"), routes, env={"GATEWAY_ADMIN_TOKEN": TOKEN}) as started:
            yield started


@pytest.fixture(scope="module")
def public(gateway: Gateway) -> str:
    return gateway.ops.get("/openapi.json").raise_for_status().text


@pytest.fixture(scope="module")
def operators(gateway: Gateway) -> str:
    answered = gateway.ops.get("/admin/openapi.json", headers={"authorization": f"Bearer {TOKEN}"})
    return answered.raise_for_status().text


def ask(gateway: Gateway, document: dict[str, Any], *args: str, url: str = "", key: str = KEY) -> None:
    """Runs schemathesis. Fails with its report, or where anything broke inside the gateway."""
    described = gateway.directory / "described.json"
    described.write_text(json.dumps(document))
    command = [str(Path(sys.executable).parent / "st"), "run", str(described), "--url", url or gateway.url]
    command += ["--header", f"Authorization: Bearer {key}", "--generation-deterministic", "--no-color", *args]
    env = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    ended = subprocess.run(
        command, env=env, cwd=gateway.directory, capture_output=True, text=True, timeout=540, check=False
    )
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
    made = re.search(r"(\d+) generated, (\d+) passed", ended.stdout)
    assert made is not None, ended.stdout[-2000:]
    assert int(made[1]) >= 3 * len(document["paths"])
    assert "a defect" not in gateway.log


COVERAGE = ("--phases", "examples,coverage", "--continue-on-failure")
FUZZING = ("--phases", "fuzzing", "--continue-on-failure", "--suppress-health-check", "all")
NOT_JUDGED = ("--exclude-checks", "positive_data_acceptance,negative_data_rejection")


def test_every_endpoint_does_what_is_described(gateway: Gateway, public: str) -> None:
    """Bounds, missing and wrong members, other types, methods and keys, one at a time and in pairs; JSON and forms."""
    ask(gateway, narrowed(json.loads(public)), *COVERAGE)


def test_the_admin_api_does_what_is_described(gateway: Gateway, operators: str) -> None:
    """A key's budget and limits are left to the longer run."""
    document = admin(json.loads(operators))
    for name in ("budget", "limits"):
        del document["components"]["schemas"]["NewKey"]["properties"][name]
    ask(gateway, document, *COVERAGE, url=f"{gateway.ops_url}/admin", key=TOKEN)


@pytest.mark.full
def test_odd_bodies_break_nothing(gateway: Gateway, public: str) -> None:
    ask(gateway, odd(json.loads(public)), *FUZZING, *NOT_JUDGED, "--mode", "positive", "--max-examples", "200")


@pytest.mark.full
def test_many_bodies_do_what_is_described(gateway: Gateway, public: str) -> None:
    ask(gateway, only("application/json", json.loads(public)), *FUZZING, "--max-examples", "100")


@pytest.mark.full
def test_many_forms_break_nothing(gateway: Gateway, public: str) -> None:
    """Which of them are refused is not judged: what a part holds is text or bytes, so no type of it can be wrong."""
    ask(gateway, only(FORM, json.loads(public)), *FUZZING, *NOT_JUDGED, "--max-examples", "100")


@pytest.mark.full
def test_many_admin_requests_do_what_is_described(gateway: Gateway, operators: str) -> None:
    document, url = admin(json.loads(operators)), f"{gateway.ops_url}/admin"
    ask(gateway, document, *COVERAGE, url=url, key=TOKEN)
    ask(gateway, document, *FUZZING, "--max-examples", "60", url=url, key=TOKEN)
