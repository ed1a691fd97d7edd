"""Every dialect's usage object -> Usage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Usage(NamedTuple):
    """Tokens by type. The types are disjoint and sum to what was billed.

    `input` excludes cached and cache-write tokens, `output` is visible output and excludes `reasoning`.
    """

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    estimated: bool = False  # the upstream reported none; counted by us

    @property
    def total_input(self) -> int:
        return self.input + self.cached_input + self.cache_write

    @property
    def total_output(self) -> int:
        return self.output + self.reasoning


def read_usage(reported: Mapping[str, Any]) -> Usage | None:
    """Normalises a provider's usage object; None where it holds no count at all (an explicit zero is a count).

    Knows the names of OpenAI (chat, completions, embeddings, responses), DeepSeek, Moonshot, Anthropic, Gemini's
    OpenAI endpoint and llama.cpp. Sources stand beside each rule.
    """
    raise NotImplementedError


def estimate_tokens(characters: int) -> int:
    """A rough count for text of a length, used only where an upstream reports no usage; always marked `estimated`."""
    raise NotImplementedError
