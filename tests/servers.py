"""A real `gateway serve` process for tests: started on free ports, looked into, stopped, or killed by its pid."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import httpx

BIN = Path(sys.executable).parent / "gateway"
SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:]\w*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
T = TypeVar("T")


def _ports() -> Iterator[int]:
    """Below those that systems give to outgoing connections, so that nobody takes one between now and its use. Each
    process of pytest-xdist has a range of its own, and begins somewhere in it.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 5
    first, many = 12_000 + 4_000 * worker, 4_000
    for number in itertools.count(secrets.randbelow(many)):
        yield first + number % many


PORTS = _ports()


def free_port() -> int:
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("the ports never end")


def until(what: str, look: Callable[[], T | None], timeout: float = 60.0) -> T:
    """Asks `look` until it gives something true: for what another process does without announcing it.

    The limit is for what never comes: on a machine that is busy with others, a process may stand still for seconds.
    """
    deadline = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {timeout} s in vain for: {what}"
        time.sleep(0.02)
    return found


def fastest(most: float, act: Callable[[], float], tries: int = 4) -> float:
    """Seconds that `act` says it took, the least of up to so many tries; none follows one below `most`.

    For what is promised to be that fast: other work on a machine makes it slower, nothing makes it faster than it is.
    """
    took = act()
    while took >= most and tries > 1:
        took, tries = min(took, act()), tries - 1
    return took


class Sample(NamedTuple):
    name: str
    labels: Mapping[str, str]
    value: float


class Gateway:
    """Use as a context manager. `directory` gets routes.yaml, the log and, by default, the ledger."""

    def __init__(
        self,
        directory: Path,
        routes: str,
        *,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        listen: str = "127.0.0.1",
    ) -> None:
        self.directory = directory
        self.routes = directory / "routes.yaml"
        self.routes.write_text(routes)
        self.port, self.ops_port = free_port(), free_port()
        self.url, self.ops_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.ops_port}"
        self.log_path = directory / "gateway.log"
        self.command = [str(BIN), "serve", "--config", str(self.routes), "--listen", f"{listen}:{self.port}"]
        self.command += ["--ops-listen", f"127.0.0.1:{self.ops_port}", "--log-format", "json"]
        self.command += [*args] if "--drain-delay" in args else ["--drain-delay", "10ms", *args]
        # Only what a process needs to run: no proxy, key or setting of the machine that tests run on.
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        self.env = {**keep, **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=self.url, trust_env=False, timeout=120)
        self.ops = httpx.Client(base_url=self.ops_url, trust_env=False, timeout=60)

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.client.close()
            self.ops.close()
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.ops.close()
        if self.process and self.process.poll() is None:
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGTERM)  # twice: now
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def run_to_end(self, timeout: float = 60.0) -> int:
        """For a start that must fail: the exit code."""
        self.start()
        assert self.process is not None
        try:
            return self.process.wait(timeout)
        finally:
            self.kill()

    def restart(self) -> None:
        """Ends it as SIGTERM does, and starts it anew."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        assert self.process.wait(60) == 0
        self.start()
        self.wait_ready()

    def wait_ready(self, timeout: float = 120.0) -> None:
        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"the gateway ended with {self.process.returncode}:\n{self.log}"
            try:
                return self.ops.get("/readyz").status_code == 200 and self.client.get("/healthz").status_code == 200
            except httpx.TransportError:
                return False

        until("the gateway to be ready", ready, timeout)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def signal(self, number: int) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)

    def stop(self, timeout: float = 60.0) -> int:
        """SIGTERM, then waits: the exit code."""
        assert self.process is not None
        self.signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def post(self, path: str = "/v1/chat/completions", **given: Any) -> httpx.Response:
        return self.client.post(path, **given)

    def chat(self, model: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], **more}
        return self.client.post("/v1/chat/completions", json=body, headers=headers)

    def samples(self) -> list[Sample]:
        text = self.ops.get("/metrics").raise_for_status().text
        found = [SAMPLE.match(line) for line in text.splitlines() if not line.startswith("#")]
        return [Sample(m["name"], dict(LABEL.findall(m["labels"] or "")), float(m["value"])) for m in found if m]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of a name that have these labels."""
        wanted = labels.items()
        return sum(s.value for s in self.samples() if s.name == name and wanted <= s.labels.items())

    def reload(self, routes: str) -> None:
        """Saves a changed file as editors do: the new content in one move."""
        new = self.directory / "routes.yaml.new"
        new.write_text(routes)
        new.replace(self.routes)

    def rows(self, query: str = "SELECT * FROM requests ORDER BY started", *values: str) -> list[dict[str, Any]]:
        """What the ledger file holds, read as another program would; nothing before the first batch."""
        if not (ledger := self.directory / "gateway.db").exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]

    def wait_rows(self, count: int, timeout: float = 60.0) -> list[dict[str, Any]]:
        """The rows of the ledger once there are at least `count`: they are written in batches."""

        def enough() -> list[dict[str, Any]]:
            rows = self.rows()
            return rows if len(rows) >= count else []

        return until(f"{count} rows in the ledger", enough, timeout)
