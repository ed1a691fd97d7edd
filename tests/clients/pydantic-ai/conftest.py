"""Pydantic AI, unchanged but for its base URL. Started by tests/e2e/test_python_clients.py, which says where."""

import os
from collections.abc import Callable

import pytest
from pydantic import BaseModel, Field
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

MAKERS = {"chat": OpenAIChatModel, "responses": OpenAIResponsesModel}
PROVIDER = OpenAICompatibleProvider("gateway", base_url=os.environ["GATEWAY_URL"], api_key=os.environ["GATEWAY_KEY"])
Make = Callable[..., OpenAIChatModel | OpenAIResponsesModel]


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=12)
    age: int = Field(le=99)


@pytest.fixture(params=MAKERS)
def model(request: pytest.FixtureRequest) -> Make:
    """Makes a model of a name: by chat, and by responses."""
    return lambda name="auto": MAKERS[request.param](name, provider=PROVIDER)
