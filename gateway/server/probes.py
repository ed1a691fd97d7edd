"""Probes of replicas that are out of order, or that nobody has used for a while. One `Prober` runs on a machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.config.types import Config, ProviderConfig
from gateway.core.breaker import PROBE_LIMIT
from gateway.health import Health, Key
from gateway.providers.base import Provider
from gateway.providers.registry import OWN_PROCESS, PROVIDERS

LOOK_EVERY = 0.2  # seconds

log = logging.getLogger("gateway")


class Prober:
    """`provider_of`: the live provider of that name, None where there is none."""

    def __init__(self, health: Health, provider_of: Callable[[str], Provider | None]) -> None:
        self._health = health
        self._provider_of = provider_of
        self._probes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY)
                self._start()
        finally:
            for probe in self._probes:
                probe.cancel()
            await asyncio.gather(*self._probes, return_exceptions=True)

    def _start(self) -> None:
        """One probe speaks for all models on the same server."""
        by_provider: dict[str, list[Key]] = {}
        for key, provider in self._health.due():
            by_provider.setdefault(provider, []).append(key)
        for name, keys in by_provider.items():
            task = asyncio.get_running_loop().create_task(self._probe(name, keys))
            self._probes.add(task)
            task.add_done_callback(self._probes.discard)

    async def _probe(self, name: str, keys: list[Key]) -> None:
        provider = self._provider_of(name)
        alive = None if provider is None else await provider.alive(PROBE_LIMIT)
        for key in keys:
            self._health.probed(key, alive=alive)


class ProbeProviders:
    """Providers for a process that serves no calls. Each is made when it is first asked for."""

    def __init__(self, config: Config, make_local: Callable[[ProviderConfig], Provider]) -> None:
        self._config = config
        self._make_local = make_local
        self._made: dict[str, Provider] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def configure(self, config: Config) -> None:
        self._config = config
        made, self._made = self._made, {}
        for provider in made.values():
            task = asyncio.get_running_loop().create_task(provider.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def of(self, name: str) -> Provider | None:
        if name not in self._made:
            config = self._config.providers.get(name)
            if config is None or config.disabled:
                return None
            make = self._make_local if config.dialect in OWN_PROCESS else PROVIDERS[config.dialect]
            try:
                self._made[name] = make(config)
            except (OSError, ValueError) as error:  # as the workers were told in the same words
                log.warning("provider %s cannot be probed: %s", name, error)
                return None
        return self._made[name]

    async def close(self) -> None:
        for provider in self._made.values():
            await provider.close()
        await asyncio.gather(*self._closing, return_exceptions=True)
