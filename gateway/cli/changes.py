"""What the commands that change something share: the store behind a configuration, and who does it."""

from __future__ import annotations

import argparse
import getpass
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from gateway.config.types import Config
from gateway.errors import StoreUnavailable
from gateway.stores.audit import Change
from gateway.stores.schema import connect

BUSY = 5.0  # seconds that a command waits for the gateway's own writes


def common(action: argparse.ArgumentParser) -> None:
    """What every action of a command takes, after its own words too."""
    action.add_argument("--config", default=argparse.SUPPRESS, metavar="FILE", help="the configuration")
    action.add_argument("--json", action="store_true", help="the same for programs")


@contextmanager
def store(config: Config) -> Iterator[sqlite3.Connection]:
    """The file that `stores.counters` names; made where there is none. Raises StoreUnavailable."""
    path = Path(config.counters.removeprefix("sqlite:///"))
    try:
        with closing(connect(path, busy_seconds=BUSY)) as connection:
            yield connection
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailable(f"{path}: {error}") from error


def change(what: str, subject: str, reason: str) -> Change:
    try:
        who = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        who = "unknown"
    return Change(time.time(), f"cli:{who}", what, subject, reason=reason)
