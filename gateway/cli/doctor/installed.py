"""What runs: Python, this release, and whether its packages are those that were locked and tested."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import gateway
from gateway.cli.doctor.findings import Finding, ok, warning

VERSION = "version"
LOCK = "requirements.lock"
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^ ;\\]+)", re.MULTILINE)
_SHOWN = 5


def look() -> list[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    running = ok(VERSION, "gateway", f"{gateway.__version__} on Python {python}")
    lock = Path(gateway.__file__).parent.parent / LOCK
    if not lock.is_file():
        return [running, ok(VERSION, "packages", "no lock beside the gateway: as its package's own pins have them")]
    return [running, compare(locked(lock.read_text()), here())]


@cache
def here() -> Mapping[str, str]:
    """The packages of this environment and their versions, which do not change while it runs."""
    return {_plain(each.name): each.version for each in distributions()}


def locked(text: str) -> dict[str, set[str]]:
    """The versions that a lock allows for each package; more than one where they differ by Python or platform."""
    found: dict[str, set[str]] = {}
    for name, version in _PINNED.findall(text):
        found.setdefault(_plain(name), set()).add(version)
    return found


def compare(lock: Mapping[str, set[str]], have: Mapping[str, str]) -> Finding:
    """A package that is not there is none: what is missing and needed stops the gateway, and this command too."""
    other = [f"{name} {have[name]} (locked: {' or '.join(sorted(lock[name]))})"
             for name in sorted(lock) if name in have and have[name] not in lock[name]]  # fmt: skip
    if other:
        more = f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
        return warning(VERSION, "packages", f"not as locked: {', '.join(other[:_SHOWN])}{more}",
                       f"install with `pip install --require-hashes -r {LOCK}`: only the locked versions "
                       "were tested together")  # fmt: skip
    present = sum(name in have for name in lock)
    return ok(VERSION, "packages", f"{present} are installed, each in the version that {LOCK} has")


def _plain(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()
