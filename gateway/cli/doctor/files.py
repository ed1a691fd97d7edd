"""Who else on the machine can read what they should not, and change what they must not.

Only the bits for "others" count: groups are how an operator shares on purpose (fsGroup in Kubernetes, systemd's Group).
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import NamedTuple

from gateway.cli.doctor.findings import Finding, count, failure, ok, warning

FILES = "files"
_BESIDE = ("", "-wal", "-shm")  # what SQLite makes beside a database


class Rule(NamedTuple):
    what: str
    secret: bool  # others must not read it
    grave: bool = True  # what others can read is a failure; else a warning
    beside: Sequence[str] = ("",)  # ends of the names of the files that it is


STORE = Rule("a store (ledger, cache)", secret=True, beside=_BESIDE)
ROUTES = Rule("the configuration", secret=False)
ROUTES_WITH_SECRETS = Rule("the configuration, with secrets in it,", secret=True)
KEY_FILE = Rule("a secret", secret=True, grave=False)  # container platforms mount them 0444


def judge(path: Path, mode: int, rule: Rule) -> Finding | None:
    """`mode`: as of `stat`; of several files, all bits of them. None where all is well."""
    files = f"{path}*" if len(rule.beside) > 1 else str(path)
    octal = f"mode {stat.S_IMODE(mode):04o}"
    if mode & stat.S_IWOTH:
        return failure(FILES, path.name, f"{rule.what} can be changed by anybody on this machine ({octal})",
                       f"chmod o-rwx {files}")  # fmt: skip
    if rule.secret and mode & stat.S_IROTH:
        make = failure if rule.grave else warning
        fix = f"chmod o-rwx {files}" if rule.grave else f"chmod o-rwx {files}, unless a container's platform mounts it"
        return make(FILES, path.name, f"{rule.what} can be read by anybody on this machine ({octal})", fix)
    return None


def look(wanted: Mapping[Path, Rule]) -> list[Finding]:
    found: list[Finding] = []
    looked = 0
    for path, rule in wanted.items():
        modes = [mode for end in rule.beside if (mode := _mode(Path(f"{path}{end}")))]
        looked += len(modes)
        if (wrong := judge(path, reduce(or_, modes, 0), rule)) is not None:
            found.append(wrong)
    return found or [ok(FILES, count(looked, "file"), "nobody else can read or change what is not theirs")]


def _mode(path: Path) -> int:
    """0 where there is no file, but a directory say: that is somebody else's finding."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return 0
    return mode if stat.S_ISREG(mode) else 0


def wanted(routes: Path, *, literal: bool, stores: Sequence[str], secrets: Sequence[str]) -> dict[Path, Rule]:
    """`literal`: whether secrets stand in routes.yaml itself; `stores`: DSNs; `secrets`: as `${file:...}` has them."""
    of = {routes: ROUTES_WITH_SECRETS if literal else ROUTES}
    of |= {Path(dsn.removeprefix("sqlite:///")): STORE for dsn in stores if dsn.startswith("sqlite:///")}
    return of | {routes.absolute().parent / name: KEY_FILE for name in secrets}
