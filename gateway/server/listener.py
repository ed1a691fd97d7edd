"""uvicorn, told to leave signals and logging to us; and the sockets it listens on."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Generator
from typing import Any

import uvicorn

from gateway.server.protocol import BoundedHttpProtocol

KEEP_ALIVE = (
    75  # seconds an idle client connection is kept: longer than the 60 s after which common load balancers drop theirs
)
BACKLOG = 2048


class Listener(uvicorn.Server):
    """One listener. `should_exit = True` stops accepting and waits for the answers under way."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """uvicorn would install its own handlers; the process has one set for both listeners."""
        yield


def listener(app: Any, *, drain_timeout: float) -> Listener:  # noqa: ANN401 - any ASGI application
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
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(drain_timeout)),
    )
    return Listener(config)


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
