"""What LangChain's standard tests do not look at: what the gateway adds, how errors arrive, a whole turn of tools."""

import openai
import pytest
from conftest import AT
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def look(a: int) -> str:
    """Looks something up."""
    return f"{a + 41}"


def test_what_the_gateway_decided(model: ChatOpenAI) -> None:
    model = model.model_copy(update={"include_response_headers": True})
    metadata = model.invoke("Say hello.").response_metadata
    assert metadata["headers"]["x-gateway-model"] == "smollm2"
    assert metadata["token_usage"]["cost"] > 0
    assert metadata["model_name"]


def test_the_clients_word_for_the_task(model: ChatOpenAI) -> None:
    told = {"x-gateway-task": "coding"}
    model = model.model_copy(update={"include_response_headers": True})
    metadata = model.bind(extra_headers=told).invoke("Say hello.").response_metadata
    assert metadata["headers"]["x-gateway-task"] == "coding"


def test_streamed_usage_has_its_cost(model: ChatOpenAI) -> None:
    chunks = list(model.stream("Say hello."))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.content
    assert whole.usage_metadata["output_tokens"] > 0
    assert len([chunk for chunk in chunks if chunk.usage_metadata]) == 1


def test_a_whole_turn_with_a_tool() -> None:
    """A scripted upstream, which calls once and then answers; the standard tests have calls of the real model."""
    model = ChatOpenAI(model="agent", **AT).bind_tools([look])
    asked = HumanMessage("Look.")
    called = model.invoke([asked])
    assert isinstance(called, AIMessage)
    result = look.invoke(called.tool_calls[0])
    assert isinstance(result, ToolMessage)
    assert result.content == "42"
    assert model.invoke([asked, called, result]).content == "Hello there."


def test_errors_are_the_sdks() -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        ChatOpenAI(model="smollm", **AT).invoke("Hi")
    assert missing.value.code == "model_not_found"
    assert "smollm2" in str(missing.value)
    with pytest.raises(openai.BadRequestError, match="context size"):
        ChatOpenAI(model="auto", **AT).invoke("word " * 4000)


def test_an_exhausted_route_is_asked_once() -> None:
    """With retries on: `x-should-retry: false` says that the gateway has tried already."""
    model = ChatOpenAI(model="broken-langchain", **{**AT, "max_retries": 2})
    with pytest.raises(openai.InternalServerError) as caught:
        model.invoke("Hi")
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"


def test_a_stream_that_breaks_raises() -> None:
    with pytest.raises(openai.APIError, match="broke off"):
        list(ChatOpenAI(model="cut", **AT).stream("Hi"))
