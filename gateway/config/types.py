"""What a routes.yaml becomes: plain frozen data, from which the runtime is built."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gateway.core.call import Principal
from gateway.core.routing import Rules


class ProviderConfig(NamedTuple):
    """An entry under `providers:`. Secrets in here are never printed: mind the repr."""

    name: str
    dialect: str  # a name in PROVIDERS: "openai" | "litellm" | "local"
    base_url: str  # without a trailing slash; empty for "local", and for "litellm" where its usual one is meant
    api_key: str  # empty: none is sent
    headers: Mapping[str, str] = {}
    ca_file: str = ""
    proxy: str = ""
    apis: frozenset[str] = frozenset({"chat"})  # that the server has: chat, messages, count_tokens, responses
    metrics: str = ""  # "off", or the URL of the server's own metrics; empty: /metrics beside the API's /v1
    options: Mapping[str, object] = {}  # of "local" and "litellm": {"threads": 2}, {"litellm_provider": "bedrock", ...}
    disabled: str = ""
    server: str = ""  # what it is known to be: a name in `core.dialects`
    passthrough: tuple[str, ...] = ()  # paths below /v1 that go to it as they are; globs

    def __repr__(self) -> str:
        return f"ProviderConfig({self.name!r}, {self.dialect!r}, {self.base_url!r})"


class Key(NamedTuple):
    sha256: bytes  # 32 bytes, of the key's UTF-8 value
    principal: Principal
    expires: datetime.datetime | None  # aware


class Webhook(NamedTuple):
    url: str
    secret: str  # empty: deliveries are not signed
    events: frozenset[str]  # budget_threshold | breaker_opened | config_rejected

    def __repr__(self) -> str:
        return f"Webhook({sorted(self.events)})"


class Config(NamedTuple):
    path: Path
    hash: str  # 12 hex digits of the SHA-256 of the file's bytes and of the environment values it reads
    providers: Mapping[str, ProviderConfig]
    rules: Rules
    keys_declared: bool  # a `keys:` section exists: nobody is anonymous, even if every value is missing
    keys: tuple[Key, ...]
    ledger: str  # DSN with an absolute path: "sqlite:////var/lib/gateway/gateway.db"
    on_full: str  # "reject" | "drop"
    warnings: tuple[str, ...]  # what is disabled and why, unpriced models, ...; no secrets
    price_book: str  # its name and date
    teams: frozenset[str]  # every team a key names: the label values metrics may show
    cache: str = ""  # DSN as of the ledger: answers that may be given again
    counters: str = ""  # DSN as of the ledger: budgets, created keys, the audit trail
    webhooks: tuple[Webhook, ...] = ()
    notices: tuple[str, ...] = ()  # what is as it was asked for, and should be known: content that is stored
