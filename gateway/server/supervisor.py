"""`--workers N`: a parent that owns the operations listener, the embedded models and the watch on the file.

Workers inherit the public socket, so none of them is special, and a connection that waits while one dies is taken by
another. A worker that dies is started again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys

from gateway.config import load
from gateway.config.types import Config
from gateway.config.watch import changes
from gateway.errors import ConfigError
from gateway.server.control import LOCAL, METRICS, READY, RELOAD, Control
from gateway.server.listener import listener
from gateway.server.locals import LocalModels
from gateway.server.ops import ops_app
from gateway.server.options import Options
from gateway.server.signals import Signals
from gateway.telemetry.events import ConfigReloaded
from gateway.telemetry.metrics import LabelSets, Metrics

log = logging.getLogger("gateway")
RESTART_AFTER = 1.0  # seconds between a worker's death and its successor, so that a crash loop stays cheap


class Supervisor:
    """Runs `options.workers` workers and speaks for all of them."""

    def __init__(self, options: Options, config: Config, public: socket.socket) -> None:
        self._options = options
        self._config = config
        self._public = public
        self._metrics = Metrics()
        self._metrics.configure(LabelSets.of(config))
        self._models = LocalModels()
        self._controls: dict[int, Control] = {}  # of the workers that are ready, by number
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = False
        self._draining = False

    async def serve(self, ops: socket.socket) -> int:
        """Serves until SIGTERM, drains, and returns the exit code."""
        options = self._options
        signals = Signals(asyncio.get_running_loop())
        back = listener(ops_app(self._metrics, self._not_ready), drain_timeout=1)
        operating = asyncio.create_task(back.serve(sockets=[ops]))
        workers = [asyncio.create_task(self._keep_alive(number)) for number in range(options.workers)]
        self._models.on_change(self._send_models)
        self._models.retain(self._config)
        upkeep = [asyncio.create_task(self._reload_on_change()), asyncio.create_task(self._reload_on_hangup(signals))]
        await signals.stop.wait()

        self._draining = True
        log.info("draining: serving on for %g s, then up to %g s for answers under way", options.drain_delay, options.drain_timeout)
        await signals.pause(options.drain_delay)
        self._stopping = True
        for process in self._processes.values():
            process.terminate()
        ended = asyncio.gather(*workers)
        forced = asyncio.create_task(signals.now.wait())
        await asyncio.wait([ended, forced], timeout=options.drain_timeout + 5, return_when=asyncio.FIRST_COMPLETED)
        for process in self._processes.values():
            process.kill()
        for task in [*upkeep, forced]:
            task.cancel()
        await asyncio.gather(*upkeep, forced, ended, return_exceptions=True)
        await self._models.close()
        back.should_exit = True
        await operating
        return 0

    def _not_ready(self) -> str:
        if self._draining:
            return "draining"
        missing = self._options.workers - len(self._controls)
        return f"{missing} of {self._options.workers} workers are not up" if missing else ""

    async def _keep_alive(self, number: int) -> None:
        while not self._stopping:
            await self._run_worker(number)
            if not self._stopping:
                log.error("worker %d ended; starting another", number)
                await asyncio.sleep(RESTART_AFTER)

    async def _run_worker(self, number: int) -> None:
        """Starts one worker and listens to it until it ends."""
        ours, theirs = socket.socketpair()
        with theirs:
            options = json.dumps({**self._options._asdict(), "config": str(self._options.config)})
            fds = (self._public.fileno(), theirs.fileno())
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway.server.worker", options,
                "--public-fd", str(fds[0]), "--control-fd", str(fds[1]),
                pass_fds=fds, stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        self._processes[number] = process
        control = await Control.over(ours)
        try:
            control.send(LOCAL, json.dumps(self._models.addresses()).encode())
            async for kind, payload in control.frames():
                if kind == METRICS:
                    self._metrics.merge(payload, source=str(number))
                elif kind == READY:
                    self._controls[number] = control
            await process.wait()
        finally:
            self._controls.pop(number, None)
            self._processes.pop(number, None)
            self._metrics.forget(str(number))
            await control.close()

    def _send_models(self) -> None:
        payload = json.dumps(self._models.addresses()).encode()
        for control in self._controls.values():
            control.send(LOCAL, payload)

    def _reload(self) -> None:
        """Checks the file once, for all; only a good one is worth telling the workers."""
        try:
            config = load(self._options.config)
        except ConfigError as error:
            log.error("configuration rejected, the one in force stays\n%s", error)
            self._metrics.observe(ConfigReloaded("rejected", self._config.hash))
            return
        if config.hash == self._config.hash:
            return
        self._config = config
        self._metrics.configure(LabelSets.of(config))
        self._metrics.observe(ConfigReloaded("ok", config.hash))
        self._models.retain(config)
        for control in self._controls.values():
            control.send(RELOAD)

    async def _reload_on_change(self) -> None:
        async for _ in changes(self._options.config):
            self._reload()

    async def _reload_on_hangup(self, signals: Signals) -> None:
        while True:
            await signals.hangup.wait()
            signals.hangup.clear()
            self._reload()
