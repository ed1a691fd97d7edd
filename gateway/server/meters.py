"""Reads what self-hosted servers say of themselves, for their metrics and for `least_busy`. One `Meters` on a machine.

A server that several models or endpoints name is read once. One that has no such page is asked ever more rarely.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.config.fields import OFF
from gateway.config.types import Config, ProviderConfig
from gateway.core.loads import Load, Reading
from gateway.errors import UpstreamFailure
from gateway.health import Key
from gateway.providers.child import ChildServer
from gateway.providers.server_metrics import ServerMetrics, page_url
from gateway.telemetry.events import Event, ServerLost, ServerRead

READ_EVERY = 2.5  # seconds
JITTER = 0.3  # of each pause, either way
PATIENCE = 3  # failures in a row after which the last reading is no longer believed
LONGEST_PAUSE = 30.0  # seconds between tries of a server that does not answer
LONGEST_WITHOUT = 600.0  # and of one that has no such page

log = logging.getLogger("gateway")


Place = tuple[str, ...]
"""What makes two servers the same one to us."""


class Seat(NamedTuple):
    """A replica at a server."""

    model: str
    replica: str
    several: bool  # whether the model has more


class Server(NamedTuple):
    config: ProviderConfig  # of one of its seats
    seats: list[Seat]


class Meters:
    """`emit` takes events, `tell` what the processes that serve calls have to know.

    `find_local`: the embedded model's server for a `dialect: local` provider, None where there is none.
    """

    def __init__(
        self,
        emit: Callable[[Event], None],
        tell: Callable[[Sequence[Load]], None],
        find_local: Callable[[ProviderConfig], ChildServer | None],
        *,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._emit = emit
        self._tell = tell
        self._find_local = find_local
        self._dice = dice
        self._servers: Mapping[Place, Server] = {}
        self._tasks: dict[Place, asyncio.Task[None]] = {}
        self._known: dict[Key, Load] = {}
        self._config: Config | None = None
        self._changed = asyncio.Event()

    @property
    def known(self) -> Sequence[Load]:
        """What a process that begins to serve calls has to be told."""
        return list(self._known.values())

    def configure(self, config: Config) -> None:
        """Reads the servers of `config` from now on, and no others."""
        self._config = config
        self._changed.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._follow_config()
        finally:
            await _end(self._tasks.values())

    async def _follow_config(self) -> None:
        assert self._config is not None
        self._servers = _servers(self._config)
        await _end([self._tasks.pop(place) for place in self._tasks.keys() - self._servers.keys()])
        there = {seat[:2] for server in self._servers.values() for seat in server.seats}
        self._lose([load for key, load in self._known.items() if key not in there])
        for place in self._servers.keys() - self._tasks.keys():
            self._tasks[place] = asyncio.get_running_loop().create_task(self._watch(place))

    async def _watch(self, place: Place) -> None:
        """Reads one server for ever."""
        page = _Page(self._servers[place].config, self._find_local)
        pause, failures, spoke = READ_EVERY * self._dice(), 0, False
        try:
            while True:
                await asyncio.sleep(pause * (1 - JITTER + 2 * JITTER * self._dice()))
                try:
                    reading, longest = await page.read(), LONGEST_WITHOUT
                except (UpstreamFailure, OSError, ValueError) as error:
                    log.debug("%s does not tell its load: %s", place[0], error)
                    reading, longest = None, page.longest
                if reading is not None:
                    if not spoke:
                        log.info("%s tells its load", place[0])
                    pause, failures, spoke = READ_EVERY, 0, True
                    self._take(place, reading)
                    continue
                failures += 1
                pause = min(READ_EVERY * 2.0 ** min(failures, 16), longest)
                if failures >= PATIENCE or longest == LONGEST_WITHOUT:
                    spoke = False
                    self._lose([load for seat in self._servers[place].seats if (load := self._known.get(seat[:2]))])
        finally:
            await page.close()

    def _take(self, place: Place, reading: Reading) -> None:
        seats = self._servers[place].seats
        alone = len({seat.model for seat in seats}) == 1
        when = asyncio.get_running_loop().time()
        loads = [Load(*seat, reading.running, reading.waiting) for seat in seats]
        # That a server has nothing to do, as before, is no news.
        news = [load for load in loads if load.running or load.waiting or self._known.get(load[:2]) != load]
        for load in loads:
            self._known[load[:2]] = load
            self._emit(ServerRead(load.model, load.replica, reading, when, alone))
        if news:
            self._tell(news)

    def _lose(self, loads: Sequence[Load]) -> None:
        for load in loads:
            del self._known[load[:2]]
            self._emit(ServerLost(load.model, load.replica))
        if loads:
            self._tell([load._replace(running=None, waiting=None) for load in loads])


class _Page:
    """A server's metrics, wherever it is at the moment: the embedded one moves."""

    def __init__(self, config: ProviderConfig, find_local: Callable[[ProviderConfig], ChildServer | None]) -> None:
        self._config = config
        self._find_local = find_local
        self._at = ""
        self._page: ServerMetrics | None = None
        self.longest = READ_EVERY if config.dialect == "local" else LONGEST_PAUSE  # whether ours is up costs no request

    async def read(self) -> Reading | None:
        """As ServerMetrics; raises OSError and ValueError too where the server cannot be asked at all."""
        config = self._config
        if config.dialect == "local":
            server = self._find_local(config)
            if server is None or not server.ready:
                raise UpstreamFailure("connect", "the embedded model is not running")
            config = config._replace(base_url=server.base_url, api_key=server.api_key)
        if self._page is None or self._at != config.base_url:
            await self.close()
            self._page, self._at = ServerMetrics(config), config.base_url
        return await self._page.read()

    async def close(self) -> None:
        if self._page is not None:
            await self._page.close()


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


def _servers(config: Config) -> dict[Place, Server]:
    """Those that may tell their load, and who is served by each."""
    found: dict[Place, Server] = {}
    for model in config.rules.models.values():
        for replica in () if model.disabled or model.hosting != "self" else model.replicas:
            provider = config.providers[replica.provider or model.provider]
            if provider.disabled or provider.metrics == OFF or provider.dialect == "litellm":
                continue
            place = _place(provider)
            if place[0]:
                seat = Seat(model.name, replica.name, len(model.replicas) > 1)
                found.setdefault(place, Server(provider, [])).seats.append(seat)
    return found


def _place(provider: ProviderConfig) -> Place:
    """What it is called, empty where there is none, and all that matters for reading it."""
    if provider.dialect == "local":
        return f"the embedded model of {provider.name}", json.dumps(dict(provider.options), sort_keys=True)
    headers = json.dumps(dict(provider.headers), sort_keys=True)
    return page_url(provider), provider.base_url, provider.api_key, headers, provider.ca_file
