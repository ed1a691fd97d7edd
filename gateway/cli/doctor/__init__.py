"""`gateway doctor`: looks at all that a gateway needs, and says what is wrong with the cause and the fix.

A **look** is one question about one thing: a provider, a store, the files' modes. All looks run at the same time (of
those at upstreams `AT_ONCE`), each for `--timeout` at most, and give **findings** (`findings.py`). What a finding is
comes from pure functions of what was seen; each file has its own. No setting, row or key is changed, and no tokens are
spent.

A failure means that the gateway does not start, that requests fail or are refused, or that somebody can take or change
what is not theirs; it makes the exit code 1. A warning is what works and should be known: what sleeps, what is open on
purpose. `--strict` makes it count too, as for `gateway check`.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from gateway.cli.doctor import files, installed, listeners, settings, stores, upstreams
from gateway.cli.doctor.findings import Finding, as_json, as_text, clean, counts, failure, worth_hiding
from gateway.cli.reading import host_and_port, reader
from gateway.config.fields import parse_duration
from gateway.config.load import load, load_yaml
from gateway.config.types import Config
from gateway.errors import ConfigError
from gateway.operations import starting_anew
from gateway.server.admin import TOKEN
from gateway.server.listener import split_address
from gateway.telemetry.trace import read_tracing

GRACE = 5.0  # seconds beyond its own limit before a look is given up
SLOW = 1.0  # seconds from which on a terminal shows what is waited for
AT_ONCE = 16  # looks at upstreams
ORDER = ("configuration", "credentials", "prices", "upstream", "models", "clock", "store", "disk", "files", "listeners",
         "running", "version")  # fmt: skip


class Look(NamedTuple):
    name: str  # check and subject, for when it hangs
    seconds: float
    run: Callable[[], Awaitable[list[Finding]]]
    turns: asyncio.Semaphore | None = None  # what it waits for first, which is not its own time


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", default="127.0.0.1:4000", metavar="HOST:PORT", type=host_and_port,
                        help="as `gateway serve` is given it (default %(default)s)")  # fmt: skip
    parser.add_argument("--ops-listen", default="127.0.0.1:9464", metavar="HOST:PORT", type=host_and_port,
                        help="likewise (default %(default)s)")  # fmt: skip
    parser.add_argument("--allow-anonymous", action="store_true", help="likewise")
    parser.add_argument("--timeout", default=10.0, type=reader(parse_duration), metavar="DURATION",
                        help="for each look; all run at the same time (default 10s)")  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="a warning is a failure")
    parser.add_argument("--json", action="store_true", help="the same for programs")


def run(args: argparse.Namespace) -> int:
    raw: Any = None
    config: Config | None = None
    found: list[Finding] = []
    try:
        raw = load_yaml(Path(args.config))
        config = load(Path(args.config))
        config = config._replace(warnings=(*config.warnings, *starting_anew(config)))
    except ConfigError as error:
        found += settings.of_error(error)
    if config is not None:
        found += [
            *settings.of_configuration(config),
            *settings.of_credentials(config, raw),
            *settings.of_prices(config),
        ]
    found += uvloop.run(_all([*_looks(args, config, raw)]))
    hidden = worth_hiding(_secrets(config, raw))
    shown = sorted((clean(each, hidden) for each in found), key=lambda each: ORDER.index(each.check))
    of = counts(shown)
    fine = not (of["failure"] or (args.strict and of["warning"]))
    print(as_json(shown, fine=fine) if args.json else as_text(shown))
    return 0 if fine else 1


def _looks(args: argparse.Namespace, config: Config | None, raw: Any) -> Iterator[Look]:  # noqa: ANN401 - YAML
    seconds: float = args.timeout
    routes = Path(args.config).absolute()
    yield Look("version packages", seconds, _threaded(installed.look))
    dsns = stores.stores_of(config) if config is not None else {}
    literal = any(settings.is_literal(secret.written) for secret in settings.secrets_of(raw))
    wanted = files.wanted(routes, literal=literal, stores=list(dsns), secrets=settings.secret_files(raw))
    yield Look("files modes", seconds, _threaded(lambda: files.look(wanted)))
    yield Look("listeners addresses", seconds, _threaded(lambda: _exposure(args, config)))
    in_force = "" if config is None else config.hash
    addresses = (args.listen, args.ops_listen)
    yield Look("running gateway", seconds, lambda: listeners.running(*addresses, in_force, seconds))
    for dsn, purpose in dsns.items():
        yield Look(f"store {purpose}", seconds, _threaded(_store_look(purpose, dsn, seconds)))
    if config is not None:
        turns = asyncio.Semaphore(AT_ONCE)
        for name in upstreams.used(config):
            longest = max(seconds, upstreams.LOAD_SECONDS) if config.providers[name].dialect == "local" else 2 * seconds
            yield Look(f"upstream {name}", longest, _upstream_look(config, name, seconds), turns)


def _exposure(args: argparse.Namespace, config: Config | None) -> list[Finding]:
    made = [] if config is None else stores.keys_made(config.counters)
    keys = None if config is None else config.keys_declared or bool(made)
    guard = listeners.Guard(keys, args.allow_anonymous, os.environ.get(TOKEN, ""))
    ports = [split_address(address)[1] for address in (args.listen, args.ops_listen)]
    public, operations = (listeners.standing(port) for port in ports)
    found = listeners.judge(args.listen, args.ops_listen, (public, operations), guard)
    if config is not None:
        found += settings.of_keys(config, made, datetime.datetime.now(datetime.UTC))
    try:
        read_tracing(os.environ)
    except ValueError as error:
        found.append(failure("configuration", "traces", str(error), "correct that variable (docs/telemetry.md)"))
    return found


def _store_look(purpose: str, dsn: str, seconds: float) -> Callable[[], list[Finding]]:
    return lambda: stores.look(purpose, dsn, seconds)


def _upstream_look(config: Config, name: str, seconds: float) -> Callable[[], Awaitable[list[Finding]]]:
    return lambda: upstreams.look(config, name, seconds)


def _threaded(work: Callable[[], list[Finding]]) -> Callable[[], Awaitable[list[Finding]]]:
    """In a daemon thread: one that hangs, on a network file system say, must not hold up the others or the end."""

    async def look() -> list[Finding]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Finding]] = loop.create_future()

        def tell(found: list[Finding] | None, error: BaseException | None) -> None:
            if not future.done():
                future.set_exception(error) if error is not None else future.set_result(found or [])

        def go() -> None:
            found: list[Finding] | None = None
            failed: BaseException | None = None
            try:
                found = work()
            except BaseException as error:  # noqa: BLE001 - it is raised where the look is awaited
                failed = error
            try:
                loop.call_soon_threadsafe(tell, found, failed)
            except RuntimeError:  # the loop has ended: the look was given up
                return

        threading.Thread(target=go, daemon=True).start()
        return await future

    return look


async def _all(looks: Sequence[Look]) -> list[Finding]:
    from tqdm import tqdm  # noqa: PLC0415 - for long work only

    waits = {look.name: None for look in looks}

    def done(look: Look) -> None:
        del waits[look.name]
        bar.update()

    async def show() -> None:
        await asyncio.sleep(SLOW)
        while True:
            bar.set_postfix_str(", ".join(waits))
            await asyncio.sleep(0.5)

    with tqdm(total=len(looks), desc="looking", unit=" looks", file=sys.stderr, disable=None, delay=SLOW) as bar:
        shown = asyncio.create_task(show())
        try:
            found = await asyncio.gather(*(_one(look, done) for look in looks))
        finally:
            shown.cancel()
    return [each for of in found for each in of]


async def _one(look: Look, done: Callable[[Look], None]) -> list[Finding]:
    try:
        async with look.turns or nullcontext(), asyncio.timeout(look.seconds + GRACE):
            return await look.run()
    except TimeoutError:
        check, _, subject = look.name.partition(" ")
        return [failure(check, subject, f"no result within {look.seconds + GRACE:g} s",
                        "what it looks at hangs: a disk, a network file system, a name server")]  # fmt: skip
    finally:
        done(look)


def _secrets(config: Config | None, raw: Any) -> Iterator[str]:  # noqa: ANN401 - parsed YAML
    """All that must not be shown, wherever a message got it from."""
    yield os.environ.get(TOKEN, "")
    for secret in settings.secrets_of(raw):
        yield secret.written if "${" not in secret.written else ""
        yield from (os.environ.get(name, "") for name in settings.variables_in(secret.written))
    if config is not None:
        for provider in config.providers.values():
            yield from (
                provider.api_key,
                *(value for name, value in provider.headers.items() if settings.SECRET.search(name)),
            )
        yield from (hook.secret for hook in config.webhooks)
