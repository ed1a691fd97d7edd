"""The official Python SDK, unchanged but for its base URL. Started by tests/e2e/test_clients.py, which says where."""

import os
from collections.abc import Iterator

import pytest
from openai import OpenAI


@pytest.fixture
def client() -> Iterator[OpenAI]:
    with OpenAI(base_url=os.environ["GATEWAY_URL"], api_key=os.environ["GATEWAY_KEY"], timeout=60) as made:
        yield made
