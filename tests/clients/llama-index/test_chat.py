"""What users of LlamaIndex do: chat, streams, structured output and tools of the real model, a whole turn, errors."""

import asyncio
from collections.abc import Callable

import openai
import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field

Make = Callable[..., OpenAILike]
HELLO = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Say hello.")]


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=12)
    age: int = Field(le=99)


def weather(city: str) -> str:
    """By city."""
    return f"Rain in {city}."


def look(a: int) -> str:
    """Looks something up."""
    return f"{a + 41}"


def test_chat(llm: Make) -> None:
    answer = llm().chat(HELLO)
    assert answer.message.content
    assert answer.raw.usage.prompt_tokens > 0
    assert answer.raw.usage.model_extra["cost"] > 0


def test_stream(llm: Make) -> None:
    parts = list(llm().stream_chat(HELLO))
    assert len(parts) > 1
    assert "".join(part.delta or "" for part in parts) == parts[-1].message.content


def test_asynchronously(llm: Make) -> None:
    async def ask() -> str:
        return (await llm().achat(HELLO)).message.content

    assert asyncio.run(ask())


def test_usage_of_a_stream(llm: Make) -> None:
    parts = list(llm(additional_kwargs={"stream_options": {"include_usage": True}}).stream_chat(HELLO))
    (usage,) = [part.raw.usage for part in parts if part.raw.usage]
    assert usage.completion_tokens > 0
    assert usage.model_extra["cost"] > 0


def test_conversation(llm: Make) -> None:
    first = llm().chat(HELLO)
    second = llm().chat([*HELLO, first.message, ChatMessage(role="user", content="Once more.")])
    assert second.message.content
    assert second.raw.usage.prompt_tokens > first.raw.usage.prompt_tokens


def test_structured_output_by_schema(llm: Make) -> None:
    model = llm(should_use_structured_outputs=True, max_tokens=80).as_structured_llm(Person)
    answer = model.complete("Ann is 31 years old. Give her name and age.")
    assert isinstance(answer.raw, Person)


def test_structured_output_by_a_tool(llm: Make) -> None:
    model = llm(max_tokens=80).as_structured_llm(Person)
    assert isinstance(model.complete("Ann is 31 years old. Give her name and age.").raw, Person)


def test_a_tool_call_of_the_real_model(llm: Make) -> None:
    made = llm(max_tokens=80).predict_and_call(
        [FunctionTool.from_defaults(weather)], "What is the weather in Bern?", tool_required=True
    )
    (output,) = made.sources
    assert output.tool_name == "weather"
    assert str(made).startswith("Rain in ")


def test_a_tool_call_in_a_stream(llm: Make) -> None:
    model = llm(max_tokens=80)
    parts = list(
        model.stream_chat_with_tools(
            [FunctionTool.from_defaults(weather)], "What is the weather in Bern?", tool_required=True
        )
    )
    (call,) = model.get_tool_calls_from_response(parts[-1])
    assert (call.tool_name, set(call.tool_kwargs)) == ("weather", {"city"})


@pytest.mark.parametrize("streaming", [False, True])
def test_an_agent(llm: Make, streaming: bool) -> None:
    """A scripted upstream, which calls once and then answers."""

    async def run() -> str:
        agent = FunctionAgent(tools=[look], llm=llm("agent", max_tokens=100), streaming=streaming)
        return str(await agent.run("Look."))

    assert asyncio.run(run()) == "Hello there."


def test_errors(llm: Make) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        llm("smollm").chat(HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.InternalServerError) as broken:
        llm("broken-llama-index").chat(HELLO)
    assert broken.value.response.headers["x-should-retry"] == "false"


def test_a_stream_that_breaks_raises(llm: Make) -> None:
    with pytest.raises(openai.APIError, match="broke off"):
        list(llm("cut").stream_chat(HELLO))
