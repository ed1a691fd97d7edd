"""What users of Anthropic's SDK do, against the real embedded model; `tools` and the like are a scripted upstream."""

import json
import os

import anthropic
import pytest
from anthropic import Anthropic

COLD = {
    "temperature": 0
}  # the SDK has no such parameter any more: what is asked of the answer must not be left to dice
MESSAGES = [{"role": "user", "content": "Say hello."}]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TOOL = {
    "name": "look",
    "description": "Looks something up.",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}


def test_message(client: Anthropic) -> None:
    raw = client.messages.with_raw_response.create(
        model="auto", messages=MESSAGES, extra_body=COLD, max_tokens=8, system="Be brief."
    )
    message = raw.parse()
    assert (message.type, message.role) == ("message", "assistant")
    assert message.content[0].type == "text"
    assert message.content[0].text
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert 1 <= message.usage.output_tokens <= 8
    read = message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)
    assert read > 10
    assert message.usage.cost >= 0
    assert raw.headers["x-gateway-model"] == "smol"
    assert float(raw.headers["x-gateway-cost-usd"]) >= 0


def test_message_that_its_cap_cuts(client: Anthropic) -> None:
    message = client.messages.create(model="auto", messages=MESSAGES, max_tokens=1)
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 1


def test_stop_sequence(client: Anthropic) -> None:
    message = client.messages.create(
        model="auto",
        messages=[{"role": "user", "content": "Count: 1 2 3 4 5 6 7 8 9. Now you."}],
        extra_body=COLD,
        max_tokens=30,
        stop_sequences=["e", "a", "o", "1", "2"],
    )
    assert message.stop_reason == "end_turn"
    assert not set("eao12") & set("".join(block.text for block in message.content))


def test_stream_that_accumulates(client: Anthropic) -> None:
    kinds: list[str] = []
    with client.messages.stream(model="auto", messages=MESSAGES, extra_body=COLD, max_tokens=8) as stream:
        said = ""
        for event in stream:
            kinds.append(event.type)
            if event.type == "text":
                said += event.text
        message = stream.get_final_message()
    assert message.content[0].text == said
    assert kinds[0] == "message_start"
    assert kinds[1] == "content_block_start"
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert 1 <= message.usage.output_tokens <= 8
    assert message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0) > 10


def test_stream_and_whole_read_the_same(client: Anthropic) -> None:
    """The prompt has as many tokens either way, whatever of it comes from the cache."""
    whole = client.messages.create(model="auto", messages=MESSAGES, max_tokens=2).usage
    with client.messages.stream(model="auto", messages=MESSAGES, max_tokens=2) as stream:
        streamed = stream.get_final_message().usage
    read = [usage.input_tokens + usage.cache_read_input_tokens for usage in (whole, streamed)]
    assert read[0] == read[1]


def test_text_stream(client: Anthropic) -> None:
    with client.messages.stream(model="auto", messages=MESSAGES, extra_body=COLD, max_tokens=8) as stream:
        assert "".join(stream.text_stream)


def test_structured_output(client: Anthropic) -> None:
    """llama.cpp's own messages API passes the schema over; chat obeys it."""
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    message = client.messages.create(
        model="auto",
        messages=[{"role": "user", "content": "Ann is 31 years old. Give her name and age."}],
        output_config={"format": {"type": "json_schema", "schema": schema}},
        extra_body=COLD,
        max_tokens=60,
    )
    person = json.loads(message.content[0].text)
    assert set(person) == {"name", "age"}
    assert isinstance(person["age"], int)


def test_conversation(client: Anthropic) -> None:
    first = client.messages.create(model="auto", messages=MESSAGES, extra_body=COLD, max_tokens=8)
    history = [*MESSAGES, {"role": "assistant", "content": first.content}, {"role": "user", "content": "And goodbye."}]
    assert client.messages.create(model="auto", messages=history, extra_body=COLD, max_tokens=8).content


def test_begun_answer_is_gone_on_with(client: Anthropic) -> None:
    begun = [*MESSAGES, {"role": "assistant", "content": "Hello, my name"}]
    message = client.messages.create(model="prefill", messages=begun, max_tokens=4)
    assert not message.content[0].text.startswith("Hello, my name")
    with pytest.raises(anthropic.BadRequestError, match="prefill"):
        client.messages.create(model="auto", messages=begun, max_tokens=4)


def test_tools(client: Anthropic) -> None:
    """The whole turn: a call, its result, and the answer."""
    message = client.messages.create(
        model="tools", messages=MESSAGES, max_tokens=50, tools=[TOOL], tool_choice={"type": "any"}
    )
    assert message.stop_reason == "tool_use"
    (call,) = message.content
    assert (call.type, call.name, call.input) == ("tool_use", "look", {"a": 1})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "42"}
    history = [*MESSAGES, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    answer = client.messages.create(model="loop", messages=history, max_tokens=50, tools=[TOOL])
    assert answer.content[0].text == "Hello there."


def test_tools_streamed(client: Anthropic) -> None:
    with client.messages.stream(model="tools", messages=MESSAGES, max_tokens=50, tools=[TOOL]) as stream:
        parts = [event.partial_json for event in stream if event.type == "input_json"]
        message = stream.get_final_message()
    assert message.content[0].input == {"a": 1}
    assert json.loads("".join(parts)) == {"a": 1}
    assert message.stop_reason == "tool_use"


def test_thinking(client: Anthropic) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    raw = client.messages.with_raw_response.create(
        model="thinker", messages=MESSAGES, max_tokens=2000, thinking=thinking
    )
    blocks = raw.parse().content
    assert [block.type for block in blocks] == ["thinking", "text"]
    assert blocks[0].thinking == "Let me think."
    assert raw.headers["x-gateway-dropped"] == "thinking.budget_tokens, reasoning_effort"
    with client.messages.stream(model="thinker", messages=MESSAGES, max_tokens=2000, thinking=thinking) as stream:
        message = stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.usage.output_tokens_details.thinking_tokens == 7


def test_image(client: Anthropic) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    content = [{"type": "text", "text": "What is this?"}, {"type": "image", "source": source}]
    message = client.messages.create(model="loop", messages=[{"role": "user", "content": content}], max_tokens=20)
    assert message.content[0].text == "Hello there."


def test_count_tokens(client: Anthropic) -> None:
    counted = client.messages.count_tokens(model="auto", messages=MESSAGES).input_tokens
    usage = client.messages.create(model="auto", messages=MESSAGES, max_tokens=1).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens, "the model's own tokenizer and template"
    raw = client.messages.with_raw_response.count_tokens(model="loop", messages=MESSAGES)
    assert raw.headers["x-gateway-usage"] == "estimated"
    assert raw.parse().input_tokens == 3


@pytest.mark.parametrize("model", os.environ["GATEWAY_DIALECTS"].split(","))
def test_dialects(client: Anthropic, model: str) -> None:
    """Translated, what each server's documentation says that it answers reads the same whole and streamed."""
    calls = model in os.environ["GATEWAY_CALLS"].split(",")
    given = {"model": model, "max_tokens": 500, "messages": MESSAGES, **({"tools": [TOOL]} if calls else {})}
    whole = client.messages.create(**given)
    with client.messages.stream(**given) as stream:
        final = stream.get_final_message()
    said = [[(block.type, getattr(block, "text", "")) for block in each.content] for each in (whole, final)]
    assert said[0] == said[1]
    assert said[0][-1][0] == ("tool_use" if calls else "text")
    used = [[block.input for block in each.content if block.type == "tool_use"] for each in (whole, final)]
    assert used[0] == used[1]


def test_spent_budget_is_a_rate_limit_error_and_asked_for_once(client: Anthropic) -> None:
    with pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.create(model="spent", messages=MESSAGES, max_tokens=50)
    assert caught.value.body["error"]["type"] == "rate_limit_error"
    assert caught.value.body["error"]["code"] == "insufficient_quota"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"


def test_errors(client: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="does not exist"):
        client.messages.create(model="smoll", messages=MESSAGES, max_tokens=5)
    with pytest.raises(anthropic.PermissionDeniedError):
        client.messages.create(model="forbidden", messages=MESSAGES, max_tokens=5)
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        client.messages.create(model="auto", messages="hello", max_tokens=5)
    tool = {"type": "web_search_20250305", "name": "web_search"}
    with pytest.raises(anthropic.BadRequestError, match="web_search_20250305") as refused:
        client.messages.create(model="auto", messages=MESSAGES, max_tokens=5, tools=[tool])
    assert refused.value.body["type"] == "error"
    with pytest.raises(anthropic.BadRequestError, match="context size"):
        client.messages.create(model="auto", messages=[{"role": "user", "content": "word " * 4000}], max_tokens=5)
    with pytest.raises(anthropic.InternalServerError) as exhausted:
        client.messages.create(model="broken", messages=MESSAGES, max_tokens=5)
    assert exhausted.value.response.request.headers["x-stainless-retry-count"] == "0"


def test_wrong_key() -> None:
    base = os.environ["GATEWAY_URL"].removesuffix("/v1")
    with (
        Anthropic(base_url=base, api_key="sk-wrong") as stranger,
        pytest.raises(anthropic.AuthenticationError) as caught,
    ):
        stranger.messages.create(model="auto", messages=MESSAGES, max_tokens=5)
    assert caught.value.body["error"]["type"] == "authentication_error"


def test_stream_that_breaks_raises(client: Anthropic) -> None:
    with (
        client.messages.stream(model="cut", messages=MESSAGES, max_tokens=50) as stream,
        pytest.raises(anthropic.APIError, match="broke off"),
    ):
        stream.until_done()


def test_bearer_tokens_work_too() -> None:
    base = os.environ["GATEWAY_URL"].removesuffix("/v1")
    with Anthropic(base_url=base, auth_token=os.environ["GATEWAY_KEY"]) as client:
        assert client.messages.create(model="loop", messages=MESSAGES, max_tokens=5).content
