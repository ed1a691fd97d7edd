"""The bound on a call's input never falls below what real tokenizers make of it; and how far off it is.

.venv/bin/python -m pytest tests/full/test_input_bound.py -m "full or not full" -s      prints the figures

A text's tokens are counted with the model's own tables, and again by llama.cpp for SmolLM2 and Gemma: by its
`/tokenize`, and by the `prompt_tokens` of chats, which include what the template adds.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.call import Call, Endpoint, parse
from gateway.core.ceiling import TEMPLATE_TOKENS, input_bound
from gateway.core.rules import Model, Target, Timeouts
from gateway.providers import local
from gateway.providers.local import LocalServer
from gateway.wire import CODEC
from tests.full.corpus import corpus
from tests.full.vocabularies import Count, carried, gemma, installed

CORPUS = corpus()
TARGET = Target(Model("m", "p", "m"), "m", None, Timeouts(), fallback=False, why="")
TOOL = {
    "type": "function",
    "function": {
        "name": "wetter",
        "description": "Das Wetter für einen Ort, 天気",
        "parameters": {"type": "object", "properties": {"ort": {"type": "string"}}, "required": ["ort"]},
    },
}


def chat(messages: Iterable[tuple[str, str]], *, escaped: bool = False, **more: Any) -> Call:
    said = [{"role": role, "content": text} for role, text in messages]
    body = {"model": "m", "messages": said, "max_tokens": 1, **more}
    written = json.dumps(body, ensure_ascii=escaped, separators=(",", ":")).encode()
    return parse(Endpoint.CHAT, [], written, CODEC)


def calls(text: str) -> list[Call]:
    """The text in each endpoint's body, and in both ways to write JSON."""
    made = [chat([("user", text)], escaped=escaped) for escaped in (False, True)]
    for endpoint, member in ((Endpoint.COMPLETIONS, "prompt"), (Endpoint.EMBEDDINGS, "input")):
        body = json.dumps({"model": "m", member: text}, ensure_ascii=False).encode()
        made.append(parse(endpoint, [], body, CODEC))
    return made


def check(text: str, tokens: int) -> None:
    """What is there for the template is not needed for the text."""
    for call in calls(text):
        assert tokens <= input_bound(call, TARGET) - TEMPLATE_TOKENS, text[:80]


class Off(NamedTuple):
    """What is said of one text, by what is true."""

    bound: float
    estimate: float


def off(text: str, tokens: int) -> Off:
    call = chat([("user", text)])
    return Off(input_bound(call, TARGET) / tokens, call.estimated_input / tokens)


def table(counts: dict[str, Count]) -> str:
    lines = ["| kind of text | bound, mean | worst | estimate, mean | lowest | highest |", "|---|---|---|---|---|---|"]
    for kind, texts in CORPUS.items():
        found = [off(text, count(text)) for count in counts.values() for text in texts]
        bounds, estimates = [each.bound for each in found], [each.estimate for each in found]
        figures = (mean(bounds), max(bounds), mean(estimates), min(estimates), max(estimates))
        lines.append(f"| {kind} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |")
    return "\n".join([f"\n{', '.join(counts)}: by how much a text's true tokens are multiplied", *lines])


@pytest.fixture(scope="module")
def tables() -> dict[str, Count]:
    return carried()


def check_all(counts: dict[str, Count]) -> None:
    for count in counts.values():
        for texts in CORPUS.values():
            for text in texts:
                check(text, count(text))
    print(table(counts))


def test_tables_that_litellm_carries(tables: dict[str, Count]) -> None:
    check_all(tables)


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_text(tables: dict[str, Count], text: str) -> None:
    for count in tables.values():
        check(text, count(text))


@pytest.mark.full
def test_tables_of_open_models() -> None:
    check_all(installed())


class Server:
    """llama.cpp, asked what it counts."""

    def __init__(self, server: LocalServer, client: httpx.AsyncClient) -> None:
        self._root = server.base_url.removesuffix("/v1")
        self._client = client
        self._headers = {"authorization": f"Bearer {server.api_key}"}

    async def tokens(self, text: str) -> int:
        """The larger of both readings of what looks like a special token, with the one that begins a text."""
        sizes = []
        for special in (False, True):
            body = {"content": text, "add_special": True, "parse_special": special}
            sizes.append(len((await self._post("/tokenize", json.dumps(body).encode()))["tokens"]))
        return max(sizes)

    async def billed(self, call: Call) -> int:
        return int((await self._post("/v1/chat/completions", call.body))["usage"]["prompt_tokens"])

    async def _post(self, path: str, body: bytes) -> Any:
        headers = {**self._headers, "content-type": "application/json"}
        answer = await self._client.post(f"{self._root}{path}", content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


def served(ask: Callable[[Server], Awaitable[None]]) -> None:
    async def main() -> None:
        # One thread: where the machine is busy, several wait for each other longer than they work.
        server = LocalServer({"threads": 1, "context": 4096, "parallel": 1})
        await server.start()
        try:
            assert await server.wait_ready(60), server.failure
            async with httpx.AsyncClient(trust_env=False, timeout=120) as client:
                await ask(Server(server, client))
        finally:
            await server.stop()

    asyncio.run(main())


def excerpts(length: int) -> list[str]:
    """The beginning of one text of each kind."""
    return [texts[-1][:length] for texts in CORPUS.values()]


def chats(length: int, *, every: int) -> list[Call]:
    """What a template adds matters most where there is little else: short messages, and many of them.

    `every`: how many of the excerpts are passed over, and one.
    """
    turns = [("user" if number % 2 == 0 else "assistant", "x") for number in range(31)]
    alone = [chat([("user", text)], escaped=escaped) for text in excerpts(length) for escaped in (False, True)]
    history = chat([("system", "Sei höflich. 丁寧に。"), *turns])
    return [chat([("user", "")]), chat([("user", "x")]), chat(turns), history, *alone[::every]]


async def check_served(server: Server, name: str, asked: Iterable[Call]) -> None:
    texts = {kind: [(text, await server.tokens(text)) for text in found] for kind, found in CORPUS.items()}
    for text, tokens in (each for found in texts.values() for each in found):
        check(text, tokens - 1)  # but for the token that begins a text, which is the template's
    known = {text: tokens for found in texts.values() for text, tokens in found}
    print(table({name: known.__getitem__}))
    ratios = []
    for call in asked:
        billed = await server.billed(call)
        bound = input_bound(call, TARGET)
        assert billed <= bound, call.body[:200]
        ratios.append(bound / billed)
    print(f"{name}, {len(ratios)} chats as billed: bound / prompt_tokens {mean(ratios):.2f}, at most {max(ratios):.2f}")


def test_smollm2_as_served_in_short() -> None:
    served(lambda server: check_served(server, "SmolLM2", chats(20, every=5)))


@pytest.mark.full
def test_smollm2_as_served() -> None:
    served(lambda server: check_served(server, "SmolLM2", chats(100, every=1)))


@pytest.mark.full
def test_gemma_as_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = gemma(tmp_path / "gemma.gguf")
    monkeypatch.setattr(local, "weights", lambda: weights)
    served(lambda server: check_served(server, "Gemma 3", chats(100, every=1)))
    weights.unlink()


@pytest.mark.full
def test_tools_as_served() -> None:
    async def ask(server: Server) -> None:
        for escaped in (False, True):
            for count in (1, 5):
                call = chat([("user", "Wie ist das Wetter in Köln?")], escaped=escaped, tools=[TOOL] * count)
                assert await server.billed(call) <= input_bound(call, TARGET)

    served(ask)
