"""LangChain's own standard tests of a chat model, whole: `auto` is SmolLM2, behind a template with tools where it must.

What is left out says why. The suite lets a test be replaced only by one that is expected to fail.
"""

from typing import Any

import pytest
from conftest import AT
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class TestChatOpenAI(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # `stream_usage`: LangChain asks for a stream's usage by itself only where the base URL is OpenAI's.
        return {"model": "auto", "temperature": 0, "max_tokens": 200, "stream_usage": True, **AT}

    @property
    def model_override_value(self) -> str:
        return "smollm2"

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def enable_vcr_tests(self) -> bool:
        return True

    # The model reads text and nothing else: LangChain skips its tests of what these say.

    @property
    def supports_image_inputs(self) -> bool:
        return False

    @property
    def supports_image_tool_message(self) -> bool:
        return False

    @property
    def supports_pdf_inputs(self) -> bool:
        return False

    @property
    def supports_pdf_tool_message(self) -> bool:
        return False

    @property
    def supports_audio_inputs(self) -> bool:
        return False

    @property
    def supports_anthropic_inputs(self) -> bool:
        return False

    @pytest.mark.xfail(reason="SmolLM2-135M answers in JSON, but not with the keys that the prompt asks for")
    def test_json_mode(self, model: BaseChatModel) -> None:
        super().test_json_mode(model)
