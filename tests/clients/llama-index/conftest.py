"""LlamaIndex, unchanged but for its base URL. Started by tests/e2e/test_python_clients.py, which says where."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.llms.openai_like import OpenAILike

AT = {"api_base": os.environ["GATEWAY_URL"], "api_key": os.environ["GATEWAY_KEY"], "max_retries": 0, "timeout": 120}


@pytest.fixture
def llm() -> Callable[..., OpenAILike]:
    """Makes a model of a name."""

    def make(name: str = "auto", **more: Any) -> OpenAILike:
        given = {"is_chat_model": True, "is_function_calling_model": True, "context_window": 2048, **AT, **more}
        return OpenAILike(model=name, temperature=0, **{"max_tokens": 20, **given})

    return make
