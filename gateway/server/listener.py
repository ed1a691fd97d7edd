"""uvicorn, told to leave signals and logging to us; and the sockets it listens on."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import resource
import socket
from collections.abc import Generator
from typing import Any

import uvicorn

from gateway.server.protocol import BoundedHttpProtocol, Limits, ListenerState, Stage

BACKLOG = 2048
DEFAULTS = Limits()
LOOK_EVERY = 5  # of uvicorn's ticks, which come every 0.1 s
CLOSING_TICK = 0.05  # seconds between looks while the listener closes
LAST_WORDS = 1.0  # seconds for the error that ends an answer to reach its client
FORCED_LAST_WORDS = 0.2  # the same after a second SIGTERM

log = logging.getLogger("gateway")


class Listener(uvicorn.Server):
    """One listener. It serves until `should_exit`; then it takes no connections, lets the answers under way finish for
    `drain_timeout` seconds, and ends the rest: their tasks are cancelled, which the application answers with an error.
    `force_exit` ends them now.
    """

    def __init__(self, config: uvicorn.Config, limits: Limits, drain_timeout: float) -> None:
        super().__init__(config)
        self.server_state: ListenerState = ListenerState(limits)
        self._drain_timeout = drain_timeout
        self._refusals_told = 0

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """uvicorn would install its own handlers; the process has one set for both listeners."""
        yield

    def announce(self) -> None:
        """From now on answers say `connection: close`: clients connect anew, and by then elsewhere."""
        self.server_state.stage = Stage.LEAVING
        for connection in self._connections():
            connection.announce()

    async def on_tick(self, counter: int) -> bool:
        if counter % LOOK_EVERY == 0:
            self._look()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        self.server_state.stage = Stage.CLOSING
        for connection in self._connections():
            connection.announce()
        await self._until_quiet(self._drain_timeout, forced=False)
        for task in list(self.server_state.tasks):
            task.cancel()
        await self._until_quiet(FORCED_LAST_WORDS if self.force_exit else LAST_WORDS, forced=True)
        for connection in self._connections():
            connection.abort()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=FORCED_LAST_WORDS)

    async def _until_quiet(self, seconds: float, *, forced: bool) -> None:
        """Returns when no connection and no request is left, or the time is over, or an end now is asked for."""
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        while (self.server_state.connections or self.server_state.tasks) and clock() < until:
            if self.force_exit and not forced:
                return
            self._look()
            await asyncio.sleep(CLOSING_TICK)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in self._connections():
            connection.look(now)
        state = self.server_state
        if state.refused > self._refusals_told:
            count, self._refusals_told = state.refused - self._refusals_told, state.refused
            log.warning("%d connections refused: %d are open, the limit", count, state.limits.connections)

    def _connections(self) -> list[BoundedHttpProtocol]:
        return [each for each in self.server_state.connections if isinstance(each, BoundedHttpProtocol)]


def listener(app: Any, *, drain_timeout: float, limits: Limits = DEFAULTS) -> Listener:  # noqa: ANN401 - any ASGI app
    config = uvicorn.Config(
        app,
        http=BoundedHttpProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    return Listener(config, limits, drain_timeout)


def allow_files() -> int:
    """Raises the process's limit of open files to the hard one, and returns it.

    Shells and service managers leave the soft limit at 1,024 for the sake of `select`, which is not used here.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else max(soft, 1_048_576)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def room_for(connections: int, files: int) -> int:
    """How many client connections may be open: as many as asked for, but half of the files are for upstreams."""
    return max(1, min(connections, files // 2))


def bind(address: str) -> socket.socket:
    """A listening socket for HOST:PORT (IPv6 hosts in brackets). Raises OSError, and ValueError for a bad address."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def split_address(address: str) -> tuple[str, int]:
    """Raises ValueError where it is not HOST:PORT."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT, such as 127.0.0.1:4000")
    return host, int(port)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def show(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
