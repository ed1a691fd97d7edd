"""`--workers 1`: both listeners, the embedded model and the watch on the file, in one process."""

from __future__ import annotations

import asyncio
import logging
import socket

from gateway.config import load
from gateway.config.types import Config
from gateway.config.watch import changes
from gateway.runtime import Gateway
from gateway.server.app import PublicApp
from gateway.server.listener import listener
from gateway.server.locals import LocalModels
from gateway.server.observe import Observer
from gateway.server.ops import ops_app
from gateway.server.options import Options
from gateway.server.signals import Signals

log = logging.getLogger("gateway")
LEDGER_POLL = 0.5  # seconds between looks at the ledger's queue for its gauges


async def serve_single(options: Options, config: Config, public: socket.socket, ops: socket.socket) -> int:
    """Serves until SIGTERM, drains, and returns the exit code."""
    signals = Signals(asyncio.get_running_loop())
    observer = Observer(options.log_format)
    observer.configure(config)
    models = LocalModels()
    gateway = Gateway(config, observer.emit, models.provider)
    draining = False

    front = listener(PublicApp(gateway, options.max_body), drain_timeout=options.drain_timeout)
    back = listener(ops_app(observer.metrics, lambda: "draining" if draining else ""), drain_timeout=1)
    serving = asyncio.create_task(front.serve(sockets=[public]))
    operating = asyncio.create_task(back.serve(sockets=[ops]))
    upkeep = [
        asyncio.create_task(_reload_on_change(options, gateway, observer)),
        asyncio.create_task(_reload_on_hangup(signals, options, gateway, observer)),
        asyncio.create_task(_watch_ledger(gateway, observer)),
    ]
    await signals.stop.wait()

    draining = True
    log.info("draining: serving on for %g s, then up to %g s for answers under way", options.drain_delay, options.drain_timeout)
    await signals.pause(options.drain_delay)
    front.should_exit = True
    forced = asyncio.create_task(signals.now.wait())
    await asyncio.wait([serving, forced], return_when=asyncio.FIRST_COMPLETED)
    front.force_exit = signals.now.is_set()
    await serving
    for task in [*upkeep, forced]:
        task.cancel()
    await asyncio.gather(*upkeep, forced, return_exceptions=True)
    await gateway.close()
    await models.close()
    back.should_exit = True
    await operating
    observer.close()
    return 0


def reload(options: Options, gateway: Gateway, observer: Observer) -> None:
    """Takes a changed file into force; a bad one changes nothing."""
    if gateway.reload(lambda: load(options.config)) is None:
        observer.configure(gateway.runtime.config)


async def _reload_on_change(options: Options, gateway: Gateway, observer: Observer) -> None:
    async for _ in changes(options.config):
        reload(options, gateway, observer)


async def _reload_on_hangup(signals: Signals, options: Options, gateway: Gateway, observer: Observer) -> None:
    while True:
        await signals.hangup.wait()
        signals.hangup.clear()
        reload(options, gateway, observer)


async def _watch_ledger(gateway: Gateway, observer: Observer) -> None:
    while True:
        observer.metrics.ledger(gateway.ledger.depth, gateway.ledger.failures)
        await asyncio.sleep(LEDGER_POLL)
