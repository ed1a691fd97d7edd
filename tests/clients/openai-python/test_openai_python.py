"""What a user of the SDK does, 3.x or 2.x: against the real embedded model (`auto`), for errors a scripted upstream."""

import json
import os
import time
import warnings
from typing import Any

import openai
import pytest
from openai import OpenAI

MESSAGES = [{"role": "user", "content": "Say hello in five words."}]


def test_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="auto", messages=MESSAGES, temperature=0, max_tokens=12)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert 0 < answer.usage.completion_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert isinstance(answer.usage.model_extra["cost"], int | float)


def test_response_headers(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=MESSAGES, max_tokens=2)
    assert raw.headers["x-gateway-route"] == "default"
    assert raw.headers["x-gateway-model"] == "smol"
    assert raw.headers["x-request-id"] == raw.request_id
    assert float(raw.headers["x-gateway-cost-usd"]) >= 0


def test_stream_without_usage(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(model="auto", messages=MESSAGES, temperature=0, max_tokens=8, stream=True)
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert all(chunk.choices for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)


def test_stream_with_usage(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="auto",
        messages=MESSAGES,
        temperature=0,
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert len([chunk for chunk in chunks if chunk.usage]) == 1
    assert chunks[-1].choices == []
    assert 1 <= chunks[-1].usage.completion_tokens <= 8  # a model may stop by itself
    assert "cost" in chunks[-1].usage.model_extra


def test_json_schema(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": "Ann is 31 years old. Give her name and age."}],
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}},
        temperature=0,
        max_tokens=60,
    )
    person = json.loads(answer.choices[0].message.content)
    assert set(person) == {"name", "age"}
    assert isinstance(person["age"], int)


def test_logprobs(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="auto", messages=MESSAGES, temperature=0, max_tokens=3, logprobs=True, top_logprobs=2
    )
    entries = answer.choices[0].logprobs.content
    assert len(entries) == 3
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 2 for entry in entries)


def test_two_choices(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="auto", messages=MESSAGES, max_tokens=4, n=2)
    assert sorted(choice.index for choice in answer.choices) == [0, 1]


def test_completions(client: OpenAI) -> None:
    answer = client.completions.create(model="auto", prompt="Once upon a time", temperature=0, max_tokens=6)
    assert answer.choices[0].text
    streamed = client.completions.create(
        model="auto", prompt="Once upon a time", temperature=0, max_tokens=6, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in streamed)


def test_embeddings(client: OpenAI) -> None:
    answer = client.embeddings.create(model="loop", input=["one", "two"], encoding_format="float")
    assert [row.index for row in answer.data] == [0, 1]
    assert answer.data[0].embedding == [0.25, -0.5, 1e-7]
    assert answer.usage.prompt_tokens > 0


def test_cancel_mid_stream(client: OpenAI) -> None:
    """Leaving a stream frees the model: the next answer does not wait for 1,500 tokens to be made."""
    with client.chat.completions.create(model="auto", messages=MESSAGES, max_tokens=1500, stream=True) as stream:
        next(iter(stream))
    began = time.monotonic()
    assert client.chat.completions.create(model="auto", messages=MESSAGES, max_tokens=1).choices
    assert time.monotonic() - began < 10


def test_models(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"auto", "smol", "loop"} <= set(names)
    assert client.models.retrieve("smol").id == "smol"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nosuch")


def test_unknown_model(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="smoll", messages=MESSAGES)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert "smol" in caught.value.message


def test_bad_request(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="auto", messages="hello")  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.param == "messages"


def test_wrong_key() -> None:
    with (
        OpenAI(base_url=os.environ["GATEWAY_URL"], api_key="sk-wrong") as stranger,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        stranger.models.list()
    assert caught.value.code == "invalid_api_key"


def test_model_that_the_key_may_not_use(client: OpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.chat.completions.create(model="forbidden", messages=MESSAGES)
    assert caught.value.code == "permission_denied"


def test_exhausted_upstream_is_not_retried_by_the_sdk(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response
    with pytest.raises(openai.InternalServerError) as caught:
        raw.create(model="broken", messages=MESSAGES)
    assert caught.value.status_code == 502
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"


def test_a_spent_budget_is_told_once() -> None:
    """tests/e2e/test_clients.py counts what arrived: the SDK's own retries are on, and are not used."""
    with OpenAI(base_url=os.environ["GATEWAY_URL"], api_key=os.environ["GATEWAY_POOR_KEY"], timeout=60) as poor:
        assert poor.chat.completions.create(model="dollar", messages=MESSAGES, max_tokens=10).choices
        with pytest.raises(openai.RateLimitError) as caught:
            poor.chat.completions.create(model="dollar", messages=MESSAGES, max_tokens=10)
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"


def test_a_limit_is_waited_for() -> None:
    """A request too many is told when to come back; the SDK does, and is served once there is room."""
    refused = []

    def look(answer: Any) -> None:
        if answer.status_code == 429:
            refused.append(answer)
            if len(refused) == 2:
                stream.close()  # gives the place back while the SDK waits

    watched = openai.DefaultHttpxClient(event_hooks={"response": [look]})
    given = {"base_url": os.environ["GATEWAY_URL"], "api_key": os.environ["GATEWAY_BUSY_KEY"], "timeout": 60}
    with OpenAI(**given, http_client=watched) as busy:
        stream = busy.chat.completions.create(model="endless", messages=MESSAGES, stream=True)
        next(iter(stream))  # holds the key's one place
        with pytest.raises(openai.RateLimitError) as caught:
            busy.with_options(max_retries=0).chat.completions.create(model="smol", messages=MESSAGES, max_tokens=2)
        assert caught.value.code == "rate_limit_exceeded"
        assert caught.value.response.headers["retry-after"] == "1"
        raw = busy.chat.completions.with_raw_response.create(model="smol", messages=MESSAGES, max_tokens=2)
    assert raw.status_code == 200
    assert int(raw.http_request.headers["x-stainless-retry-count"]) == len(refused) - 1 >= 1


def test_stream_that_breaks_raises(client: OpenAI) -> None:
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="cut", messages=MESSAGES, stream=True))


def test_tool_call(client: OpenAI) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    answer = client.chat.completions.create(model="tools", messages=MESSAGES, tools=[tool])
    assert answer.choices[0].message.tool_calls[0].function.name == "look"
    with client.chat.completions.stream(model="tools", messages=MESSAGES, tools=[tool]) as stream:
        final = stream.get_final_completion()
    assert json.loads(final.choices[0].message.tool_calls[0].function.arguments) == {"a": 1}


@pytest.mark.parametrize("model", os.environ["GATEWAY_DIALECTS"].split(","))
def test_dialects(client: OpenAI, model: str) -> None:
    """What each server's documentation says that it answers reads the same whole and streamed."""
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    calls = model in os.environ["GATEWAY_CALLS"].split(",")
    given: dict[str, Any] = {"model": model, "messages": MESSAGES, **({"tools": tools} if calls else {})}
    whole = client.chat.completions.create(**given)
    chunks = list(client.chat.completions.create(**given, stream=True, stream_options={"include_usage": True}))
    message = whole.choices[0].message
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices if choice.delta]
    assert "".join(delta.content or "" for delta in deltas) == (message.content or "")
    pieces = [call.function.arguments or "" for delta in deltas for call in delta.tool_calls or ()]
    assert "".join(pieces) == "".join(call.function.arguments for call in message.tool_calls or ())
    assert bool(message.tool_calls) == calls
    assert message.content or calls
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 0


# Below: a loopback upstream that answers as documented (tests/documented.py), not as seen live.


def test_moderation(client: OpenAI) -> None:
    made = client.moderations.create(input="I want to be kind.", model="moderated")
    assert made.results[0].flagged is False


def test_images(client: OpenAI) -> None:
    made = client.images.generate(model="drawn", prompt="A cute baby sea otter")
    assert made.data is not None
    assert made.data[0].b64_json
    assert made.usage is not None
    assert made.usage.output_tokens == 4160


def test_image_edits(client: OpenAI) -> None:
    files = [("a.png", b"\x89PNG one"), ("b.png", b"\x89PNG two")]
    made = client.images.edit(model="drawn", image=files, prompt="A lovely gift basket")
    assert made.data is not None
    assert made.data[0].b64_json


def test_images_in_events(client: OpenAI) -> None:
    stream = client.images.generate(model="drawn", prompt="A river", stream=True, partial_images=1)
    kinds = [event.type for event in stream]
    assert kinds == ["image_generation.partial_image", "image_generation.completed"]


def test_speech(client: OpenAI) -> None:
    with client.audio.speech.with_streaming_response.create(model="spoken", voice="alloy", input="Hello.") as answer:
        assert answer.headers["content-type"] == "audio/mpeg"
        assert float(answer.headers["x-gateway-cost-usd"]) == pytest.approx(6 * 0.000015)
        assert answer.read().startswith(b"ID3")


def test_transcriptions(client: OpenAI) -> None:
    sound = ("speech.wav", b"RIFF" + bytes(100_000))
    made = client.audio.transcriptions.create(model="heard", file=sound)
    assert made.text == "Imagine the wildest idea."
    assert made.usage is not None
    assert made.usage.type == "duration"
    with warnings.catch_warnings():
        # The word of 3.x; the endpoint is there all the same.
        warnings.filterwarnings("ignore", message=".*deprecated", category=DeprecationWarning)
        translated = client.audio.translations.create(model="heard", file=sound)
    assert translated.text == "Imagine the wildest idea."


def test_transcriptions_in_events(client: OpenAI) -> None:
    sound = ("speech.wav", b"RIFF" + bytes(100))
    stream = client.audio.transcriptions.create(model="heard-in-events", file=sound, stream=True)
    events = list(stream)
    text = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    assert text == "Imagine the wildest idea."
    assert events[-1].type == "transcript.text.done"


def test_rerank_has_no_method_of_its_own(client: OpenAI) -> None:
    body = {"model": "ranked", "query": "capital?", "documents": ["Carson City", "Washington"]}
    made = client.post("/rerank", body=body, cast_to=dict[str, Any])
    assert made["results"][0]["index"] == 1


def test_batches_are_postponed(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="is postponed"):
        client.batches.list()
