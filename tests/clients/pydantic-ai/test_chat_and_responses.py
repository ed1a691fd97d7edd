"""What users of Pydantic AI do, by chat and by responses, of which the embedded model's server is asked the first."""

import pytest
from conftest import Make, Person
from pydantic_ai import Agent, ModelHTTPError, ModelRetry, NativeOutput, ToolOutput
from pydantic_ai.settings import ModelSettings

BRIEF = ModelSettings(max_tokens=20, temperature=0)
LONGER = ModelSettings(max_tokens=120, temperature=0)


def test_run(model: Make) -> None:
    result = Agent(model(), instructions="Be brief.", model_settings=BRIEF).run_sync("Say hello.")
    assert result.output
    assert result.usage.input_tokens > 0
    assert 0 < result.usage.output_tokens <= 20
    assert result.usage.requests == 1


def test_stream(model: Make) -> None:
    result = Agent(model(), model_settings=BRIEF).run_stream_sync("Say hello.")
    deltas = list(result.stream_text(delta=True, debounce_by=None))
    assert "".join(deltas)
    assert len(deltas) > 1
    assert 0 < result.usage.output_tokens <= 20


def test_conversation(model: Make) -> None:
    agent = Agent(model(), model_settings=BRIEF)
    first = agent.run_sync("My name is Ann.")
    second = agent.run_sync("What is my name?", message_history=first.all_messages())
    assert second.output
    assert second.usage.input_tokens > first.usage.input_tokens


def test_native_output(model: Make) -> None:
    """A JSON schema, which the model's server obeys."""
    agent = Agent(model(), output_type=NativeOutput(Person), model_settings=LONGER)
    assert isinstance(agent.run_sync("Ann is 31 years old. Give her name and age.").output, Person)


def test_output_by_a_tool(model: Make) -> None:
    """Pydantic AI's own way: a call of the real model."""
    agent = Agent(model(), output_type=ToolOutput(Person), model_settings=LONGER)
    result = agent.run_sync("Ann is 31 years old. Give her name and age.")
    assert isinstance(result.output, Person)
    assert result.usage.requests == 1


def test_output_by_a_tool_streamed(model: Make) -> None:
    agent = Agent(model(), output_type=ToolOutput(Person), model_settings=LONGER)
    result = agent.run_stream_sync("Ann is 31 years old. Give her name and age.")
    assert isinstance(result.get_output(), Person)


def test_a_whole_turn_with_a_tool(model: Make) -> None:
    """A scripted upstream, which calls once and then answers."""
    agent = Agent(model("agent"))
    asked = []

    @agent.tool_plain
    def look(a: int) -> str:
        """Looks something up."""
        asked.append(a)
        return "42"

    result = agent.run_sync("Look.")
    assert (asked, result.output) == ([1], "Hello there.")
    assert result.usage.requests == 2


def test_a_tool_that_asks_for_another_try(model: Make) -> None:
    agent = Agent(model("agent"))

    @agent.tool_plain(retries=1)
    def look(a: int) -> str:
        """Looks something up."""
        raise ModelRetry(f"{a} is too small")

    result = agent.run_sync("Look.")
    assert result.output == "Hello there."
    assert "1 is too small" in str(result.all_messages())


def test_errors(model: Make) -> None:
    with pytest.raises(ModelHTTPError, match="smollm2") as missing:
        Agent(model("smollm")).run_sync("Hi")
    assert missing.value.status_code == 404
    assert missing.value.body["code"] == "model_not_found"
    with pytest.raises(ModelHTTPError) as broken:
        Agent(model("broken-pydantic-ai")).run_sync("Hi")
    assert broken.value.status_code == 502
    assert broken.value.__cause__.response.request.headers["x-stainless-retry-count"] == "0", "asked once"


def test_a_stream_that_breaks_raises(model: Make) -> None:
    with pytest.raises(Exception, match="broke off"):
        Agent(model("cut")).run_stream_sync("Hi").get_output()
