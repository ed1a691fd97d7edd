"""The parsers that deploy/ is held against, in an environment of their own that scripts/test makes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
HOME = ROOT / ".venv-clients"
PACKAGES = {
    "node": "nodejs",
    "promtool": "prometheus",
    "amtool": "prometheus-alertmanager",
    "systemd-nspawn": "systemd-container",
}  # all else: systemd


def missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def parser(name: str) -> str:
    """`docker-compose`, `hadolint`, `kubernetes-validate`, or the `python` that has Helm."""
    found = HOME / "deploy/bin" / name
    if name == "docker-compose":  # itself: the script beside it forgets how it ended
        found = next((HOME / "deploy").glob("lib/python*/site-packages/compose/docker-compose"), found)
    if not found.exists():
        missing("no .venv-clients/deploy: scripts/test makes it")
    return str(found)


def node_home() -> Path:
    found = HOME / "deploy-crds"
    if not (found / "node_modules").exists():
        missing("no .venv-clients/deploy-crds: scripts/test makes it, where npm is")
    return found


def system(name: str) -> str:
    if found := shutil.which(name):
        return found
    missing(f"{name} is not installed (Debian: apt-get install {PACKAGES.get(name, 'systemd')})")
    raise AssertionError


def run(
    command: Sequence[str], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Only what a program needs to run, no setting of this machine beside `env`."""
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    given = {**keep, **(env or {})}
    return subprocess.run(
        command, cwd=cwd, env=given, input=stdin, capture_output=True, text=True, timeout=600, check=False
    )


def passes(command: Sequence[str], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None, stdin: str = "") -> str:
    """What it printed. It must exit 0."""
    ended = run(command, cwd=cwd, env=env, stdin=stdin)
    assert ended.returncode == 0, f"{command}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return ended.stdout
