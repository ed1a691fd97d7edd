"""What the commands that change something share."""

from __future__ import annotations

import argparse
import getpass
import time

from gateway import operations
from gateway.stores.audit import Change


def common(action: argparse.ArgumentParser) -> None:
    """What every action of a command takes, after its own words too."""
    action.add_argument("--config", default=argparse.SUPPRESS, metavar="FILE", help="the configuration")
    action.add_argument("--json", action="store_true", help="the same for programs")


def change(what: str, subject: str, reason: str) -> Change:
    """Raises Impossible for a reason that cannot be kept."""
    reason = operations.reason_of(reason)
    try:
        who = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        who = "unknown"
    return Change(time.time(), f"cli:{who}", what, subject, reason=reason)
