"""`client.responses` where servers have only chat: the real embedded model, and scripted ones for what it cannot do."""

import json
import os
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, Field, TypeAdapter

GOLDEN = Path(__file__).parents[2] / "data/translate/responses-chat"
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(le=99)


def cases(kind: str) -> list[Any]:
    found = sorted(GOLDEN.glob(f"{kind}-*.json"))
    assert found
    return [pytest.param(json.loads(path.read_text())["client"], id=path.stem) for path in found]


@pytest.mark.parametrize("events", cases("stream"))
def test_every_event_is_one_of_the_sdks(events: list[Any]) -> None:
    """Checked, which the SDK itself does not do: every member that it knows is there and of its type."""
    for event in events:
        if isinstance(event, dict):
            assert EVENT.validate_python(event).type == event["type"]


@pytest.mark.parametrize("answer", cases("answer"))
def test_every_answer_is_the_sdks(answer: dict[str, Any]) -> None:
    if answer.get("object") == "response":
        assert Response.model_validate(answer).id == answer["id"]


def test_create(client: OpenAI) -> None:
    answer = client.responses.create(
        model="auto", input="Say hello in five words.", temperature=0, max_output_tokens=12
    )
    assert answer.output_text
    assert answer.status in ("completed", "incomplete")
    assert answer.usage is not None
    assert answer.usage.input_tokens > 0
    assert 0 < answer.usage.output_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert isinstance(answer.usage.model_extra["cost"], int | float)
    Response.model_validate(answer.to_dict())


def test_what_the_cap_cut_is_incomplete(client: OpenAI) -> None:
    answer = client.responses.create(model="auto", input="Count to ten.", temperature=0, max_output_tokens=3)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output[0].status == "incomplete"


def test_a_conversation_goes_on_with_the_items_that_came(client: OpenAI) -> None:
    history: list[Any] = [{"role": "user", "content": "My name is Ann."}]
    first = client.responses.create(
        model="auto", instructions="Be brief.", input=history, temperature=0, max_output_tokens=8
    )
    history += [*first.output, {"role": "user", "content": [{"type": "input_text", "text": "What is my name?"}]}]
    second = client.responses.create(
        model="auto", instructions="Be brief.", input=history, temperature=0, max_output_tokens=8
    )
    assert second.output_text
    assert second.usage.input_tokens > first.usage.input_tokens


def test_stream(client: OpenAI) -> None:
    with client.responses.create(
        model="auto", input="Say hello.", temperature=0, max_output_tokens=8, stream=True
    ) as stream:
        events = list(stream)
    for event in events:
        EVENT.validate_python(event.to_dict())
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert events[-1].response.output_text == text
    assert "cost" in events[-1].response.usage.model_extra


def test_the_sdks_own_accumulation(client: OpenAI) -> None:
    with client.responses.stream(model="loop", input="Say hello.", max_output_tokens=50) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert snapshots[-1] == final.output_text == "Hello there."


def test_structured_output(client: OpenAI) -> None:
    answer = client.responses.parse(
        model="auto",
        input="Ann is 31 years old. Give her name and age.",
        text_format=Person,
        temperature=0,
        max_output_tokens=80,
    )
    assert isinstance(answer.output_parsed, Person)


def test_reasoning(client: OpenAI) -> None:
    answer = client.responses.create(model="thinks", input="Hm?", reasoning={"effort": "low"}, max_output_tokens=50)
    thought, message = answer.output
    assert (thought.type, thought.content[0].text) == ("reasoning", "Let me think.")
    assert (message.type, answer.output_text) == ("message", "So.")
    assert answer.usage.output_tokens_details.reasoning_tokens == 7
    with client.responses.stream(model="thinks", input="Hm?") as stream:
        said = "".join(event.delta for event in stream if event.type == "response.reasoning_text.delta")
        assert stream.get_final_response().output_text == "So."
    assert said == "Let me think."


def test_tools(client: OpenAI) -> None:
    answer = client.responses.create(model="tools", input="Look.", tools=[LOOK], tool_choice="required")
    (call,) = answer.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "look", {"a": 1})
    with client.responses.stream(model="tools", input="Look.", tools=[LOOK]) as stream:
        (streamed,) = stream.get_final_response().output
    assert (streamed.name, streamed.arguments) == (call.name, call.arguments)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "A tree."}
    history = [{"role": "user", "content": "Look."}, call, result]
    assert client.responses.create(model="loop", input=history, tools=[LOOK]).output_text == "Hello there."


def test_a_custom_tool(client: OpenAI) -> None:
    answer = client.responses.create(model="tools", input="Look.", tools=[{"type": "custom", "name": "look"}])
    assert (answer.output[0].type, answer.output[0].input) == ("custom_tool_call", '{"a":1}')


def test_logprobs(client: OpenAI) -> None:
    include: Any = ["message.output_text.logprobs"]
    answer = client.responses.create(
        model="auto", input="Hi", include=include, top_logprobs=2, temperature=0, max_output_tokens=3
    )
    logprobs = answer.output[0].content[0].logprobs
    assert len(logprobs) == 3
    assert all(each.logprob <= 0 and len(each.top_logprobs) == 2 for each in logprobs)


def test_what_cannot_be_carried(client: OpenAI) -> None:
    refused: list[tuple[str, dict[str, Any]]] = [
        ("tools", {"tools": [{"type": "web_search"}]}),
        ("previous_response_id", {"previous_response_id": "resp_123456"}),
        ("background", {"background": True}),
    ]
    for param, more in refused:
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model="auto", input="Hi", **more)
        assert caught.value.param == param
    with pytest.raises(openai.NotFoundError, match="ask the provider"):
        client.responses.retrieve("resp_123456")
    raw = client.responses.with_raw_response.create(model="loop", input="Hi", truncation="auto")
    assert raw.headers["x-gateway-dropped"] == "truncation"


@pytest.mark.parametrize("model", os.environ["GATEWAY_DIALECTS"].split(","))
def test_dialects(client: OpenAI, model: str) -> None:
    """Translated, what each server's documentation says that it answers reads the same whole and streamed."""
    calls = model in os.environ["GATEWAY_CALLS"].split(",")
    given: dict[str, Any] = {"model": model, "input": "Hi", **({"tools": [LOOK]} if calls else {})}
    whole = client.responses.create(**given)
    with client.responses.stream(**given) as stream:
        final = stream.get_final_response()
    assert (whole.status, final.status) == ("completed", "completed")
    assert final.output_text == whole.output_text
    said = [[item.arguments for item in each.output if item.type == "function_call"] for each in (whole, final)]
    assert said[0] == said[1]
    assert bool(said[0]) == calls
    assert whole.output_text or calls


def test_errors(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="smoll", input="Hi")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.InternalServerError) as broken:
        client.responses.create(model="broken", input="Hi")
    assert broken.value.response.headers["x-should-retry"] == "false"


def test_a_stream_that_breaks_ends_in_the_sdks_error_event(client: OpenAI) -> None:
    events = list(client.responses.create(model="cut", input="Hi", stream=True))
    assert events[-1].type == "error"
    assert "broke off" in events[-1].message
    EVENT.validate_python(events[-1].to_dict())
    assert [event.sequence_number for event in events] == list(range(len(events)))
