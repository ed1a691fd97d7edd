"""`endpoints:` of a model: replicas or regions of it, each reached like its provider, at an address of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from gateway.config import schema
from gateway.config.fields import OFF
from gateway.config.interpolate import Missing
from gateway.config.problems import Warned
from gateway.config.types import ProviderConfig
from gateway.core.dialects import dialect_at
from gateway.core.rules import Replica

_PORTS = {"http": 80, "https": 443}


class Endpoint(NamedTuple):
    replica: Replica
    provider: ProviderConfig  # `disabled` says why it sleeps


def read_endpoints(file: schema.RoutesFile, providers: Mapping[str, ProviderConfig]) -> dict[str, tuple[Endpoint, ...]]:
    """By model, of those that have any. `providers`: what the file's providers became."""
    return {
        name: _endpoints(name, model, file.providers[model.provider], providers[model.provider])
        for name, model in file.models.items()
        if model.endpoints is not None
    }


def _endpoints(
    name: str, model: schema.Model, written: schema.Provider, provider: ProviderConfig
) -> tuple[Endpoint, ...]:
    found = []
    given = model.endpoints or ()
    for each, called in zip(given, replica_names([each.url for each in given]), strict=True):
        api_key = written.api_key if each.api_key is None else each.api_key
        of_its_own = provider._replace(
            name=provider_name(name, called),
            base_url=str(each.url),
            api_key=str(api_key or ""),
            metrics=str(each.metrics or (OFF if written.metrics == OFF else "")),
            server=provider.server or dialect_at(str(each.url)),
            disabled=asleep(written, each.url, api_key) or ("" if each.url else "its url is empty"),
        )
        found.append(Endpoint(Replica(called, float(each.weight), of_its_own.name), of_its_own))
    return tuple(found)


def as_one(provider: ProviderConfig, endpoints: Sequence[Endpoint]) -> ProviderConfig:
    """What a model's provider amounts to: with endpoints it is awake while one of them is."""
    if not endpoints:
        return provider
    awake = [each.provider for each in endpoints if not each.provider.disabled]
    why = "" if awake else f"all its endpoints sleep: {endpoints[0].provider.disabled}"
    return (awake or [endpoints[0].provider])[0]._replace(name=provider.name, disabled=why)


def replicas_of(endpoints: Sequence[Endpoint]) -> tuple[Replica, ...]:
    """Those that are awake; never none."""
    return tuple(each.replica for each in endpoints if not each.provider.disabled) or (Replica(),)


def sleeping(
    file: schema.RoutesFile, providers: Mapping[str, ProviderConfig], endpoints: Mapping[str, Sequence[Endpoint]]
) -> Iterator[str]:
    """Warnings. A provider sleeps unnoticed where all its models have endpoints."""
    users: dict[str, list[str]] = {}
    for name, model in file.models.items():
        users.setdefault(model.provider, []).append(name)
    for provider in providers.values():
        models = users.get(provider.name, [])
        if provider.disabled and not (models and all(name in endpoints for name in models)):
            text = f"provider {provider.name} is disabled: {provider.disabled}"
            yield Warned(text, "credentials", provider.name)
    for name, of_model in endpoints.items():
        for replica, provider in of_model:
            if provider.disabled:
                text = f"endpoint {replica.name} of model {name} is disabled: {provider.disabled}"
                yield Warned(text, "credentials", provider.name)


def asleep(provider: schema.Provider, base_url: str | None, api_key: str | None) -> str:
    """Why a provider cannot be used at this address with this key; empty where it can."""
    texts = (
        base_url,
        api_key,
        provider.ca_file,
        *(provider.headers or {}).values(),
        *(provider.options or {}).values(),
    )
    return next((text.why for text in texts if isinstance(text, Missing)), "")


def provider_name(model: str, replica: str) -> str:
    """The key of an endpoint's provider among the live ones."""
    return f"{model}@{replica}"


def replica_names(urls: Sequence[str]) -> list[str]:
    """host:port, with the path where two would be equal. What has no address yet goes by its number."""
    places = [place(url) for url in urls]
    hosts = Counter(host for host, _ in places)
    return [
        (host + path if hosts[host] > 1 else host) if host else f"number {number}"
        for number, (host, path) in enumerate(places, 1)
    ]


def place(url: str) -> tuple[str, str]:
    """(host:port, path) in one spelling; empty for an empty URL. Raises ValueError for what is none."""
    if not url:
        return "", ""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{f'[{host}]' if ':' in host else host}:{parts.port or _PORTS.get(parts.scheme, 0)}", parts.path.rstrip("/")
