"""Whose account a request is for, in each provider's words."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from urllib.parse import urlsplit

from gateway.config.types import ProviderConfig
from gateway.core.traces import Header

_ANTHROPIC = "api.anthropic.com"
# Anthropic's own API wants its version with each request, and takes no key as a bearer's token, which it says are
# another kind of account: platform.claude.com/docs/en/api/overview, obsidianmd/obsidian-clipper#243 (read 2026-11-26).
_VERSION = (b"anthropic-version", b"2023-06-01")


def key_headers(config: ProviderConfig) -> Mapping[str, str]:
    """As OpenAI's API has it; Azure's where the provider has an `api_version`."""
    if not config.api_key:
        return {}
    if config.options.get("api_version", ""):
        return {"api-key": config.api_key}
    return {"authorization": f"Bearer {config.api_key}"}


def is_anthropics(config: ProviderConfig) -> bool:
    return urlsplit(config.base_url).hostname == _ANTHROPIC


def as_anthropics(headers: Sequence[Header], config: ProviderConfig, given: Container[str] = ()) -> list[Header]:
    """The same for Anthropic's own API. A configured header wins, and so does a version that is `given` otherwise."""
    key = (b"authorization", f"Bearer {config.api_key}".encode())
    made = [each for each in headers if each != key]
    names = {name for name, _ in made}
    if config.api_key and b"x-api-key" not in names:
        made.append((b"x-api-key", config.api_key.encode()))
    if _VERSION[0] not in names and _VERSION[0].decode() not in given:
        made.append(_VERSION)
    return made
