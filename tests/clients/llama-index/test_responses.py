"""LlamaIndex on `/v1/responses`, which the embedded model's server is asked for as chat."""

from conftest import AT
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILikeResponses

HELLO = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Say hello.")]


def weather(city: str) -> str:
    """By city."""
    return f"Rain in {city}."


def responding(name: str = "auto", *, most: int = 20) -> OpenAILikeResponses:
    return OpenAILikeResponses(
        model=name, max_output_tokens=most, context_window=2048, is_function_calling_model=True, **AT
    )


def test_chat() -> None:
    assert responding().chat(HELLO).message.content


def test_stream() -> None:
    parts = list(responding().stream_chat(HELLO))
    assert "".join(part.delta or "" for part in parts)


def test_a_tool_call_of_the_real_model() -> None:
    made = responding(most=80).predict_and_call(
        [FunctionTool.from_defaults(weather)], "What is the weather in Bern?", tool_required=True
    )
    assert str(made).startswith("Rain in ")
