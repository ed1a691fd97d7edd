"""A real Prometheus for tests: scrapes gateways once a second, evaluates the shipped rules, answers PromQL.

Debian's package `prometheus` has it and `promtool`, `prometheus-alertmanager` the Alertmanager. Where they are missing,
tests skip and say so; in CI they fail.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import pytest
import yaml

from tests.servers import free_port, until

RULES = Path(__file__).parent.parent / "grafana" / "prometheus"
PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
}


def tool(name: str) -> str:
    """Where a program is. Without it: a skip that says what to install, in CI a failure."""
    if found := shutil.which(name):
        return found
    missing = f"{name} is not installed (Debian: apt-get install {PACKAGES[name]})"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def rule_files() -> list[Path]:
    """The shipped ones, as prometheus.yaml names them."""
    config = yaml.safe_load((RULES / "prometheus.yaml").read_text())
    return [RULES / name for name in config["rule_files"]]


class Point(NamedTuple):
    """One series of an instant query's answer."""

    labels: Mapping[str, str]
    value: float


class Daemon:
    """A program that serves HTTP on loopback until the block ends. Use as a context manager."""

    def __init__(self, directory: Path, command: Sequence[str], port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, trust_env=False, timeout=60)
        self._command = command
        self._log = directory / f"{Path(command[0]).name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until(f"{self._log.stem} to be ready", self._ready, 60)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self._stop()

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self._log.stem} ended:\n{self._log.read_text()}"
        try:
            return self.client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def _stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Alertmanager(Daemon):
    """The shipped example of one, in a hurry, with `receivers`' web addresses in place of its own."""

    def __init__(self, directory: Path, receivers: Mapping[str, str]) -> None:
        binary, port = tool("prometheus-alertmanager"), free_port()
        config = yaml.safe_load((RULES / "alertmanager.yaml").read_text())
        config["route"] |= {"group_wait": "0s", "group_interval": "1s"}
        for receiver in config["receivers"]:
            for hook in receiver.get("webhook_configs", ()):
                hook["url"] = receivers[receiver["name"]]
        path = directory / "alertmanager.yaml"
        path.write_text(yaml.safe_dump(config))
        command = [binary, f"--config.file={path}", f"--storage.path={directory / 'alertmanager'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=warn"]
        super().__init__(directory, command, port)
        self.address = f"127.0.0.1:{port}"


class Prometheus(Daemon):
    """Scrapes `targets` ("127.0.0.1:9464": a gateway's operations listener) as the job `gateway`, every second."""

    def __init__(
        self,
        directory: Path,
        targets: Sequence[str],
        *,
        rules: Sequence[Path] | None = None,
        alertmanager: str = "",
    ) -> None:
        """`rules`: the shipped ones where not given. `alertmanager`: its "HOST:PORT". `directory` gets the data."""
        binary, port = tool("prometheus"), free_port()
        config: dict[str, Any] = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in (rule_files() if rules is None else rules)],
            "scrape_configs": [{"job_name": "gateway", "static_configs": [{"targets": list(targets)}]}],
        }
        if alertmanager:
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        path = directory / "prometheus.yaml"
        path.write_text(yaml.safe_dump(config))
        command = [binary, f"--config.file={path}", f"--storage.tsdb.path={directory / 'prometheus'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        super().__init__(directory, command, port)

    def query(self, promql: str, at: float | None = None) -> list[Point]:
        """An instant query now, or `at` a Unix time. Its error as an assertion with Prometheus' own words."""
        asked = {"query": promql} | ({} if at is None else {"time": str(at)})
        answer = self.client.post("/api/v1/query", data=asked).json()
        assert answer["status"] == "success", f"{promql}\n{answer.get('error')}"
        data = answer["data"]
        if data["resultType"] == "scalar":
            return [Point({}, float(data["result"][1]))]
        return [Point(series["metric"], float(series["value"][1])) for series in data["result"]]

    def value(self, promql: str, at: float | None = None) -> float | None:
        """Of a query that has one series or none."""
        found = self.query(promql, at)
        assert len(found) <= 1, f"{promql} has {len(found)} series"
        return found[0].value if found else None

    def wait(self, promql: str, timeout: float = 60.0) -> list[Point]:
        """The answer of a query once it has one: use comparisons, `up == 1`."""
        return until(promql, lambda: self.query(promql), timeout)

    def steady(self, since: float) -> float:
        """The moment (Unix seconds) of a scrape after `since`, once none was late or missing for four seconds.

        On a busy machine some take longer than they may: then all gauges have no value until the next, nor what rules
        make of them.
        """
        asked = f"timestamp(up) > {since:.3f} and min_over_time(up[4s]) == 1 and count_over_time(up[4s]) >= 4"
        return self.wait(asked, 300)[0].value

    def wait_all(self, *promql: str, timeout: float = 120.0) -> None:
        """Until each has had an answer. Says which had none."""
        missing = [*promql]

        def all_there() -> bool:
            missing[:] = [query for query in missing if not self.query(query)]
            return not missing

        try:
            until("all to have data", all_there, timeout)
        except AssertionError as error:
            raise AssertionError(f"after {timeout} s no data: {', '.join(missing)}") from error

    def get(self, path: str, **params: str) -> Any:
        """`data` of another endpoint of the API: `get("/api/v1/rules")`, `get("/api/v1/query_range", query=...)`."""
        answer = self.client.get(path, params=params).json()
        assert answer["status"] == "success", answer
        return answer["data"]
