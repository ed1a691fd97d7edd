"""An index in memory on vectors of the embedded model."""

from conftest import AT
from llama_index.core import Document, VectorStoreIndex
from llama_index.embeddings.openai_like import OpenAILikeEmbedding


def test_embeddings_of_an_index() -> None:
    embedding = OpenAILikeEmbedding(model_name="smollm2", **AT)
    assert len(embedding.get_text_embedding("Hello.")) == 576
    texts = ["The cat sleeps on the sofa.", "Paris is the capital of France."]
    index = VectorStoreIndex.from_documents([Document(text=text) for text in texts], embed_model=embedding)
    (found,) = index.as_retriever(similarity_top_k=1).retrieve(texts[1])
    assert found.text == texts[1]
