"""LlamaIndex's own default for servers like OpenAI's: completions, a prompt that is gone on with."""

from collections.abc import Callable

from llama_index.llms.openai_like import OpenAILike


def test_complete(llm: Callable[..., OpenAILike]) -> None:
    assert llm(is_chat_model=False).complete("Once upon a time").text


def test_stream(llm: Callable[..., OpenAILike]) -> None:
    parts = list(llm(is_chat_model=False).stream_complete("Once upon a time"))
    assert "".join(part.delta or "" for part in parts) == parts[-1].text != ""
