"""One of several workers: serves the public listener it inherited, and tells its parent what it saw."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import socket
import sys
from pathlib import Path

import uvloop

from gateway.admission import Admission
from gateway.config.load import load
from gateway.health import Health
from gateway.runtime import Gateway
from gateway.server.app import PublicApp
from gateway.server.control import CONFIG, LOCAL, METRICS, READY, Control
from gateway.server.listener import listener
from gateway.server.locals import SharedModels
from gateway.server.observe import Observer, open_log, shared
from gateway.server.options import Options
from gateway.server.single import reload
from gateway.telemetry.log import Log

log = logging.getLogger("gateway")
REPORT_EVERY = 0.5  # seconds; metrics lag by at most one second (contract section 5)


async def work(options: Options, lines: Log, public: socket.socket, control_socket: socket.socket) -> None:
    """Serves until SIGTERM or until the parent is gone; then finishes what is under way."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    for number in (signal.SIGINT, signal.SIGHUP):  # the terminal sends these to all; the parent decides
        loop.add_signal_handler(number, lambda: None)

    control = await Control.over(control_socket)
    frames = control.frames()
    _, content = await anext(frames)  # the file as the parent found it good; it may have been broken since
    config = load(options.config, content=content)
    observer = Observer(lines)
    observer.configure(config)
    models = SharedModels()
    health = Health(observer.emit)
    health.configure(config)
    gateway = Gateway(config, models.provider, shared(observer, health, Admission()))

    async def obey() -> None:
        async for kind, payload in frames:
            if kind == CONFIG:
                reload(options, gateway, observer, content=payload)  # the parent tells of it
            elif kind == LOCAL:
                models.update(json.loads(payload))
        stop.set()

    async def report() -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY)
            _send_metrics(control, gateway, observer)

    front = listener(PublicApp(gateway, options.max_body), drain_timeout=options.drain_timeout)
    serving = asyncio.create_task(front.serve(sockets=[public]))
    upkeep = [asyncio.create_task(obey()), asyncio.create_task(report())]
    control.send(READY)
    await stop.wait()

    front.should_exit = True
    await serving
    for task in upkeep:
        task.cancel()
    await asyncio.gather(*upkeep, return_exceptions=True)
    await gateway.close()
    _send_metrics(control, gateway, observer)
    await control.close()
    await lines.close()


def _send_metrics(control: Control, gateway: Gateway, observer: Observer) -> None:
    observer.look_at(gateway.ledger)
    control.send(METRICS, observer.metrics.take())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("options", help="JSON of Options")
    parser.add_argument("--public-fd", type=int, required=True)
    parser.add_argument("--control-fd", type=int, required=True)
    args = parser.parse_args()
    given = json.loads(args.options)
    options = Options(**{**given, "config": Path(given["config"])})
    lines = open_log(options.log_format)
    public, control = socket.socket(fileno=args.public_fd), socket.socket(fileno=args.control_fd)
    sys.exit(uvloop.run(work(options, lines, public, control)))


if __name__ == "__main__":
    main()
