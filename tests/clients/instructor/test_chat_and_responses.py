"""What users of Instructor do: answers of a type, by tools and by JSON, whole and as they come."""

import os
from collections.abc import Iterator

import instructor
import openai
import pytest
from instructor import Mode
from pydantic import BaseModel, Field

MESSAGES = [{"role": "user", "content": "Ann is 31 years old. Give her name and age."}]


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=12)
    age: int = Field(le=99)


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=os.environ["GATEWAY_URL"], api_key=os.environ["GATEWAY_KEY"], timeout=120) as made:
        yield made


@pytest.mark.parametrize("mode", [Mode.TOOLS, Mode.JSON_SCHEMA, Mode.RESPONSES_TOOLS])
def test_an_answer_of_a_type(client: openai.OpenAI, mode: Mode) -> None:
    typed = instructor.from_openai(client, mode=mode)
    person, raw = typed.create_with_completion(
        model="auto", messages=MESSAGES, response_model=Person, max_tokens=100, temperature=0, max_retries=0
    )
    assert isinstance(person, Person)
    assert raw.usage.model_extra["cost"] > 0


@pytest.mark.parametrize("mode", [Mode.TOOLS, Mode.JSON_SCHEMA, Mode.RESPONSES_TOOLS])
def test_an_answer_of_a_type_as_it_comes(client: openai.OpenAI, mode: Mode) -> None:
    typed = instructor.from_openai(client, mode=mode)
    parts = list(
        typed.create_partial(
            model="auto", messages=MESSAGES, response_model=Person, max_tokens=100, temperature=0, max_retries=0
        )
    )
    assert len(parts) > 1
    assert Person.model_validate(parts[-1].model_dump())


def test_an_exhausted_route_is_not_taken_for_a_bad_answer(client: openai.OpenAI) -> None:
    typed = instructor.from_openai(client, mode=Mode.TOOLS)
    with pytest.raises(Exception, match="no upstream answered"):
        typed.create(model="broken-instructor", messages=MESSAGES, response_model=Person, max_retries=0)
