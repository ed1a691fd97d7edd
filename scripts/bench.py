"""Direct, nginx and the gateway side by side: throughput, CPU, latency, memory, start. Run by scripts/bench."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts.lib.load import KEY, request

LIB = Path(__file__).parent / "lib"

PYTHON, GATEWAY = sys.executable, str(Path(sys.executable).parent / "gateway")
TICK = os.sysconf("SC_CLK_TCK")
PINNED = bool(shutil.which("taskset")) and (os.cpu_count() or 1) >= 2
ROUNDS, WRK_SECONDS, STREAMS, EVENTS = 3, 3, 60, 500
GUARD_ROUNDS, GUARD_SECONDS = 7, 2

NGINX = """
worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; keepalive_requests 10000000;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 10000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""
ROUTES = """
version: 1
providers: {{static: {{base_url: "http://127.0.0.1:{upstream}/v1"}}}}
models:
  small: {{provider: static, model: static, price: {{input: 0.28, cached_input: 0.028, output: 0.42}}}}
  large: {{provider: static, model: static-large, price: {{input: 1.25, output: 10}}}}
tasks:
  coding: {{when: [{{last_message: "(?i)traceback|stack trace|refactor"}}]}}
  support: {{when: [{{system_prompt: "(?i)customer (service|support)"}}]}}
routes:
  - {{name: coding, match: {{task: coding}}, use: [large], fallback: [small]}}
  - {{name: support, match: {{task: support}}, use: [small], order: cheapest, fallback: [large]}}
  - {{name: default, match: {{model: [auto, "gpt-*"]}}, use: [small], fallback: [large], baseline: large}}
"""
KEYS = """
keys:
  - {{name: bench, value: "{key}", team: bench{guarded}}}
"""
GUARDED = ", limits: {requests_per_minute: 1000000, tokens_per_minute: 1000000000, max_in_flight: 1000}"
BUDGETS = """
limits:
  - {requests_per_minute: 1000000}
budgets:
  - {name: company, limit_usd: 1000000}
  - {name: teams, per: team, limit_usd: 100000}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def on_core(core: int, command: Sequence[str]) -> list[str]:
    return ["taskset", "-c", str(core), *command] if PINNED else list(command)


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[int]:
    """Yields the pid; `taskset` has become the program itself by then."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    head, _, body = request(stream=False).partition(b"\r\n\r\n")
    lines = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:]]
    try:
        connection.request("POST", "/v1/chat/completions", body, dict(lines))
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def until_first_answer(port: int, log: Path) -> float:
    began = time.perf_counter()
    while not answers(port):
        if time.perf_counter() - began > 20:
            sys.exit(f"no answer on port {port}:\n{log.read_text()}")
        time.sleep(0.005)
    return time.perf_counter() - began


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found, queue = [], [pid]
    while queue:
        found.append(current := queue.pop())
        queue += parents.get(current, [])
    return found


def cpu_seconds(pid: int) -> float:
    fields = [Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split() for p in family(pid)]
    return sum(int(f[11]) + int(f[12]) for f in fields) / TICK


def rss_mb(pid: int) -> float:
    pages = [int(Path(f"/proc/{p}/statm").read_text().split()[1]) for p in family(pid)]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def load(*arguments: str) -> dict[str, float]:
    command = on_core(1, [PYTHON, str(LIB / "load.py"), *arguments])
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def wrk(port: int, script: Path, seconds: int = WRK_SECONDS) -> tuple[int, float]:
    """Requests answered, and requests per second."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    command = on_core(1, ["wrk", "-t1", "-c32", f"-d{seconds}s", "-s", str(script), url])
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit(f"errors under load:\n{text}")
    rate, count = re.search(r"Requests/sec:\s+([\d.]+)", text), re.search(r"(\d+) requests in", text)
    if not rate or not count:
        sys.exit(f"wrk said nothing that we know:\n{text}")
    return int(count[1]), float(rate[1])


def wrk_script(directory: Path) -> Path:
    body = request(stream=False).partition(b"\r\n\r\n")[2].decode()
    lines = ['wrk.method = "POST"', f"wrk.body = '{body}'", 'wrk.headers["Content-Type"] = "application/json"']
    path = directory / "post.lua"
    path.write_text("\n".join([*lines, f'wrk.headers["Authorization"] = "Bearer {KEY}"']))
    return path


class Target:
    """One way to the upstream, and what was measured of it."""

    def __init__(self, name: str, port: int, pid: int, started: float) -> None:
        self.name, self.port, self.pid = name, port, pid
        self.figures: dict[str, float] = {"start s": started, "RSS MB idle": rss_mb(pid)}
        self.samples: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        self.samples.setdefault(name, []).append(value)

    def settle(self) -> dict[str, float]:
        return {**{name: statistics.median(values) for name, values in self.samples.items()}, **self.figures}


def measure(targets: Sequence[Target], script: Path) -> None:
    say("throughput")
    for target in targets:
        wrk(target.port, script, 1)  # warm
    for _ in range(ROUNDS):
        for target in targets:
            before = cpu_seconds(target.pid)
            count, rate = wrk(target.port, script)
            target.add("requests/s", rate)
            target.add("CPU us/request", 1e6 * (cpu_seconds(target.pid) - before) / count)
    say("streams")
    for _ in range(ROUNDS):
        for target in targets:
            before = cpu_seconds(target.pid)
            seen = load("streams", str(target.port), "--count", str(STREAMS), "--connections", "20")
            target.add("CPU us/SSE event", 1e6 * (cpu_seconds(target.pid) - before) / (STREAMS * EVENTS))
            target.add("events/s", seen["events"] / seen["seconds"])
    say("latency at half of the gateway's load")
    rate = statistics.median(targets[-1].samples["requests/s"]) / 2
    for _ in range(ROUNDS):
        for target in targets:
            seen = load("paced", str(target.port), "--rate", f"{rate:.0f}", "--seconds", "2.5")
            target.add("p50 ms", seen["p50"])
            target.add("p99 ms", seen["p99"])
    for target in targets:
        target.figures["RSS MB loaded"] = rss_mb(target.pid)  # after well over 20,000 requests


def guards(targets: Sequence[Target], script: Path) -> dict[str, float]:
    """What a key, limits and two budgets add to a request, CPU us: the median of pairs of runs, one after the other."""
    say("key, limits and two budgets")
    added = []
    for target in targets:
        wrk(target.port, script, 1)  # warm
    for number in range(GUARD_ROUNDS):
        for target in targets if number % 2 else targets[::-1]:
            before = cpu_seconds(target.pid)
            count, _ = wrk(target.port, script, GUARD_SECONDS)
            target.add("CPU us/request", 1e6 * (cpu_seconds(target.pid) - before) / count)
        added.append(targets[1].samples["CPU us/request"][-1] - targets[0].samples["CPU us/request"][-1])
    without, guarded = (target.settle()["CPU us/request"] for target in targets)
    return {"without": without, "with": guarded, "added": statistics.median(added), "ratio": guarded / without}


def say(text: str) -> None:
    print(f"· {text}", file=sys.stderr, flush=True)


def serve(stack: contextlib.ExitStack, directory: Path, routes: str) -> tuple[int, int, float]:
    """Starts a gateway: its port, its pid, and the seconds until it answered."""
    directory.mkdir()
    (directory / "routes.yaml").write_text(routes)
    port, log = free_port(), directory / "log"
    command = [GATEWAY, "serve", "--config", str(directory / "routes.yaml"), "--drain-delay", "10ms"]
    command += ["--listen", f"127.0.0.1:{port}", "--ops-listen", f"127.0.0.1:{free_port()}"]
    pid = stack.enter_context(running(on_core(0, command), log))
    return port, pid, until_first_answer(port, log)


def bench(directory: Path) -> dict[str, Any]:
    upstream, nginx = free_port(), free_port()
    (directory / "nginx.conf").write_text(NGINX.format(dir=directory, upstream=upstream, port=nginx))
    log, script = directory / "log", wrk_script(directory)
    with contextlib.ExitStack() as stack:
        direct_pid = stack.enter_context(
            running(on_core(1, [PYTHON, str(LIB / "static_upstream.py"), str(upstream)]), log)
        )
        targets = [Target("direct", upstream, direct_pid, until_first_answer(upstream, log))]
        proxy = on_core(0, ["nginx", "-c", str(directory / "nginx.conf"), "-e", str(directory / "error.log")])
        pid = stack.enter_context(running(proxy, log))
        targets.append(Target("nginx", nginx, pid, until_first_answer(nginx, log)))
        routes = ROUTES.format(upstream=upstream)
        keyed = routes + KEYS.format(key=KEY, guarded="")
        targets.append(Target("gateway", *serve(stack, directory / "gateway", keyed)))
        measure(targets, script)
        guarded = routes + KEYS.format(key=KEY, guarded=GUARDED) + BUDGETS
        pair = [
            Target("without", *serve(stack, directory / "without", routes)),
            Target("with", *serve(stack, directory / "with", guarded)),
        ]
        found = derive({target.name: target.settle() for target in targets})
        return {**found, "guards": guards(pair, script)}


def derive(results: dict[str, dict[str, float]]) -> dict[str, Any]:
    direct = results["direct"]
    for name in ("nginx", "gateway"):
        for quantile in ("p50", "p99"):
            results[name][f"added {quantile} ms"] = results[name][f"{quantile} ms"] - direct[f"{quantile} ms"]
    for name in ("CPU us/request", "CPU us/SSE event", "RSS MB idle", "RSS MB loaded", "start s"):
        direct.pop(name)  # the upstream's own: not a proxy
    nginx, gateway = results["nginx"], results["gateway"]
    ratios = {name: gateway[name] / nginx[name] for name in gateway if nginx.get(name)}
    return {"targets": results, "gateway_to_nginx": ratios, "pinned": PINNED}


def table(found: dict[str, Any]) -> None:
    names = list(found["targets"]["gateway"])
    print(f"\n{'':18}{'direct':>12}{'nginx':>12}{'gateway':>12}{'gateway/nginx':>16}")
    for name in names:
        cells = [found["targets"][target].get(name) for target in ("direct", "nginx", "gateway")]
        row = "".join(f"{'-' if cell is None else f'{cell:,.2f}':>12}" for cell in cells)
        ratio = found["gateway_to_nginx"].get(name)
        print(f"{name:18}{row}{'-' if ratio is None else f'{ratio:.2f}':>16}")
    told = "  ".join(f"{name} {figure:,.2f}" for name, figure in found["guards"].items())
    print(f"\nKey, limits and two budgets, CPU us/request: {told}")
    print(
        "\nOne worker each, loopback, c=32; "
        + ("pinned to cores." if PINNED else "NOT pinned: no taskset or one core.")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What the gateway costs, beside a direct call and nginx.")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = bench(Path(directory))
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        table(found)


if __name__ == "__main__":
    main()
