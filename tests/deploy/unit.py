"""What the systemd unit says, read as systemd.syntax(7) has it; and its sets of system calls, written out."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

from tests.deploy.container import Spec
from tests.deploy.tools import DEPLOY, passes, system

UNIT = DEPLOY / "systemd/open-model-gateway.service"
Settings = dict[str, list[str]]


def read(text: str) -> dict[str, Settings]:
    """Section -> setting -> its values in order. An empty value is kept: it empties a list."""
    found: dict[str, Settings] = {}
    section: Settings = {}
    lines = [line for line in text.splitlines() if not line.startswith(("#", ";"))]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif line.strip():
            name, _, value = line.partition("=")
            section.setdefault(name, []).append(value.strip())
    return found


def service() -> Settings:
    return read(UNIT.read_text())["Service"]


def groups() -> dict[str, list[str]]:
    """As systemd knows them: name -> calls and other groups."""
    found: dict[str, list[str]] = {}
    current = ""
    for line in passes([system("systemd-analyze"), "syscall-filter", "--no-pager"]).splitlines():
        name = line.strip()
        if line.startswith("@"):
            found[current := name] = []
        elif line.startswith("    ") and name and not name.startswith("#"):
            found[current].append(name)
    return found


def allowed_calls(filters: list[str]) -> list[str]:
    known = groups()

    def spelt(name: str) -> set[str]:
        return set().union(*(spelt(part) for part in known[name])) if name.startswith("@") else {name}

    # systemd allows these whatever the filter says, as otherwise nothing could be started.
    found = spelt("@default")
    for line in filters:
        for name in line.removeprefix("~").split():
            found = found - spelt(name) if line.startswith("~") else found | spelt(name)
    return sorted(found)


def spec(settings: Settings, *, uid: int, data: Path, files: dict[str, Path], env: dict[str, str]) -> Spec:
    """What systemd would start. `data`: the StateDirectory."""
    (start,), (directory,), (state,) = settings["ExecStart"], settings["WorkingDirectory"], settings["StateDirectory"]
    given = dict(word.split("=", 1) for line in settings["Environment"] for word in shlex.split(line))
    return Spec(
        argv=shlex.split(start),
        uid=uid,
        cwd=directory,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", **given, **env},
        files=files,
        volumes={f"/var/lib/{state}": (data, "rw")},
        calls=allowed_calls(settings["SystemCallFilter"]),
        families=[int(socket.AddressFamily[name]) for name in settings["RestrictAddressFamilies"][0].split()],
        proc="hidepid=invisible" if settings["ProtectProc"] == ["invisible"] else "defaults",
    )
