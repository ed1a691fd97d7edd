"""`--workers 1`: both listeners, the embedded model and the watch on the file, in one process."""

from __future__ import annotations

import asyncio
import logging

from gateway.admission import Admission
from gateway.config.load import load
from gateway.config.types import Config
from gateway.config.watch import changes
from gateway.health import Health
from gateway.runtime import Gateway
from gateway.server.app import PublicApp
from gateway.server.listener import listener
from gateway.server.locals import LocalModels
from gateway.server.observe import Observer, shared
from gateway.server.ops import ops_app
from gateway.server.options import Options, Sockets
from gateway.server.signals import Signals
from gateway.telemetry.events import ConfigReloaded
from gateway.telemetry.log import Log

log = logging.getLogger("gateway")
LEDGER_POLL = 0.5  # seconds between looks at the ledger's queue for its gauges


async def serve_single(options: Options, config: Config, lines: Log, sockets: Sockets) -> int:
    """Serves until SIGTERM, drains, and returns the exit code."""
    signals = Signals(asyncio.get_running_loop())
    observer = Observer(lines)
    observer.configure(config)
    models = LocalModels()
    health = Health(observer.emit)
    health.configure(config)
    gateway = Gateway(config, models.provider, shared(observer, health, Admission()))
    draining = False

    front = listener(PublicApp(gateway, options.max_body), drain_timeout=options.drain_timeout)
    back = listener(ops_app(observer.metrics, lambda: "draining" if draining else ""), drain_timeout=1)
    serving = asyncio.create_task(front.serve(sockets=[sockets.public]))
    operating = asyncio.create_task(back.serve(sockets=[sockets.ops]))
    upkeep = [
        asyncio.create_task(_reload_on_change(options, gateway, observer)),
        asyncio.create_task(_reload_on_hangup(signals, options, gateway, observer)),
        asyncio.create_task(_watch_ledger(gateway, observer)),
    ]
    await signals.stop.wait()

    draining = True
    log.info(
        "draining: serving on for %g s, then up to %g s for answers under way",
        options.drain_delay,
        options.drain_timeout,
    )
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
    return 0


def reload(
    options: Options, gateway: Gateway, observer: Observer, *, content: bytes | None = None
) -> ConfigReloaded | None:
    """Takes a changed file into force; a bad one changes nothing."""
    event = gateway.reload(lambda: load(options.config, content=content))
    observer.configure(gateway.runtime.config)
    return event


def _reload(options: Options, gateway: Gateway, observer: Observer) -> None:
    event = reload(options, gateway, observer)
    if event is not None:
        observer.emit(event)


async def _reload_on_change(options: Options, gateway: Gateway, observer: Observer) -> None:
    async for _ in changes(options.config):
        _reload(options, gateway, observer)


async def _reload_on_hangup(signals: Signals, options: Options, gateway: Gateway, observer: Observer) -> None:
    while True:
        await signals.hangup.wait()
        signals.hangup.clear()
        _reload(options, gateway, observer)


async def _watch_ledger(gateway: Gateway, observer: Observer) -> None:
    while True:
        observer.look_at(gateway.ledger)
        await asyncio.sleep(LEDGER_POLL)
