"""What an image, a unit or a chart starts, started here as they say: the same arguments, account, files and mounts.

There is no container engine where these tests run. `contain.py` does what one does with the kernel; the files of the
image come from this checkout and its .venv, put where the Dockerfile puts them. Needs root: without it tests skip and
say so, in CI they fail.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
import pytest

from tests.deploy.contain import CLONE_NEWNET, checked
from tests.servers import until

ROOT = Path(__file__).parent.parent.parent
PREFIX = Path("/opt/open-model-gateway")
SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # links into /usr, or folders
T = TypeVar("T")


def need_root() -> None:
    """Skips too where a sandbox lets nobody make namespaces, root included: nothing of ours can change that."""
    if os.geteuid() == 0:
        if refused := _no_namespaces():
            pytest.skip(f"this machine lets nobody make namespaces: {refused}")
        return
    missing = "namespaces and an account without rights: run as root"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@functools.cache
def _no_namespaces() -> str:
    tried = ["unshare", "--mount", "--ipc", "--pid", "--net", "--fork", "mount", "-t", "tmpfs", "none", "/mnt"]
    made = subprocess.run(tried, capture_output=True, text=True, check=False)
    return "" if made.returncode == 0 else made.stderr.strip() or f"exit code {made.returncode}"


@dataclass(frozen=True)
class Spec:
    """`files`: put into the image, target -> source. `volumes`: mounted, target -> (source, "ro" | "rw")."""

    argv: Sequence[str]
    uid: int
    cwd: str = "/"
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    volumes: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    tmpfs: Sequence[str] = ("/tmp",)  # noqa: S108  # the container's own
    calls: Sequence[str] = ()  # of the kernel, that are allowed; none said: all
    families: Sequence[int] = ()  # of sockets, where there are calls
    proc: str = "defaults"  # options of its mount
    network: int = 0  # the process whose network it shares; 0: one of its own


def installed(prefix: Path | None = None) -> dict[str, Path]:
    """The packages at /opt/open-model-gateway: those that tests run with, or of an installation elsewhere."""
    home = prefix or Path(sys.prefix)
    return {str(PREFIX / name): home / name for name in ("bin", "lib", "pyvenv.cfg")}


class Network:
    """Another process's network: what is done `inside` of it is done by a thread that has joined it."""

    def __init__(self, pid: int) -> None:
        self._pid, self._pool = pid, ThreadPoolExecutor(1)
        self._pool.submit(self._enter).result()

    def _enter(self) -> None:
        with Path(f"/proc/{self._pid}/ns/net").open("rb") as namespace:
            checked(ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET))

    def inside(self, act: Callable[[], T]) -> T:
        return self._pool.submit(act).result(180)

    def close(self) -> None:
        self._pool.shutdown()


class Container:
    """Use as a context manager. `directory` gets the root file system and the log."""

    def __init__(self, directory: Path, spec: Spec) -> None:
        need_root()
        self.spec, self._directory = spec, directory
        self.log_path = directory / "container.log"
        self._process: subprocess.Popen[str] | None = None
        self.pid = 0  # of the program, seen from outside
        self._network: Network | None = None
        self.api = httpx.Client(base_url="http://127.0.0.1:4000", trust_env=False, timeout=120)
        self.ops = httpx.Client(base_url="http://127.0.0.1:9464", trust_env=False, timeout=60)

    def __enter__(self) -> Self:
        described = self._directory / "spec.json"
        described.write_text(json.dumps(self._describe()))
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.deploy.contain", str(described)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        self.pid = int(self._process.stdout.readline())
        self._network = Network(self.pid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._network is not None:
            self._network.close()
        self.api.close()
        self.ops.close()
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()  # the program has asked the kernel to die with it
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _describe(self) -> dict[str, object]:
        spec, root = self.spec, self._directory / "root"
        for target, source in spec.files.items():
            place = root / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir() or source.is_symlink():
                place.symlink_to(source)
            else:
                shutil.copy(source, place)
        mounts = [["/usr", "/usr", "ro"]]
        for name in SYSTEM:
            if Path("/", name).is_symlink():
                (root / name).symlink_to(Path("/", name).readlink())
            elif Path("/", name).is_dir():
                mounts.append([f"/{name}", f"/{name}", "ro"])
        really = {f"{ROOT}/gateway", sys.prefix, sys.base_prefix}  # where packages and the interpreter are
        mounts += [[path, path, "ro"] for path in really if not path.startswith("/usr")]
        mounts += [[str(source), target, mode] for target, (source, mode) in spec.volumes.items()]
        return {
            "root": str(root),
            "mounts": mounts,
            "tmpfs": [*spec.tmpfs],
            "uid": spec.uid,
            "cwd": spec.cwd,
            "env": {**spec.env},
            "argv": [*spec.argv],
            "calls": [*spec.calls],
            "families": [*spec.families],
            "proc": spec.proc,
            "network": f"/proc/{spec.network}/ns/net" if spec.network else "",
        }

    def inside(self, act: Callable[[], T]) -> T:
        """Does it in the container's network."""
        assert self._network is not None
        return self._network.inside(act)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As `docker exec` does: a command in the container, as its account, with its environment."""
        uid = str(self.spec.uid)
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--ipc", "--pid", "--root", "--wd"]
        enter += [f"--setuid={uid}", f"--setgid={uid}"]
        environment = [f"{name}={value}" for name, value in self.spec.env.items()]
        return subprocess.run(
            [*enter, "/usr/bin/env", "-i", *environment, *command],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def output(self) -> str:
        """What a program that has ended printed."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.read()

    def alive(self) -> bool:
        assert self._process is not None
        return self._process.poll() is None

    def ready(self) -> bool:
        assert self.alive(), f"it ended:\n{self.log}"
        try:
            return self.inside(lambda: self.ops.get("/readyz").status_code == 200)
        except httpx.TransportError:
            return False

    def wait_ready(self) -> None:
        until("the container to be ready", self.ready, 120)

    def terminate(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def end_now(self) -> int:
        """A second SIGTERM, once the first is known to have come, is an end at once: the exit code."""
        self.terminate()
        until("the drain", lambda: "draining" in self.log or not self.alive(), 60)
        self.terminate()
        return self.wait()

    def wait(self, timeout: float = 120) -> int:
        assert self._process is not None
        return self._process.wait(timeout)

    def status(self) -> dict[str, str]:
        """What the kernel says of the program: Uid, CapEff, NoNewPrivs, NSpid ..."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
