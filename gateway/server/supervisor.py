"""`--workers N`: a parent that owns the operations listener, the embedded models and the watch on the file.

Workers inherit the public socket, so none of them is special, and a connection that waits while one dies is taken by
another. A worker that dies is started again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.config.load import load
from gateway.config.types import Config, ProviderConfig
from gateway.config.watch import changes
from gateway.core.loads import Load
from gateway.errors import ConfigError
from gateway.health import Health
from gateway.keyring import Keyring
from gateway.providers.child import ChildProvider, ChildServer
from gateway.rates import memory
from gateway.server.accounts import watch_accounts
from gateway.server.admin import TOKEN, Reach, admin_routes
from gateway.server.control import (
    CONFIG,
    HEALTH_REPORT,
    HEALTH_STATE,
    LOADS,
    LOCAL,
    METRICS,
    NOW,
    OWNER,
    READY,
    SESSION,
    Control,
)
from gateway.server.drain import DRAINING
from gateway.server.listener import listener
from gateway.server.locals import KINDS, LocalModels, address, local_providers
from gateway.server.meters import Meters
from gateway.server.observe import Observer, warn
from gateway.server.ops import ops_app
from gateway.server.options import Options, Sockets
from gateway.server.probes import ProbeProviders, Prober
from gateway.server.retention import prune_content
from gateway.server.sharing import HealthDesk
from gateway.server.signals import Signals
from gateway.telemetry.events import ConfigReloaded
from gateway.telemetry.log import Log

log = logging.getLogger("gateway")
ANNOUNCE_EVERY = 0.2  # seconds between looks at where the embedded models are
HEALTH_EVERY = 0.1  # seconds between looks at what is not fine
ENDING = 5.0  # seconds that workers may take beyond their drain
FORCED_ENDING = 2.5  # the same after a second SIGTERM: their last words, and one second for the ledger
RESTART_AFTER = 1.0  # seconds between a worker's death and its successor, so that a crash loop stays cheap


def read(path: Path) -> tuple[Config, bytes]:
    """The configuration, and the bytes it was made of, for the workers. Raises ConfigError."""
    try:
        content = path.read_bytes()
    except OSError:
        return load(path), b""  # says what is wrong
    return load(path, content=content), content


class Supervisor:
    """Runs `options.workers` workers and speaks for all of them."""

    def __init__(self, options: Options, lines: Log, sockets: Sockets) -> None:
        self._options = options
        config, self._content = read(options.config)
        self._config = config
        self._rejected = False  # the file, when it was last read
        self._sockets = sockets
        self._observer = Observer(lines)
        self._observer.configure(config)
        self._health = Health(self._observer.emit)
        self._health.configure(config)
        self._desk = HealthDesk(self._health)
        self._probed = ProbeProviders(config, self._local_provider)
        self._models = LocalModels()
        self._meters = Meters(self._observer.emit, self._tell_loads, self._models.find)
        self._meters.configure(config)
        self._servers: dict[str, tuple[ProviderConfig, ChildServer]] = {}  # in force, by provider name
        self._releasing: set[asyncio.Task[None]] = set()
        self._use_models(config)
        self._controls: dict[int, Control] = {}  # of the workers that are ready, by number
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._limits = memory(options.workers)
        self._keyring = Keyring(config.counters, self._observer.know)
        self._keyring.look()
        self._keyring.tell()
        self._draining = False

    async def serve(self) -> int:
        """Serves until SIGTERM, drains, and returns the exit code."""
        options = self._options
        signals = Signals(asyncio.get_running_loop())
        reach = Reach(lambda: self._config, self._reload, self._health, self._tell_health)
        admin = admin_routes(os.environ.get(TOKEN, ""), reach)
        back = listener(ops_app(self._observer.metrics, self._not_ready, self._pids, admin), drain_timeout=1)
        operating = asyncio.create_task(back.serve(sockets=[self._sockets.ops]))
        workers = [asyncio.create_task(self._keep_alive(number)) for number in range(options.workers)]
        upkeep = [
            asyncio.create_task(self._reload_on_change()),
            asyncio.create_task(self._reload_on_hangup(signals)),
            asyncio.create_task(self._announce_models()),
            asyncio.create_task(self._announce_health()),
            asyncio.create_task(Prober(self._health, self._probed.of).run()),
            asyncio.create_task(self._meters.run()),
            asyncio.create_task(self._observer.remember()),
            asyncio.create_task(self._keyring.watch()),
            asyncio.create_task(prune_content(lambda: self._config)),
            asyncio.create_task(watch_accounts(self._config.counters, self._observer.emit)),
        ]
        await signals.stop.wait()

        self._draining = True
        log.info(DRAINING, options.drain_delay, options.drain_timeout)
        await self._end(workers, signals)
        for task in upkeep:
            task.cancel()
        await asyncio.gather(*upkeep, return_exceptions=True)
        await self._probed.close()
        await self._models.close()
        await self._observer.close()
        back.should_exit = True
        await operating
        return 0

    async def _end(self, workers: list[asyncio.Task[None]], signals: Signals) -> None:
        """The workers drain by themselves, and get a little more time than they should need. What hangs is killed."""
        self._sockets.public.close()  # else the kernel would go on taking connections when the workers no longer do
        for process in self._processes.values():
            process.terminate()
        ended: asyncio.Future[Any] = asyncio.gather(*workers)
        forced = asyncio.create_task(signals.now.wait())
        either: list[asyncio.Future[Any]] = [ended, forced]
        limit = self._options.drain_delay + self._options.drain_timeout + ENDING
        await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            for control in self._controls.values():
                control.send(NOW)
            await asyncio.wait([ended], timeout=FORCED_ENDING)
        for process in self._processes.values():
            process.kill()
        forced.cancel()
        await asyncio.gather(ended, forced, return_exceptions=True)

    def _not_ready(self) -> str:
        if self._draining:
            return "draining"
        missing = self._options.workers - len(self._controls)
        return f"{missing} of {self._options.workers} workers are not up" if missing else ""

    def _pids(self) -> dict[str, int]:
        workers = {f"worker {number}": process.pid for number, process in sorted(self._processes.items())}
        return {**self._models.pids(), **workers}

    async def _keep_alive(self, number: int) -> None:
        while not self._draining:
            await self._run_worker(number)
            if not self._draining:
                log.error("worker %d ended; starting another", number)
                await asyncio.sleep(RESTART_AFTER)

    async def _run_worker(self, number: int) -> None:
        """Starts one worker and listens to it until it ends."""
        ours, theirs = socket.socketpair()
        with theirs:
            options = json.dumps({**self._options._asdict(), "config": str(self._options.config)})
            fds = (self._sockets.public.fileno(), theirs.fileno(), self._limits)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway.server.worker", options,
                "--number", str(number), "--public-fd", str(fds[0]), "--control-fd", str(fds[1]),
                "--limits-fd", str(fds[2]), pass_fds=fds, stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        self._processes[number] = process
        if self._draining:  # meanwhile
            process.terminate()
        control = await Control.over(ours)
        try:
            content = self._content
            control.send(CONFIG, content)
            control.send(LOCAL, self._addresses())
            async for kind, payload in control.frames():
                if kind == METRICS:
                    self._observer.metrics.merge(payload, source=str(number))
                elif kind == HEALTH_REPORT:
                    self._desk.take(number, payload)
                    self._tell_health()
                elif kind in (SESSION, OWNER):
                    self._tell_others(number, kind, payload)
                elif kind == READY:
                    self._controls[number] = control
                    self._tell_what_changed(control, content)
            await process.wait()
        finally:
            self._controls.pop(number, None)
            self._processes.pop(number, None)
            self._observer.metrics.forget(str(number))
            self._desk.gone(number)
            await control.close()

    def _tell_what_changed(self, control: Control, content: bytes) -> None:
        """While a worker started, which may take seconds, nobody told it anything."""
        if content != self._content:
            control.send(CONFIG, self._content)
        control.send(LOCAL, self._addresses())
        control.send(LOADS, json.dumps(self._meters.known).encode())
        self._tell_health()

    async def _announce_models(self) -> None:
        """Tells the workers where the embedded models are, whenever that changes."""
        said = self._addresses()
        while True:
            await asyncio.sleep(ANNOUNCE_EVERY)
            if (now := self._addresses()) != said:
                said = now
                for control in self._controls.values():
                    control.send(LOCAL, said)

    async def _announce_health(self) -> None:
        """For what changes because time passes; reports are answered at once."""
        while True:
            await asyncio.sleep(HEALTH_EVERY)
            self._tell_health()

    def _tell_health(self) -> None:
        for number, payload in self._desk.news(self._controls.keys()):
            self._controls[number].send(HEALTH_STATE, payload)

    def _tell_loads(self, loads: Sequence[Load]) -> None:
        told = json.dumps(loads).encode()
        for control in self._controls.values():
            control.send(LOADS, told)

    def _local_provider(self, provider: ProviderConfig) -> ChildProvider:
        return KINDS[provider.dialect].provider(provider, self._servers[provider.name][1])

    def _tell_others(self, number: int, kind: bytes, payload: bytes) -> None:
        for other, control in self._controls.items():
            if other != number:
                control.offer(kind, payload)

    def _addresses(self) -> bytes:
        return json.dumps({name: address(server) for name, (_, server) in self._servers.items()}).encode()

    def _use_models(self, config: Config) -> None:
        """Starts the servers that `config` needs; others end once the calls on them have had their time."""
        before, self._servers = self._servers, {}
        for provider in local_providers(config):
            self._servers[provider.name] = (provider, self._models.use(provider))
        for provider, _ in before.values():
            asyncio.get_running_loop().call_later(self._options.drain_timeout, self._release, provider)

    def _release(self, provider: ProviderConfig) -> None:
        task = asyncio.get_running_loop().create_task(self._models.release(provider))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    def _reload(self) -> str:
        """Checks the file once, for all; only a good one is worth telling the workers. How it went, in a word."""
        try:
            config, content = read(self._options.config)
        except ConfigError as error:
            self._observer.emit(ConfigReloaded("rejected", self._config.hash, str(error)))
            self._rejected = True
            return "rejected"
        again, self._rejected = self._rejected, False
        if config.hash == self._config.hash:
            if not again:
                return "unchanged"
            self._observer.emit(ConfigReloaded("ok", config.hash))  # the good file was put back
            return "ok"
        self._config, self._content = config, content
        self._observer.configure(config)
        self._observer.emit(ConfigReloaded("ok", config.hash))
        warn(config)
        self._health.configure(config)
        self._use_models(config)
        self._probed.configure(config)
        self._meters.configure(config)
        for control in self._controls.values():
            control.send(CONFIG, content)
        return "ok"

    async def _reload_on_change(self) -> None:
        async for _ in changes(self._options.config):
            self._reload()

    async def _reload_on_hangup(self, signals: Signals) -> None:
        while True:
            await signals.hangup.wait()
            signals.hangup.clear()
            self._reload()
