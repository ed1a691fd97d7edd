"""Vectors of the embedded model."""

from conftest import PROVIDER
from pydantic_ai import Embedder
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel


def test_embeddings() -> None:
    embedder = Embedder(OpenAIEmbeddingModel("smollm2", provider=PROVIDER))
    result = embedder.embed_documents_sync(["one", "two"])
    assert [len(vector) for vector in result.embeddings] == [576, 576]
    assert result.usage.input_tokens > 0
    assert len(embedder.embed_query_sync("one").embeddings) == 1
