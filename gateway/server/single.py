"""`--workers 1`: both listeners, the embedded model and the watch on the file, in one process."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from starlette.routing import Mount

from gateway.admission import Admission
from gateway.config.load import load
from gateway.config.types import Config
from gateway.config.watch import changes
from gateway.health import Health
from gateway.keyring import Keyring
from gateway.owners import Owners
from gateway.providers.base import Provider
from gateway.rates import Rates
from gateway.runtime import Gateway
from gateway.server.accounts import watch_accounts
from gateway.server.admin import TOKEN, Reach, admin_routes
from gateway.server.app import PublicApp
from gateway.server.drain import DRAINING, close, drain
from gateway.server.listener import allow_files, listener, room_for
from gateway.server.locals import LocalModels
from gateway.server.meters import Meters
from gateway.server.observe import Memory, Observer, shared, warn
from gateway.server.ops import ops_app
from gateway.server.options import Options, Sockets
from gateway.server.probes import Prober
from gateway.server.protocol import Limits
from gateway.server.retention import prune_content
from gateway.server.signals import Signals
from gateway.sessions import Sessions
from gateway.telemetry.events import ConfigReloaded
from gateway.telemetry.log import Log
from gateway.telemetry.trace import open_traces

log = logging.getLogger("gateway")
LEDGER_POLL = 0.5  # seconds between looks at the ledger's queue for its gauges


async def serve_single(options: Options, config: Config, lines: Log, sockets: Sockets) -> int:
    """Serves until SIGTERM, drains, and returns the exit code."""
    signals = Signals(asyncio.get_running_loop())
    observer = Observer(lines, open_traces(os.environ))
    observer.configure(config)
    models = LocalModels()
    health = Health(observer.emit)
    health.configure(config)
    admission = Admission(options.max_in_flight)
    common = shared(config, observer, health, admission, Memory(Sessions(), Owners()), Rates())
    gateway = Gateway(config, models.provider, common)
    meters = Meters(observer.emit, common.loads.take, models.find)
    meters.configure(config)
    draining = False

    def provider_of(name: str) -> Provider | None:
        return gateway.runtime.providers.get(name)

    def load_again() -> str:
        result = _reload_and_tell(options, gateway, observer)
        health.configure(gateway.runtime.config)
        meters.configure(gateway.runtime.config)
        return result

    keyring = Keyring(config.counters, observer.know)
    keyring.look()
    keyring.tell()
    limits = Limits(connections=room_for(options.max_connections, allow_files()))
    front = listener(PublicApp(gateway, keyring, options.sizes), drain_timeout=options.drain_timeout, limits=limits)
    admin = _admin(Reach(lambda: gateway.runtime.config, load_again, health, lambda: None))
    back = listener(ops_app(observer.metrics, lambda: "draining" * draining, models.pids, admin), drain_timeout=1)
    serving = asyncio.create_task(front.serve(sockets=[sockets.public]))
    operating = asyncio.create_task(back.serve(sockets=[sockets.ops]))
    upkeep = [
        asyncio.create_task(_reload_on_change(load_again, options)),
        asyncio.create_task(_reload_on_hangup(load_again, signals)),
        asyncio.create_task(Prober(health, provider_of).run()),
        asyncio.create_task(meters.run()),
        asyncio.create_task(observer.remember()),
        asyncio.create_task(_watch_ledger(gateway, observer)),
        asyncio.create_task(keyring.watch()),
        asyncio.create_task(prune_content(lambda: gateway.runtime.config)),
        asyncio.create_task(watch_accounts(config.counters, observer.emit)),
    ]
    await signals.stop.wait()

    draining = True
    log.info(DRAINING, options.drain_delay, options.drain_timeout)
    await drain(front, serving, signals, options.drain_delay)
    for task in upkeep:
        task.cancel()
    await asyncio.gather(*upkeep, return_exceptions=True)
    await close(gateway, signals)
    await models.close()
    await observer.close()
    back.should_exit = True
    await operating
    return 0


def _admin(reach: Reach) -> list[Mount]:
    return admin_routes(os.environ.get(TOKEN, ""), reach)


def reload(
    options: Options, gateway: Gateway, observer: Observer, *, content: bytes | None = None
) -> ConfigReloaded | None:
    """Takes a changed file into force; a bad one changes nothing. What is returned is yet to be told."""
    event = gateway.reload(lambda: load(options.config, content=content))
    observer.configure(gateway.runtime.config)
    return event


def _reload_and_tell(options: Options, gateway: Gateway, observer: Observer) -> str:
    """How it went, in a word."""
    before = gateway.runtime.config
    event = reload(options, gateway, observer)
    if event is None:
        return "unchanged"
    observer.emit(event)
    if gateway.runtime.config is not before:
        warn(gateway.runtime.config)
    return event.result


async def _reload_on_change(load_again: Callable[[], object], options: Options) -> None:
    async for _ in changes(options.config):
        load_again()


async def _reload_on_hangup(load_again: Callable[[], object], signals: Signals) -> None:
    while True:
        await signals.hangup.wait()
        signals.hangup.clear()
        load_again()


async def _watch_ledger(gateway: Gateway, observer: Observer) -> None:
    while True:
        observer.look_at(gateway.ledger)
        await asyncio.sleep(LEDGER_POLL)
