"""`gateway serve`: binds the two listeners and serves until SIGTERM."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import socket
import sys
from pathlib import Path

import uvloop

from gateway.admission import MAX_IN_FLIGHT
from gateway.cli.reading import host_and_port, reader
from gateway.config.fields import parse_duration
from gateway.config.load import load
from gateway.config.types import Config
from gateway.errors import StoreUnavailable
from gateway.keyring import Keyring
from gateway.server.listener import bind, is_loopback, show, split_address
from gateway.server.observe import open_log, warn
from gateway.server.options import Options, Sockets
from gateway.server.protocol import Limits
from gateway.server.single import serve_single
from gateway.server.supervisor import Supervisor
from gateway.stores.registry import open_ledger
from gateway.telemetry.trace import read_tracing

log = logging.getLogger("gateway")
SIZES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen", default="127.0.0.1:4000", type=host_and_port, metavar="HOST:PORT",
        help="public listener (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--ops-listen", default="127.0.0.1:9464", type=host_and_port, metavar="HOST:PORT",
        help="operations listener (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=_workers, default=1, metavar="N", help="worker processes (default %(default)s)"
    )
    parser.add_argument("--drain-delay", type=_seconds, default=5.0, metavar="DURATION",
                        help="go on serving this long after SIGTERM (default 5s)")  # fmt: skip
    parser.add_argument("--drain-timeout", type=_seconds, default=30.0, metavar="DURATION",
                        help="then let answers under way finish for up to this long (default 30s)")  # fmt: skip
    parser.add_argument("--max-in-flight", type=_count, default=MAX_IN_FLIGHT, metavar="N",
                        help="requests a worker works on at a time; more wait up to 1s, then get 503 "
                             "(default %(default)s)")  # fmt: skip
    parser.add_argument("--max-connections", type=_count, default=Limits().connections, metavar="N",
                        help="client connections to a worker (default %(default)s)")  # fmt: skip
    parser.add_argument(
        "--max-body", type=_size, default=32 * 1024**2, metavar="SIZE", help="largest request body (default 32m)"
    )
    parser.add_argument(
        "--max-upload", type=_size, default=100 * 1024**2, metavar="SIZE", help="largest form with files (default 100m)"
    )
    parser.add_argument(
        "--allow-anonymous", action="store_true", help="without keys, serve on other addresses than loopback too"
    )
    parser.add_argument("--log-format", choices=["text", "json"], default="text", help="(default %(default)s)")


def run(args: argparse.Namespace) -> int:
    options = Options(
        config=Path(args.config).absolute(),
        workers=args.workers,
        drain_delay=args.drain_delay,
        drain_timeout=args.drain_timeout,
        max_in_flight=args.max_in_flight,
        max_connections=args.max_connections,
        max_body=args.max_body,
        max_upload=args.max_upload,
        log_format=args.log_format,
    )
    try:
        _check_tracing()
        config = load(options.config)
        _refuse_exposure(config, args)
        public, ops = _bind(args.listen, "--listen"), _bind(args.ops_listen, "--ops-listen")
    except StoreUnavailable as error:
        print(f"gateway serve: {error}", file=sys.stderr)
        return 1
    except _RefusalError as refusal:
        print(f"gateway serve: {refusal}", file=sys.stderr)
        return 1
    return uvloop.run(_serve(options, config, Sockets(public, ops)))


async def _serve(options: Options, config: Config, sockets: Sockets) -> int:
    lines = open_log(options.log_format)
    try:
        warn(config)
        await open_ledger(config.ledger, config.on_full).close()  # what no worker could open ends the start
        addresses = show(sockets.public), show(sockets.ops)
        log.info("serving on %s/v1, operations on %s, configuration %s", *addresses, config.hash)
        if options.workers == 1:
            return await serve_single(options, config, lines, sockets)
        return await Supervisor(options, lines, sockets).serve()
    except (
        OSError,
        ValueError,
        StoreUnavailable,
    ) as error:  # a store, a CA file
        log.error("cannot serve: %s", error)
        return 1
    finally:
        await lines.close()


class _RefusalError(Exception):
    """Why serving does not start, and what to do about it."""


def _check_tracing() -> None:
    try:
        read_tracing(os.environ)
    except ValueError as error:
        raise _RefusalError(str(error)) from None


def _refuse_exposure(config: Config, args: argparse.Namespace) -> None:
    """Without keys the public listener stays on loopback (contract section 1)."""
    host, _ = split_address(args.listen)
    if config.keys_declared or is_loopback(host) or args.allow_anonymous:
        return
    keyring = Keyring(config.counters)
    keyring.look()
    if not keyring.used:
        raise _RefusalError(
            f"{config.path.name} has no `keys:` and none was created, so anybody who reaches {args.listen} could spend "
            "your money. Run `gateway keys create`, add `keys:`, listen on 127.0.0.1, or say --allow-anonymous."
        )


def _bind(address: str, option: str) -> socket.socket:
    try:
        return bind(address)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno == errno.EADDRINUSE:
            reason += f"; end what listens there (ss -ltnp shows it), or give {option} another port"
        raise _RefusalError(f"{option} {address}: {reason}") from None


def _workers(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 64")
    return int(text)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000")
    return int(text)


@reader
def _seconds(text: str) -> float:
    return 0.0 if text in {"0", "0s"} else parse_duration(text)


def _size(text: str) -> int:
    digits = text.lower().removesuffix("ib").removesuffix("b")
    unit = digits[-1:] if digits[-1:] in "kmg" else ""
    number = digits.removesuffix(unit)
    if not number.isdigit() or not 1 <= int(number) * SIZES[unit] <= 1024**3:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size up to 1g, such as 32m")
    return int(number) * SIZES[unit]
