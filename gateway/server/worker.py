"""One of several workers: serves the public listener it inherited, and tells its parent what it saw."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import uvloop

from gateway.admission import Admission
from gateway.config.load import load
from gateway.core.loads import Load
from gateway.errors import StoreUnavailable
from gateway.keyring import Keyring
from gateway.owners import Owners
from gateway.rates import Rates
from gateway.runtime import Gateway
from gateway.server.app import PublicApp
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
from gateway.server.drain import close, drain
from gateway.server.listener import allow_files, listener, room_for
from gateway.server.locals import SharedModels
from gateway.server.observe import Memory, Observer, open_log, shared
from gateway.server.options import Options
from gateway.server.protocol import Limits
from gateway.server.sharing import WorkerHealth
from gateway.server.signals import Signals
from gateway.server.single import reload
from gateway.sessions import Sessions
from gateway.telemetry.log import Log
from gateway.telemetry.trace import open_traces

log = logging.getLogger("gateway")
REPORT_EVERY = 0.5  # seconds; metrics lag by at most one second (contract section 5)


class Inherited(NamedTuple):
    """What a worker has from its parent."""

    number: int  # of this worker, from 0
    public: socket.socket
    control: socket.socket
    limits: int  # descriptor of the memory in which all workers count traffic


async def work(options: Options, lines: Log, inherited: Inherited) -> None:
    """Serves until SIGTERM or until the parent is gone; then finishes what is under way."""
    signals = Signals(asyncio.get_running_loop(), worker=True)
    delay = options.drain_delay
    control = await Control.over(inherited.control)
    frames = control.frames()
    _, content = await anext(frames)  # the file as the parent found it good; it may have been broken since
    config = load(options.config, content=content)
    observer = Observer(lines, open_traces(os.environ))
    observer.configure(config)
    models = SharedModels()
    health = WorkerHealth(lambda payload: control.send(HEALTH_REPORT, payload))
    admission = Admission(options.max_in_flight, worker=inherited.number, workers=options.workers)
    sessions = Sessions(lambda payload: control.offer(SESSION, payload))
    owners = Owners(lambda payload: control.offer(OWNER, payload))
    rates = Rates(inherited.limits, process=inherited.number, processes=options.workers)
    common = shared(config, observer, health, admission, Memory(sessions, owners), rates)
    gateway = Gateway(config, models.provider, common)

    orders: Mapping[bytes, Callable[[bytes], object]] = {
        CONFIG: lambda content: _take_config(content, options, gateway, observer),
        LOCAL: lambda addresses: models.update(json.loads(addresses)),
        HEALTH_STATE: health.update,
        SESSION: sessions.take,
        OWNER: owners.take,
        LOADS: lambda told: common.loads.take(Load(*each) for each in json.loads(told)),
        NOW: lambda _: signals.now.set(),
    }

    async def obey() -> None:
        nonlocal delay
        async for kind, payload in frames:
            orders[kind](payload)
        delay = 0.0  # the parent is gone: nobody tells a load balancer to wait
        signals.stop.set()

    async def report() -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY)
            _send_metrics(control, gateway, observer)

    keyring = Keyring(config.counters, observer.know)
    keyring.look()
    keyring.tell()
    limits = Limits(connections=room_for(options.max_connections, allow_files()))
    front = listener(PublicApp(gateway, keyring, options.sizes), drain_timeout=options.drain_timeout, limits=limits)
    serving = asyncio.create_task(front.serve(sockets=[inherited.public]))
    upkeep = [asyncio.create_task(each) for each in (obey(), report(), keyring.watch())]
    control.send(READY)
    await signals.stop.wait()
    await drain(front, serving, signals, delay)
    await close(gateway, signals)
    for task in upkeep:
        task.cancel()
    await asyncio.gather(*upkeep, return_exceptions=True)
    _send_metrics(control, gateway, observer)
    await observer.close()
    await control.close()


async def _work_or_say(options: Options, lines: Log, inherited: Inherited) -> int:
    """The exit code. The parent starts another: a store that went away may come back."""
    try:
        await work(options, lines, inherited)
    except StoreUnavailable as error:
        log.error("worker %d cannot serve: %s", inherited.number, error)
        return 1
    finally:
        await lines.close()
    return 0


def _take_config(content: bytes, options: Options, gateway: Gateway, observer: Observer) -> None:
    """The parent has told of it, unless it is bad for this process alone."""
    event = reload(options, gateway, observer, content=content)
    if event is not None and event.problems:
        log.error("a worker goes on with configuration %s\n%s", event.hash, event.problems)


def _send_metrics(control: Control, gateway: Gateway, observer: Observer) -> None:
    observer.look_at(gateway.ledger)
    control.send(METRICS, observer.metrics.take())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("options", help="JSON of Options")
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--public-fd", type=int, required=True)
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--limits-fd", type=int, required=True)
    args = parser.parse_args()
    given = json.loads(args.options)
    options = Options(**{**given, "config": Path(given["config"])})
    lines = open_log(options.log_format)
    public, control = socket.socket(fileno=args.public_fd), socket.socket(fileno=args.control_fd)
    sys.exit(uvloop.run(_work_or_say(options, lines, Inherited(args.number, public, control, args.limits_fd))))


if __name__ == "__main__":
    main()
