"""Gemma 3, served by llama.cpp, at every endpoint of text. It is a base model: what it says is no matter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.full.vocabularies import gemma
from tests.real import TALK, talks
from tests.servers import Gateway
from tests.tool_model import tool_model

pytestmark = pytest.mark.full
ROUTES = """
version: 1
providers:
  translated: {base_url: "@BASE@", server: llamacpp}
  native: {base_url: "@BASE@", server: llamacpp, apis: [chat, messages, responses]}
models:
  translated: {provider: translated, model: answer, hosting: self, price: unmetered}
  native: {provider: native, model: answer, hosting: self, price: unmetered}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gemma")
    with (
        tool_model("answer", gemma(folder / "gemma.gguf")) as base,
        Gateway(folder, ROUTES.replace("@BASE@", base)) as running,
    ):
        yield running


@pytest.mark.compatible(endpoint="{endpoint}", system="gemma")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("endpoint", TALK)
def test_text(gateway: Gateway, endpoint: str, stream: bool) -> None:
    talks(gateway, "translated", endpoint, stream=stream)


@pytest.mark.compatible(endpoint="{endpoint}", system="gemma-native")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("endpoint", ["/messages", "/responses"])
def test_text_by_its_own_api(gateway: Gateway, endpoint: str, stream: bool) -> None:
    talks(gateway, "native", endpoint, stream=stream)
