"""What `gateway serve` was told."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

from gateway.admission import MAX_IN_FLIGHT
from gateway.server.protocol import Limits
from gateway.telemetry.log import Format


class Sockets(NamedTuple):
    """The two listeners, bound."""

    public: socket.socket
    ops: socket.socket


class Sizes(NamedTuple):
    """Bytes of a request's body at most."""

    body: int = 32 * 1024 * 1024
    upload: int = 100 * 1024 * 1024  # of a form with files


class Options(NamedTuple):
    config: Path
    workers: int = 1
    drain_delay: float = 5.0  # seconds to go on serving after SIGTERM, while load balancers take the endpoint off
    drain_timeout: float = 30.0  # seconds for answers under way after that
    max_in_flight: int = MAX_IN_FLIGHT  # requests that a process works on at a time
    max_connections: int = Limits().connections  # of clients, to a process
    max_body: int = Sizes().body
    max_upload: int = Sizes().upload
    log_format: Format = "text"

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.max_body, self.max_upload)
