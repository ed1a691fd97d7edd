"""Servers that run as children of the gateway (the embedded models, litellm): who owns them, how workers find them.

One process owns them (the gateway itself, or the parent of its workers): `LocalModels`. A worker knows where they are
because its parent says so: `SharedModels`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypedDict

from gateway.config.types import Config, ProviderConfig
from gateway.providers.child import ChildProvider, ChildServer, Server
from gateway.providers.litellm_server import LitellmProvider, LitellmServer
from gateway.providers.local import LocalProvider, LocalServer
from gateway.providers.registry import OWN_PROCESS


class Kind(NamedTuple):
    """A dialect whose server is a child."""

    key: Callable[[ProviderConfig], str]  # providers with equal ones share a process
    label: Callable[[ProviderConfig], str]  # of the process in metrics
    server: Callable[[ProviderConfig], ChildServer]
    provider: Callable[[ProviderConfig, Server], ChildProvider]


KINDS: Mapping[str, Kind] = {
    "local": Kind(
        lambda config: config.name + json.dumps(dict(config.options), sort_keys=True),
        lambda config: f"model {config.name}",
        lambda config: LocalServer(config.options),
        LocalProvider,
    ),
    "litellm": Kind(lambda _: "", lambda _: "litellm", lambda _: LitellmServer(), LitellmProvider),
}


class LocalModels:
    """Starts a server for each distinct child that the providers in force need, and stops it when nobody uses it."""

    def __init__(self) -> None:
        self._servers: dict[str, ChildServer] = {}  # by dialect and key
        self._users: dict[str, int] = {}
        self._names: dict[str, str] = {}  # of the processes
        self._starting: set[asyncio.Task[None]] = set()

    def provider(self, config: ProviderConfig) -> ChildProvider:
        """A provider on a server that lives until the last provider on it is closed: a reload does not restart it."""
        provider = KINDS[config.dialect].provider(config, self.use(config))
        provider.on_close = lambda: self.release(config)
        return provider

    def use(self, config: ProviderConfig) -> ChildServer:
        """The server for this provider, started if need be. Each use ends in one `release`."""
        key = _key(config)
        if key not in self._servers:
            server = self._servers[key] = KINDS[config.dialect].server(config)
            self._names[key] = KINDS[config.dialect].label(config)
            task = asyncio.get_running_loop().create_task(server.start())
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)
        self._users[key] = self._users.get(key, 0) + 1
        self._servers[key].add(config)
        return self._servers[key]

    def find(self, config: ProviderConfig) -> ChildServer | None:
        """The server of this provider, where one is in use."""
        return self._servers.get(_key(config))

    async def release(self, config: ProviderConfig) -> None:
        key = _key(config)
        self._users[key] -= 1
        self._servers[key].remove(config)
        if self._users[key] == 0:
            del self._users[key]
            del self._names[key]
            await self._servers.pop(key).stop()

    def pids(self) -> dict[str, int]:
        """`gateway`: this process, which owns them. `model PROVIDER`, `litellm`: those that run."""
        return {"gateway": os.getpid()} | {
            self._names[key]: server.pid for key, server in self._servers.items() if server.pid
        }

    async def close(self) -> None:
        """Stops what is left."""
        await asyncio.gather(*(server.stop() for server in self._servers.values()))
        self._servers.clear()


class Address(TypedDict):
    """Where a worker finds a server."""

    base_url: str
    api_key: str
    ready: bool
    failure: str


def local_providers(config: Config) -> list[ProviderConfig]:
    return [p for p in config.providers.values() if p.dialect in OWN_PROCESS and not p.disabled]


def address(server: ChildServer) -> Address:
    return Address(base_url=server.base_url, api_key=server.api_key, ready=server.ready, failure=server.failure)


class SharedModels:
    """A worker's view of its parent's servers, by provider name."""

    def __init__(self) -> None:
        self._servers: dict[str, SharedServer] = {}

    def provider(self, config: ProviderConfig) -> ChildProvider:
        return KINDS[config.dialect].provider(config, self._server(config.name))

    def update(self, addresses: Mapping[str, Address]) -> None:
        for name, found in addresses.items():
            self._server(name).update(found)

    def _server(self, name: str) -> SharedServer:
        return self._servers.setdefault(name, SharedServer())


class SharedServer:
    """What `ChildProvider` needs of a server that another process runs."""

    def __init__(self) -> None:
        self.base_url = ""
        self.api_key = ""
        self.failure = ""
        self.ready = False
        self._settled = asyncio.Event()  # ready, or given up

    def update(self, found: Address) -> None:
        self.base_url, self.api_key, self.failure = found["base_url"], found["api_key"], found["failure"]
        self.ready = found["ready"]
        if self.ready or self.failure:
            self._settled.set()
        else:
            self._settled.clear()

    async def wait_ready(self, timeout: float) -> bool:  # noqa: ASYNC109 - as LocalServer has it
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._settled.wait()
        return self.ready


def _key(config: ProviderConfig) -> str:
    return f"{config.dialect} {KINDS[config.dialect].key(config)}"
