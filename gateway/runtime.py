"""Config -> Runtime: the one place where concrete parts are put together; swapped whole on reload, drained behind."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from gateway.config.types import Config, ProviderConfig
from gateway.dispatch import Shared
from gateway.engine import Engine, Parts
from gateway.errors import ConfigError
from gateway.providers.base import Passing, Provider
from gateway.providers.passing import PassingProvider
from gateway.providers.registry import OWN_PROCESS, PROVIDERS
from gateway.stores.base import Ledger
from gateway.stores.registry import open_ledger
from gateway.telemetry.events import ConfigReloaded

log = logging.getLogger("gateway")

MakeProvider = Callable[[ProviderConfig], Provider]


class Runtime:
    """Everything made from one Config. A call holds on to the one it began with."""

    def __init__(
        self,
        config: Config,
        providers: Mapping[str, Provider],
        engine: Engine,
        ledger: Ledger,
        passing: Mapping[str, Passing],
    ) -> None:
        self.config = config
        self.passing = passing
        self.providers = providers
        self.engine = engine
        self.ledger = ledger
        self.created = int(time.time())
        self.calls = 0
        self.idle = asyncio.Event()  # set once it is retired and its last call has ended
        self.retired = False


class Gateway:
    """Holds the runtime in force. `enter` and `leave` frame every call, so that a reload can drain the old one."""

    def __init__(self, config: Config, make_local: MakeProvider, shared: Shared) -> None:
        self._make_local = make_local
        self._shared = shared
        shared.admission.configure(config.rules.models)
        self._retiring: set[asyncio.Task[None]] = set()
        self._rejected = False  # the file, when it was last read
        self.runtime = self._build(config, open_ledger(config.ledger, config.on_full))

    def enter(self) -> Runtime:
        runtime = self.runtime
        runtime.calls += 1
        return runtime

    def leave(self, runtime: Runtime) -> None:
        runtime.calls -= 1
        if runtime.retired and runtime.calls == 0:
            runtime.idle.set()

    @property
    def ledger(self) -> Ledger:
        return self.runtime.ledger

    def swap(self, config: Config) -> None:
        """Puts a new configuration in force for the next request; the old runtime closes after its last call.

        Raises what building raises; nothing has changed then.
        """
        old = self.runtime
        same_ledger = (config.ledger, config.on_full) == (old.config.ledger, old.config.on_full)
        ledger = old.ledger if same_ledger else open_ledger(config.ledger, config.on_full)
        if config.counters != old.config.counters:
            log.warning("stores.counters: the budgets stay where they are until the gateway is started again")
        self.runtime = self._build(config, ledger)
        self._shared.admission.configure(config.rules.models)
        self._retire(old, close_ledger=not same_ledger)

    def reload(self, load: Callable[[], Config]) -> ConfigReloaded | None:
        """Loads, and swaps if the content changed (None: it had not). A bad file changes nothing.

        Whoever asked tells of it, once. A file that is put back after a bad one is told of too, though it is in force
        already: all is well again.
        """
        in_force = self.runtime.config.hash
        try:
            config = load()
            if config.hash == in_force:
                again, self._rejected = self._rejected, False
                return ConfigReloaded("ok", in_force) if again else None
            self.swap(config)
        except (ConfigError, OSError, ValueError) as error:
            self._rejected = True
            return ConfigReloaded("rejected", in_force, str(error))
        self._rejected = False
        return ConfigReloaded("ok", config.hash)

    async def close(self) -> None:
        """Waits for retiring runtimes, closes providers, settles the budgets, flushes and closes the ledger."""
        for task in list(self._retiring):
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await _close_providers(self.runtime)
        await self._shared.spending.close()
        await self._shared.answers.close()
        await self.runtime.ledger.close()

    def _build(self, config: Config, ledger: Ledger) -> Runtime:
        providers: dict[str, Provider] = {}
        for name, provider in config.providers.items():
            if not provider.disabled:
                make = self._make_local if provider.dialect in OWN_PROCESS else PROVIDERS[provider.dialect]
                providers[name] = make(provider)
        passing = {
            name: PassingProvider(provider)
            for name, provider in config.providers.items()
            if provider.passthrough and not provider.disabled
        }
        engine = Engine(Parts(config, providers, ledger, self._shared, passing))
        return Runtime(config, providers, engine, ledger, passing)

    def _retire(self, runtime: Runtime, *, close_ledger: bool) -> None:
        async def drain() -> None:
            runtime.retired = True
            try:
                if runtime.calls:
                    await runtime.idle.wait()
            finally:
                await _close_providers(runtime)
                if close_ledger:
                    await runtime.ledger.close()

        task = asyncio.get_running_loop().create_task(drain())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


async def _close_providers(runtime: Runtime) -> None:
    for provider in runtime.providers.values():
        await provider.close()
    for passing in runtime.passing.values():
        await passing.close()
