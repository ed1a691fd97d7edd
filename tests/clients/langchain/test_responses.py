"""LangChain on `/v1/responses`, which the embedded model's server is asked for as chat."""

from conftest import AT
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=12)
    age: int = Field(le=99)


@tool
def weather(city: str) -> str:
    """By city."""
    return f"Rain in {city}."


def responding(model: str = "auto") -> ChatOpenAI:
    return ChatOpenAI(model=model, temperature=0, max_tokens=80, use_responses_api=True, **AT)


def test_invoke() -> None:
    answer = responding().invoke([("system", "Be brief."), ("user", "Say hello.")])
    assert answer.text
    assert answer.usage_metadata["input_tokens"] > 0
    assert answer.response_metadata["object"] == "response"


def test_stream() -> None:
    chunks = list(responding().stream("Say hello."))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.text
    assert whole.usage_metadata["output_tokens"] > 0
    assert whole.response_metadata["status"] in ("completed", "incomplete")


def test_conversation() -> None:
    history = [("user", "My name is Ann."), responding().invoke("My name is Ann."), ("user", "What is my name?")]
    assert responding().invoke(history).text


def test_structured_output() -> None:
    person = responding().with_structured_output(Person).invoke("Ann is 31 years old. Give her name and age.")
    assert isinstance(person, Person)


def test_a_tool_call_of_the_real_model() -> None:
    model = responding().bind_tools([weather], tool_choice="required")
    (call,) = model.invoke("What is the weather in Bern?").tool_calls
    assert call["name"] == "weather"
    assert set(call["args"]) == {"city"}
    streamed = None
    for chunk in model.stream("What is the weather in Bern?"):
        streamed = chunk if streamed is None else streamed + chunk
    assert [each["name"] for each in streamed.tool_calls] == ["weather"]


def test_a_whole_turn_with_a_tool() -> None:
    model = responding("agent").bind_tools([weather])
    called = model.invoke("Look.")
    (call,) = called.tool_calls
    result = {"role": "tool", "tool_call_id": call["id"], "content": "Rain."}
    assert model.invoke([("user", "Look."), called, result]).text == "Hello there."
