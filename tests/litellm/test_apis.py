"""Other APIs than OpenAI's, through a real gateway and a real litellm process, as documented (`apis.py`)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests import replies
from tests.answers import read, told
from tests.litellm import apis
from tests.litellm.conftest import KEY
from tests.servers import Gateway, until
from tests.upstream import Gate, Received, Reply, Upstream

TEXT = {"type": "text", "text": "Hello from Claude."}
THINKING = {"type": "thinking", "thinking": "Let me see.", "signature": "c2lnbmVk"}
TOOL = {"type": "tool_use", "id": "toolu_01", "name": "weather", "input": apis.TOOL_INPUT}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
ASK: dict[str, Any] = {"stream_options": {"include_usage": True}}


def events(text: str) -> list[dict[str, Any]]:
    *lines, last = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert last == "[DONE]"
    return [json.loads(line) for line in lines]


def said(streamed: list[dict[str, Any]], member: str = "content") -> str:
    deltas = [choice["delta"] for each in streamed for choice in each["choices"]]
    return "".join(delta.get(member) or "" for delta in deltas)


def finish(streamed: list[dict[str, Any]]) -> list[str]:
    return [c["finish_reason"] for each in streamed for c in each["choices"] if c.get("finish_reason")]


@pytest.fixture
def speak(upstream: Upstream) -> Any:
    def set_to(reply: Reply) -> None:
        upstream.default = reply

    yield set_to
    upstream.default = replies.ok("From plain.")


@pytest.mark.compatible(endpoint="/chat/completions", system="anthropic-litellm", how="whole")
def test_claude_whole(gateway: Gateway, upstream: Upstream, speak: Any) -> None:
    speak(apis.anthropic(THINKING, TEXT))
    answer = gateway.chat("claude", temperature=0.5, max_tokens=100)
    message = answer.json()["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hello from Claude.", "Let me see.")
    sent = upstream.calls[-1]
    assert (sent.path, sent.header("x-api-key"), sent.header("x-account")) == ("/anthropic/v1/messages", KEY, "acme")
    assert (sent.json["temperature"], sent.json["max_tokens"]) == (0.5, 100)
    usage = answer.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (100, 12)
    assert usage["cost"] == pytest.approx((20 * 3 + 50 * 0.3 + 30 * 3.75 + 12 * 15) / 1e6)
    assert answer.headers["x-gateway-upstream-request-id"] == "req_anthropic"
    assert "x-gateway-dropped" not in answer.headers


@pytest.mark.compatible(endpoint="/chat/completions", system="anthropic-litellm", how="streamed")
def test_claude_streamed(gateway: Gateway, speak: Any) -> None:
    speak(apis.anthropic(THINKING, TEXT))
    streamed = events(gateway.chat("claude", stream=True, **ASK).text)
    assert (said(streamed), said(streamed, "reasoning_content")) == ("Hello from Claude.", "Let me see.")
    assert finish(streamed) == ["stop"]
    last = streamed[-1]
    assert last["choices"] == []
    assert last["usage"]["cost"] == pytest.approx((20 * 3 + 50 * 0.3 + 30 * 3.75 + 12 * 15) / 1e6)
    unasked = events(gateway.chat("claude", stream=True).text)
    assert not any(each.get("usage") for each in unasked)


@pytest.mark.compatible(endpoint="/chat/completions", system="anthropic-litellm", how="tools")
@pytest.mark.parametrize("stream", [False, True])
def test_claude_calls_a_tool(gateway: Gateway, upstream: Upstream, speak: Any, stream: bool) -> None:
    speak(apis.anthropic({"type": "text", "text": "I look."}, TOOL, stop="tool_use"))
    answer = gateway.chat("claude", stream=stream, tools=TOOLS)
    if stream:
        streamed = events(answer.text)
        pieces = [call for each in streamed for c in each["choices"] for call in c["delta"].get("tool_calls") or ()]
        name, arguments = pieces[0]["function"]["name"], "".join(p["function"]["arguments"] or "" for p in pieces)
        assert finish(streamed) == ["tool_calls"]
    else:
        assert answer.status_code == 200, answer.text
        choice = answer.json()["choices"][0]
        function = choice["message"]["tool_calls"][0]["function"]
        name, arguments = function["name"], function["arguments"]
        assert choice["finish_reason"] == "tool_calls"
    assert (name, json.loads(arguments)) == ("weather", apis.TOOL_INPUT)
    assert upstream.calls[-1].json["tools"][0]["name"] == "weather"


@pytest.mark.compatible(endpoint="/chat/completions", system="gemini-litellm")
@pytest.mark.parametrize("stream", [False, True])
def test_gemini(gateway: Gateway, upstream: Upstream, speak: Any, stream: bool) -> None:
    speak(apis.gemini({"text": "Let me see.", "thought": True}, {"text": "Hello "}, {"text": "from Gemini."}))
    answer = gateway.chat("flash", stream=stream, **(ASK if stream else {}))
    if stream:
        streamed = events(answer.text)
        text, thought, usage = said(streamed), said(streamed, "reasoning_content"), streamed[-1]["usage"]
    else:
        message = answer.json()["choices"][0]["message"]
        text, thought, usage = message["content"], message["reasoning_content"], answer.json()["usage"]
    assert (text, thought) == ("Hello from Gemini.", "Let me see.")
    assert usage["cost"] == pytest.approx((60 * 0.3 + 40 * 0.03 + 33 * 2.5) / 1e6)
    row = until("its row", lambda: [row for row in gateway.rows() if row["model"] == "flash"])[-1]
    assert (row["cached_input_tokens"], row["output_tokens"], row["reasoning_tokens"]) == (40, 8, 25)
    assert upstream.calls[-1].path.startswith("/gemini/models/gemini-2.5-flash:")
    assert upstream.calls[-1].header("x-goog-api-key") == KEY


@pytest.mark.compatible(endpoint="/embeddings", system="gemini-litellm", how="whole")
def test_gemini_embeds(gateway: Gateway, upstream: Upstream, speak: Any) -> None:
    speak(apis.gemini())
    answer = gateway.post("/v1/embeddings", json={"model": "embed", "input": ["one", "two"]})
    assert [row["embedding"] for row in answer.json()["data"]] == [[0.25, -0.5], [0.25, -0.5]]
    assert upstream.calls[-1].path.endswith(":batchEmbedContents")


@pytest.mark.compatible(endpoint="/chat/completions", system="bedrock-litellm")
@pytest.mark.parametrize("stream", [False, True])
def test_bedrock(gateway: Gateway, upstream: Upstream, speak: Any, stream: bool) -> None:
    speak(apis.bedrock("Hello from Bedrock."))
    answer = gateway.chat("nova", stream=stream, **(ASK if stream else {}))
    if stream:
        streamed = events(answer.text)
        text, usage = said(streamed), streamed[-1]["usage"]
        assert finish(streamed) == ["stop"]
    else:
        text, usage = answer.json()["choices"][0]["message"]["content"], answer.json()["usage"]
    assert text == "Hello from Bedrock."
    assert usage["cost"] == pytest.approx((15 * 0.25 + 7 * 1.25) / 1e6)
    sent = upstream.calls[-1]
    signed = sent.header("authorization") or ""
    assert "Credential=AKIDEXAMPLE/" in signed
    assert "/eu-central-1/bedrock/aws4_request" in signed
    assert signed.endswith(f"Signature={signature(sent, upstream.port)}"), "made with our secret, of what arrived"


def signature(sent: Received, port: int) -> str:
    """AWS's signature (version 4) of a request as it arrived: its signed headers, its path, its body."""
    names = re.search(r"SignedHeaders=([^,]+)", sent.header("authorization") or "")
    assert names is not None
    headers = {name: sent.header(name) for name in names[1].split(";")}
    request = AWSRequest("POST", f"http://127.0.0.1:{port}{sent.path}", headers=headers, data=sent.body)
    request.context["timestamp"] = sent.header("x-amz-date")
    auth = SigV4Auth(Credentials("AKIDEXAMPLE", KEY), "bedrock", "eu-central-1")
    made: str = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    return made


@pytest.mark.compatible(endpoint="/chat/completions", system="azure-litellm")
@pytest.mark.parametrize("stream", [False, True])
def test_azure(gateway: Gateway, upstream: Upstream, speak: Any, stream: bool) -> None:
    speak(replies.ok("Hello from Azure."))
    answer = gateway.chat("deployed", stream=stream)
    text = said(events(answer.text)) if stream else answer.json()["choices"][0]["message"]["content"]
    assert text == "Hello from Azure."
    sent = upstream.calls[-1]
    assert sent.path == "/azure/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"
    assert sent.header("api-key") == KEY


def test_azures_filter_is_charged_here_too(gateway: Gateway, speak: Any) -> None:
    speak(replies.content_filtered())
    answer = gateway.chat("deployed")
    assert answer.status_code == 400
    one = "SELECT * FROM attempts WHERE request_id = ?"
    row = until("the row", lambda: gateway.rows(one, answer.headers["x-request-id"]))[0]
    assert row["result"] == "content_filter"
    assert row["cost_nano"] == row["input_tokens"] * 2000 > 0  # at 2 $ a million


PATHS: dict[str, dict[str, Any]] = {
    "/messages": {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 100},
    "/responses": {"input": "Hi."},
}
SPOKEN: dict[str, tuple[str, Reply, float]] = {  # by system: the model, its answer, what that costs
    "anthropic-litellm": ("claude", apis.anthropic(TEXT), (20 * 3 + 50 * 0.3 + 30 * 3.75 + 12 * 15) / 1e6),
    "gemini-litellm": ("flash", apis.gemini({"text": "Hello."}), (60 * 0.3 + 40 * 0.03 + 33 * 2.5) / 1e6),
    "vertex-litellm": ("vertex-pro", apis.gemini({"text": "Hello."}), (60 * 1.25 + 40 * 0.125 + 33 * 10) / 1e6),
    "bedrock-litellm": ("nova", apis.bedrock("Hello."), (15 * 0.25 + 7 * 1.25) / 1e6),
}


@pytest.mark.compatible(endpoint="{endpoint}", system="{system}")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("endpoint", PATHS)
@pytest.mark.parametrize("system", SPOKEN)
def test_translated_twice(gateway: Gateway, speak: Any, system: str, endpoint: str, stream: bool) -> None:
    """To a chat by us, and from there to the provider's API by litellm."""
    model, reply, cost = SPOKEN[system]
    speak(reply)
    answer = gateway.post(f"/v1{endpoint}", json={"model": model, "stream": stream, **PATHS[endpoint]})
    assert answer.status_code == 200, answer.text
    text, calls, usage = told(endpoint, read(answer) if stream else [answer.json()])
    assert text.startswith("Hello")
    assert calls == []
    assert usage["cost"] == pytest.approx(cost)


@pytest.mark.compatible(endpoint="/chat/completions", client="openai 2 (Python)", system="{system}")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("system", SPOKEN)
def test_an_sdk(gateway: Gateway, speak: Any, system: str, stream: bool) -> None:
    """The one that litellm itself brings."""
    assert openai.__version__.startswith("2.")
    model, reply, _ = SPOKEN[system]
    speak(reply)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0) as client:
        asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Hi."}]}
        if stream:
            chunks = list(client.chat.completions.create(**asked, stream=True, **ASK))
            text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
            usage = chunks[-1].usage
        else:
            answer = client.chat.completions.create(**asked)
            text, usage = answer.choices[0].message.content, answer.usage
    assert text.startswith("Hello")
    assert usage.completion_tokens > 0


ERRORS: list[tuple[Reply, str]] = [  # what the provider says -> the fallback kind; empty: relayed
    (apis.anthropic_error(400, "invalid_request_error", "temperature: range 0..1"), ""),
    (
        apis.anthropic_error(400, "invalid_request_error", "prompt is too long: 215000 tokens > 200000"),
        "context_length",
    ),
    (apis.anthropic_error(400, "invalid_request_error", "Your credit balance is too low"), "account"),
    (apis.anthropic_error(401, "authentication_error", f"invalid x-api-key {KEY}"), "account"),
    (apis.anthropic_error(403, "permission_error", "no access"), "account"),
    (apis.anthropic_error(404, "not_found_error", "model: claude-0"), "account"),
    (apis.anthropic_error(429, "rate_limit_error", "slow down"), "rate_limited"),
    (apis.anthropic_error(500, "api_error", "internal"), "server_error"),
    (apis.anthropic_error(529, "overloaded_error", "Overloaded"), "server_error"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", range(len(ERRORS)))
def test_errors_have_the_kinds_of_the_contract(gateway: Gateway, upstream: Upstream, case: int, stream: bool) -> None:
    reply, kind = ERRORS[case]
    upstream.script("claude-sonnet-4-5", reply)
    answer = gateway.chat(f"b{2 * case + stream}", stream=stream)
    if not kind:
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == "temperature: range 0..1"
    else:
        assert answer.status_code == 200, answer.text
        assert "From" in answer.text
        assert answer.headers["x-gateway-fallback-reason"] == kind
    assert KEY not in gateway.log


ATTEMPTS = "SELECT * FROM attempts WHERE model = 'broken-18'"


def test_a_rate_limit_is_kept_as_long_as_it_says(gateway: Gateway, upstream: Upstream) -> None:
    limit = apis.anthropic_error(429, "rate_limit_error", "slow down", {"retry-after": "7"})
    upstream.script("claude-sonnet-4-5", limit)
    answer = gateway.chat("broken-18", headers={"x-gateway-no-fallback": "true"})
    assert (answer.status_code, len(upstream.calls)) == (503, 1)
    assert gateway.chat("broken-18").status_code == 503
    assert len(upstream.calls) == 1
    assert until("its row", lambda: gateway.rows(ATTEMPTS))[0]["retry_after"] == 7.0


def test_who_cannot_be_reached_is_free_and_passed_over(gateway: Gateway) -> None:
    answer = gateway.chat("dead")
    assert (answer.headers["x-gateway-fallback-reason"], answer.headers["x-gateway-cost-usd"]) == ("connect", "0")


def test_an_error_within_a_stream_is_told_as_one(gateway: Gateway, speak: Any) -> None:
    speak(apis.anthropic(TEXT, error="overloaded_error"))
    text = gateway.chat("broken-19", stream=True).text
    *_, last = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert "Overloaded" in json.loads(last)["error"]["message"]
    assert "Hello fro" in text


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_is_hung_up_on(gateway: Gateway, upstream: Upstream, speak: Any, stream: bool) -> None:
    gate = Gate()
    speak(apis.anthropic(TEXT, gate=gate))
    body = {"model": "claude", "messages": [{"role": "user", "content": "Hi."}], "stream": stream}
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        content = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
        client.sendall(head.encode() + content)
        assert gate.reached.wait(60)
        left = time.monotonic()
    sent = upstream.calls[-1]
    assert sent.gone.wait(60)
    gate.open()
    print(f"closed after {(sent.gone_at - left) * 1000:.0f} ms")


def test_our_deadlines_hold_and_close_the_connection(gateway: Gateway, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("claude-sonnet-4-5", apis.anthropic(TEXT, gate=gate))
    answer = gateway.chat("quick")
    assert answer.headers["x-gateway-fallback-reason"] == "timeout"
    assert upstream.calls[0].gone.wait(60)
    gate.open()


def test_what_is_told_as_dropped_breaks_no_answer(gateway: Gateway, upstream: Upstream, speak: Any) -> None:
    """A name with a line break in it was an answer that nobody could send: paid, and a failure of the model's."""
    speak(apis.anthropic(TEXT))
    for stream in (False, True):
        odd: dict[str, Any] = {"a\r\nb: c": 1, "\0": 1, "k" * 500: 1, **{f"k{n}": 1 for n in range(200)}}
        answer = gateway.chat("claude", stream=stream, **odd)
        assert answer.status_code == 200
        told = answer.headers["x-gateway-dropped"].split(", ")
        assert told[:3] == ["a??b: c", "?", "k" * 80]
        assert len(told) == 100
    assert len(upstream.calls) == 2


SHAPES: list[list[Any]] = [
    [{"role": "user", "content": [{"type": 5}]}],
    [{"role": "user", "content": [{"text": "no type"}]}],
    [{"role": "user", "content": 5}],
    [{"role": "nobody", "content": "x"}],
    [{"role": "tool", "content": "without its call"}],
    [{"role": "user", "content": [{"type": "image_url"}]}],
]


def test_messages_of_a_wrong_shape_are_the_clients_fault(gateway: Gateway, upstream: Upstream, speak: Any) -> None:
    """litellm calls most of them internal errors. As failures of the model they would shut it out for everybody."""
    speak(apis.anthropic(TEXT))
    for messages in SHAPES:
        answer = gateway.post(json={"model": "claude", "max_tokens": 5, "messages": messages})
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error"), messages
    answer = gateway.chat("claude", tools=[{"type": "function"}])
    assert answer.status_code == 400
    assert upstream.calls == []
    assert gateway.chat("claude").status_code == 200


def test_what_the_provider_lacks_is_named(gateway: Gateway, upstream: Upstream, speak: Any) -> None:
    speak(apis.anthropic(TEXT))
    answer = gateway.chat("claude", seed=1, frequency_penalty=0.5, unheard_of={"a": 1}, logprobs=False)
    assert answer.headers["x-gateway-dropped"] == "seed, frequency_penalty, unheard_of, logprobs"
    refused = gateway.chat("claude", n=2)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")
    assert len(upstream.calls) == 1


def test_other_endpoints_are_refused_without_a_mark_against_the_model(gateway: Gateway, upstream: Upstream) -> None:
    for path, body in (("completions", {"prompt": "x"}), ("moderations", {"input": "x"})):
        answer = gateway.post(f"/v1/{path}", json={"model": "claude", **body})
        assert answer.status_code == 400, answer.text
        assert "through litellm" in answer.json()["error"]["message"]
    assert upstream.calls == []


def test_no_client_can_turn_litellm_elsewhere(gateway: Gateway, upstream: Upstream, speak: Any) -> None:
    """Each of these is an argument of `litellm.acompletion`."""
    speak(apis.anthropic(TEXT))
    with Upstream(apis.anthropic(TEXT)) as thief:
        theirs: dict[str, Any] = {
            "api_base": thief.base_url,
            "base_url": thief.base_url,
            "api_key": "sk-theirs",
            "custom_llm_provider": "openai",
            "extra_headers": {"x-evil": "1"},
            "model_list": [{}],
            "fallbacks": ["gpt-5"],
            "mock_response": "Made up.",
            "max_retries": 5,
            "extra_body": {"stream": False},
        }
        answer = gateway.chat("claude", **theirs)
        assert answer.json()["choices"][0]["message"]["content"] == "Hello from Claude."
        assert set(answer.headers["x-gateway-dropped"].split(", ")) == set(theirs)
        assert thief.requests == []
    sent = upstream.calls[-1]
    assert (sent.header("x-api-key"), sent.header("x-evil")) == (KEY, None)


def test_images_by_address_are_not_fetched_for_clients(gateway: Gateway, upstream: Upstream, speak: Any) -> None:
    """litellm would fetch them itself for Gemini and Bedrock, from wherever the gateway can reach."""
    speak(apis.bedrock("Seen."))
    with Upstream(replies.ok()) as inside:
        image = {"type": "image_url", "image_url": {"url": f"{inside.base_url}/secret.png"}}
        answer = gateway.post(json={"model": "nova", "messages": [{"role": "user", "content": [image]}]})
        assert answer.status_code == 400, answer.text
        assert inside.requests == inside.probes == []
    assert upstream.calls == []


def test_nothing_of_the_provider_is_in_any_log_or_argument(gateway: Gateway) -> None:
    assert KEY not in gateway.log
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert KEY.encode() not in process.read_bytes()


def test_a_process_that_dies_is_started_again(gateway: Gateway, speak: Any) -> None:
    speak(apis.anthropic(TEXT))
    found = re.findall(r"the litellm process serves at \S+ \(process (\d+)\)", gateway.log)
    os.kill(int(found[-1]), signal.SIGKILL)
    until("a second one", lambda: gateway.log.count("the litellm process serves") > len(found), timeout=240)
    until("answers", lambda: gateway.chat("claude").status_code == 200, timeout=60)
