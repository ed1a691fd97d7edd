"""LangChain, unchanged but for its base URL. Started by tests/e2e/test_python_clients.py, which says where."""

import os
from pathlib import Path

import pytest
from langchain_openai import ChatOpenAI

AT = {"base_url": os.environ["GATEWAY_URL"], "api_key": os.environ["GATEWAY_KEY"], "max_retries": 0, "timeout": 120}


@pytest.fixture
def model() -> ChatOpenAI:
    return ChatOpenAI(model="auto", temperature=0, max_tokens=20, stream_usage=True, **AT)


@pytest.fixture
def vcr_cassette_dir(tmp_path: Path) -> str:
    """One standard test replays what it finds recorded. Here it finds nothing, and asks the gateway."""
    return str(tmp_path)
