"""Every dialect of upstream, by the name that `dialect:` has in routes.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.config.types import ProviderConfig
from gateway.providers.base import Provider
from gateway.providers.litellm_server import LitellmProvider
from gateway.providers.local import LocalProvider
from gateway.providers.openai import OpenAIProvider

PROVIDERS: Mapping[str, Callable[[ProviderConfig], Provider]] = {
    "openai": OpenAIProvider,  # any server that speaks OpenAI's API
    "litellm": LitellmProvider,  # others, through litellm in a process of its own
    "local": LocalProvider,  # the embedded open model
}

OWN_PROCESS = frozenset({"litellm", "local"})  # dialects whose server is a child of the gateway: `child.py`
