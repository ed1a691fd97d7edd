"""The gateway shown at work: the shipped routes.yaml, the embedded open model, the OpenAI SDK. Run by scripts/demo."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from openai import OpenAI, OpenAIError

ROOT = Path(__file__).parent.parent
GATEWAY = Path(sys.executable).parent / "gateway"
ROUTES = ROOT / "routes.yaml"
LEDGER = ROOT / "gateway.db"
RULES = ROOT / "grafana" / "prometheus"
SAVED = "sum(gateway_savings_usd_total) - sum(gateway_extra_cost_usd_total)"
QUESTION = "What is an API gateway? Answer in one sentence."
HEADLINE = "all:gateway_headline_saving_usd_per_hour:rate5m"
TERMINAL = sys.stdout.isatty()


def bold(text: str) -> str:
    return f"\033[1m{text}\033[0m" if TERMINAL else text


def dim(text: str) -> str:
    return f"\033[2m{text}\033[0m" if TERMINAL else text


def heading(text: str) -> None:
    print(f"\n{bold(text)}", flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def serving(port: int, ops_port: int, log: Path) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    command = [str(GATEWAY), "serve", "--config", str(ROUTES), "--drain-delay", "10ms"]
    command += ["--listen", f"127.0.0.1:{port}", "--ops-listen", f"127.0.0.1:{ops_port}"]
    return running(command, log)


def fetch(url: str) -> bytes:
    """Empty where nothing, or nothing good, answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback never goes through a proxy
    with contextlib.suppress(OSError), opener.open(url, timeout=2) as answer:
        return bytes(answer.read())
    return b""


def wait_ready(process: subprocess.Popen[bytes], ops_port: int, log: Path) -> None:
    for _ in range(900):
        if process.poll() is not None:
            sys.exit(f"the gateway did not start:\n{log.read_text()}")
        if fetch(f"http://127.0.0.1:{ops_port}/readyz"):
            return
        time.sleep(0.1)
    sys.exit(f"the gateway was not ready within 90 s:\n{log.read_text()}")


class Prometheus:
    """Scrapes the gateway every second and evaluates the shipped rules. `with` starts it, where it is installed."""

    def __init__(self, directory: Path, ops_port: int) -> None:
        self.program = shutil.which("prometheus")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES / "recording.yaml"), str(RULES / "alerts.yaml")],
            "scrape_configs": [
                {"job_name": "gateway", "static_configs": [{"targets": [f"127.0.0.1:{ops_port}"]}]},
            ],
        }
        path = directory / "prometheus.yaml"
        path.write_text(json.dumps(config))  # which is YAML
        self._command = [str(self.program), f"--config.file={path}", f"--storage.tsdb.path={directory / 'data'}"]
        self._command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        self._log = directory / "prometheus.log"

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        if self.program is None:
            yield
            return
        with running(self._command, self._log):
            self.wait("count_over_time(up[1m]) >= 2")  # a rate needs the counters as they were before
            yield

    def wait(self, query: str, seconds: float = 60.0) -> float | None:
        """The answer once there is one."""
        deadline = time.monotonic() + seconds
        while (found := self.ask(query)) is None and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def ask(self, query: str) -> float | None:
        answer = fetch(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
        series = json.loads(answer)["data"]["result"] if answer else []
        return float(series[0]["value"][1]) if series else None


def usd(nano: int) -> str:
    return f"${Decimal(nano) / 1_000_000_000:.9f}"


def ledger_row(request_id: str) -> dict[str, Any] | None:
    """The request's row, which is written within a second of its end where the machine is not busy with others."""
    for _ in range(300):
        if LEDGER.exists():
            with contextlib.closing(sqlite3.connect(f"file:{LEDGER}?mode=ro", uri=True)) as connection:
                connection.row_factory = sqlite3.Row
                if row := connection.execute("SELECT * FROM requests WHERE id = ?", [request_id]).fetchone():
                    return dict(row)
        time.sleep(0.1)
    return None


def show(headers: Mapping[str, str]) -> None:
    """Where a request went and what it cost, from its headers and its row in the ledger."""
    route, task, model = (headers[f"x-gateway-{name}"] for name in ("route", "task", "model"))
    print(dim(f"  route {route}   task {task}   model {model} at {headers['x-gateway-provider']}"))
    row = ledger_row(headers["x-request-id"])
    if row is None:
        print(dim("  (its row is not in the ledger yet)"))
        return
    read, written = row["input_tokens"] + row["cached_input_tokens"], row["output_tokens"] + row["reasoning_tokens"]
    cost, baseline, closed = row["cost_nano"], row["baseline_nano"], row["baseline_model"]
    times = f"took {row['duration']:.2f} s, {1000 * row['overhead']:.2f} ms of it ours"
    print(dim(f"  tokens {read} in, {written} out   {times}"))
    if closed:
        print(f"  cost {usd(cost)}   {closed} would have cost {usd(baseline)}   saved {usd(baseline - cost)}")
    else:
        print(f"  cost {usd(cost)}")


def plain(client: OpenAI) -> None:
    heading("1. A plain request, with the OpenAI SDK")
    print(dim(f"  > {QUESTION}"))
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": QUESTION}], max_tokens=60
    )
    print(f"  {raw.parse().choices[0].message.content}")
    show(raw.headers)


def streamed(client: OpenAI) -> None:
    heading("2. A streamed request, with the OpenAI SDK")
    question = "Name three uses of a small language model."
    print(dim(f"  > {question}"))
    with client.chat.completions.with_streaming_response.create(
        model="auto",
        messages=[{"role": "user", "content": question}],
        max_tokens=80,
        stream=True,
        stream_options={"include_usage": True},
    ) as raw:
        print("  ", end="")
        for chunk in raw.parse():
            if chunk.choices and chunk.choices[0].delta.content:
                print(chunk.choices[0].delta.content.replace("\n", "\n  "), end="", flush=True)
        print()
        headers = raw.headers
    show(headers)


def explain() -> None:
    heading(f'3. Why the first went there: gateway explain --model auto --prompt "{QUESTION}"')
    command = [str(GATEWAY), "explain", "--config", str(ROUTES), "--model", "auto", "--prompt", QUESTION]
    subprocess.run(command, cwd=ROOT, check=True)


def savings(prometheus: Prometheus) -> None:
    heading("4. What Prometheus says")
    if prometheus.program is None:
        print("  It is not installed (Debian: apt-get install prometheus); the same numbers are at /metrics.")
        return
    prometheus.wait("sum(gateway_requests_total) >= 2")
    saved = prometheus.wait(SAVED)
    print(dim(f"  > {SAVED}"))
    if saved is None:
        print("  It has not answered within a minute: see docs/monitoring.md.")
        return
    print(f"  {signed(saved, 9)}   what the two requests saved, each charged its share of the machine")
    prometheus.wait("all:gateway_cost_usd_per_hour:rate5m > 0")
    headline, machine = prometheus.wait(HEADLINE), prometheus.ask("all:gateway_capacity_usd_per_hour:sum")
    print(dim(f"  > {HEADLINE}"))
    if headline is not None and machine is not None:
        print(f"  {signed(headline, 4)} an hour   the same with every idle second of the machine paid")
        print(f"  It costs ${machine:.2f} an hour, busy or idle; two requests do not fill it.")


def signed(usd: float, digits: int) -> str:
    return f"{'-' if usd < 0 else ''}${abs(usd):.{digits}f}"


def where_next() -> None:
    heading("Where to look next")
    print("  serve it    .venv/bin/gateway serve   (docs/quickstart.md goes on from there)")
    print("  routes      routes.yaml says who answers: edit it, and `.venv/bin/gateway check` says whether it is right")
    print("  ledger      gateway.db: one row a request, one an attempt; `.venv/bin/gateway report` adds it up")


def serves_on(port: int, ops_port: int, prometheus: Prometheus) -> None:
    heading("Serving until Ctrl-C")
    body = '{"model": "auto", "messages": [{"role": "user", "content": "Hello!"}]}'
    print(f"  ask it      curl http://127.0.0.1:{port}/v1/chat/completions \\")
    print(f"                -H 'content-type: application/json' -d '{body}'")
    print(f'  from code   OpenAI(base_url="http://127.0.0.1:{port}/v1", api_key="unused")')
    print(f"  metrics     http://127.0.0.1:{ops_port}/metrics")
    if prometheus.program is not None:
        print(f"  Prometheus  {prometheus.url}   (rules and alerts: docs/monitoring.md)")
    print("  routes      save a change of routes.yaml: the next request follows it", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Shows the gateway at work.")
    parser.add_argument("--once", action="store_true", help="exit after the two requests instead of serving on")
    once = parser.parse_args().once
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"  # what we talk to is on loopback
    port, ops_port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "gateway.log"
        heading("Starting the gateway with routes.yaml and the embedded open model (SmolLM2-135M)")
        prometheus = Prometheus(Path(directory), ops_port)
        with serving(port, ops_port, log) as process, contextlib.ExitStack() as more:
            wait_ready(process, ops_port, log)
            print(dim(f"  http://127.0.0.1:{port}/v1"))
            more.enter_context(prometheus.started())
            with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="unused", timeout=90) as client:
                plain(client)
                streamed(client)
            explain()
            savings(prometheus)
            where_next()
            if not once:
                serves_on(port, ops_port, prometheus)
                with contextlib.suppress(KeyboardInterrupt):
                    process.wait()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except OpenAIError as error:
        sys.exit(f"\nThe request failed: {error}\n`.venv/bin/gateway doctor` says more, and what mends it.")
