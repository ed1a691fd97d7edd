"""LangChain's own standard tests of embeddings, on the embedded model's, and its lists of tokens in place of text."""

from typing import Any

from conftest import AT
from langchain_openai import OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests


class TestOpenAIEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[OpenAIEmbeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        # Without it LangChain sends OpenAI's token numbers in place of text, which mean something else to other models.
        return {"model": "smollm2", "check_embedding_ctx_length": False, **AT}
