"""Anthropic's Python SDK, unchanged but for its base URL. Started by tests/e2e/test_client_anthropic.py."""

import os
from collections.abc import Iterator

import pytest
from anthropic import Anthropic


@pytest.fixture
def client() -> Iterator[Anthropic]:
    base = os.environ["GATEWAY_URL"].removesuffix("/v1")
    with Anthropic(base_url=base, api_key=os.environ["GATEWAY_KEY"], timeout=60) as made:
        yield made
