"""Providers that speak neither OpenAI's API nor Anthropic's, through litellm in a child process (`litellm.py`).

One process serves all `dialect: litellm` providers of a gateway and all its workers: litellm takes seconds of CPU and
some 200 MB to import, and shares nothing with the hot path here. It starts with the gateway, or with the reload that
brings the first such provider, in the background; until it serves, its providers fail with `connect`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from gateway.config.types import ProviderConfig
from gateway.errors import UpstreamFailure
from gateway.providers.base import REFUSAL_LIMIT, Attempt, Upstream
from gateway.providers.child import ChildProvider, ChildServer, Server
from gateway.providers.litellm_calls import ACCOUNT, FAILURE
from gateway.providers.openai import OpenAIProvider
from gateway.views import read_error

# What of our environment reaches litellm: the way out, and who we are to the clouds whose SDKs look it up themselves.
# Keys of APIs do not, since litellm would use them where the configuration names none.
_NAMES = frozenset(
    {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    | {"http_proxy", "https_proxy", "no_proxy", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"}
    | {"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"}
    | {"AZURE_AUTHORITY_HOST"}
)


class LitellmServer(ChildServer):
    what = "the litellm process"
    log = logging.getLogger("gateway.litellm")
    module = "gateway.providers.litellm"
    load_seconds = 300.0  # to import litellm: 4 to 8 s of a free core

    def __init__(self) -> None:
        super().__init__()
        self._accounts: dict[str, tuple[Mapping[str, Any], int]] = {}  # by id; and how many use it

    def first_line(self) -> Mapping[str, Any]:
        return {"accounts": [account for account, _ in self._accounts.values()]}

    def environment(self) -> Mapping[str, str]:
        ours = {name: value for name, value in os.environ.items() if name in _NAMES or name.startswith("AWS_")}
        return {**super().environment(), **ours}

    def add(self, config: ProviderConfig) -> None:
        account = account_of(config)
        _, users = self._accounts.get(account["id"], (account, 0))
        self._accounts[account["id"]] = (account, users + 1)
        if users == 0:
            self.tell({"add": account})

    def remove(self, config: ProviderConfig) -> None:
        account = account_of(config)
        _, users = self._accounts.pop(account["id"])
        if users > 1:
            self._accounts[account["id"]] = (account, users - 1)
        else:
            self.tell({"remove": account["id"]})


class LitellmProvider(ChildProvider):
    """Implements `gateway.providers.base.Provider`."""

    what = "the litellm process"

    def __init__(self, config: ProviderConfig, server: Server | None = None) -> None:
        self._account = str(account_of(config)["id"])
        super().__init__(config._replace(base_url="", api_key=""), server)

    def reached(self, config: ProviderConfig) -> OpenAIProvider:
        inner = config._replace(headers={ACCOUNT: self._account}, ca_file="", options={})
        return OpenAIProvider(inner, max_idle=self.max_idle)

    async def open(self, attempt: Attempt) -> Upstream:
        upstream = await super().open(attempt)
        kind = upstream.headers.get(FAILURE)
        if kind is None:
            return upstream
        try:
            raise UpstreamFailure(kind, read_error(await upstream.read(REFUSAL_LIMIT)).message)
        finally:
            upstream.close()


def account_of(config: ProviderConfig) -> dict[str, Any]:
    """What litellm is told of a provider. Its id changes with any of it: old calls keep what they began with."""
    account = {
        "provider": str(config.options.get("litellm_provider", "")),
        "api_key": config.api_key,
        "base_url": config.base_url,
        "headers": dict(config.headers),
        "options": {name: value for name, value in config.options.items() if name != "litellm_provider"},
    }
    digest = hashlib.sha256(json.dumps([config.name, account], sort_keys=True).encode())
    return {"id": f"{config.name}-{digest.hexdigest()[:16]}", **account}
