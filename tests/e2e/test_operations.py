"""The operator's side: reload, drain, workers, dry runs, restarts."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.telemetry.processes import NAMES
from tests import replies
from tests.servers import Gateway, fastest, until
from tests.upstream import Gate, Upstream

from .conftest import SECRET

ENV = {"UP_KEY": SECRET}


def reloads(gateway: Gateway, result: str) -> float:
    return gateway.metric("gateway_config_reloads_total", result=result)


def moved(routes: str) -> str:
    """`auto` goes to b instead of a."""
    return routes.replace('match: {model: [auto, "gpt-*"]}, use: [a]', 'match: {model: [auto, "gpt-*"]}, use: [b]')


def test_a_save_reroutes_the_next_request(tmp_path: Path, routes: str, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes, env=ENV) as gateway:
        assert gateway.chat("auto").headers["x-gateway-model"] == "a"
        files = {"a": routes, "b": moved(routes)}

        def save() -> float:
            goal = "a" if gateway.chat("auto").headers["x-gateway-model"] == "b" else "b"
            before = time.monotonic()
            gateway.reload(files[goal])
            until("the reload", lambda: gateway.chat("auto").headers["x-gateway-model"] == goal)
            return time.monotonic() - before

        assert fastest(2.0, save) < 2.0
        until("the count", lambda: reloads(gateway, "ok") >= 1)
        assert gateway.metric("gateway_config_last_reload_successful") == 1
    assert upstream.requests


def test_a_bad_save_changes_nothing_and_says_why(tmp_path: Path, routes: str, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes, env=ENV) as gateway:
        gateway.reload(moved(routes).replace("use: [b]", "use: [nosuch]").replace("version: 1", "version: 1\nrouts: 1"))
        until("the rejection", lambda: reloads(gateway, "rejected") == 1)
        assert gateway.chat("auto").headers["x-gateway-model"] == "a"
        until("both problems in the log", lambda: "nosuch" in gateway.log and "routs" in gateway.log)
        assert gateway.metric("gateway_config_last_reload_successful") == 0
        gateway.reload("version: [\x00")
        until("the second rejection", lambda: reloads(gateway, "rejected") == 2)
        gateway.routes.unlink()
        assert gateway.chat("auto").headers["x-gateway-model"] == "a"
        gateway.reload(moved(routes))
        until("the reload", lambda: gateway.chat("auto").headers["x-gateway-model"] == "b")
        until("the gauge", lambda: gateway.metric("gateway_config_last_reload_successful") == 1)
    assert upstream.requests


@pytest.mark.parametrize("args", [[], ["--workers", "2"]], ids=["one process", "two workers"])
def test_the_old_file_put_back_after_a_bad_one_is_a_good_one(tmp_path: Path, routes: str, args: list[str]) -> None:
    """It is in force already, but who was told of the bad one must hear that it is gone."""
    with Gateway(tmp_path, routes, env=ENV, args=args) as gateway:
        gateway.reload("version: 2")
        until("the rejection", lambda: reloads(gateway, "rejected") == 1)
        gateway.reload(routes)
        until("the gauge", lambda: gateway.metric("gateway_config_last_reload_successful") == 1)
        assert reloads(gateway, "ok") == 1


@pytest.mark.parametrize("args", [[], ["--workers", "2"]], ids=["one process", "two workers"])
def test_a_reload_is_one_line_and_so_is_each_warning(tmp_path: Path, routes: str, args: list[str]) -> None:
    """However many processes take it."""
    late = "  late: {base_url: http://x/v1, api_key: '${NOBODY_HAS_IT}'}\nmodels:\n"

    def told() -> list[dict[str, Any]]:
        """From the first reload on, but for what requests and the end of the process say."""
        whole = gateway.log.rpartition("\n")[0].splitlines()
        lines = [json.loads(line) for line in whole]
        first = next((at for at, line in enumerate(lines) if line["event"] == "reload"), len(lines))
        return [each for each in lines[first:] if each["event"] == "reload" or each["level"] == "warning"]

    with Gateway(tmp_path, routes, env=ENV, args=args) as gateway:
        gateway.reload("version: 2")
        until("the rejection", told)
        gateway.reload(moved(routes).replace("models:\n", late, 1))
        until("the reload", lambda: {fresh(gateway) for _ in range(12)} == {"b"})
        until("the warnings", lambda: len(told()) >= 4)
    rejected, accepted, *warnings = told()
    assert rejected["config"] != accepted["config"]
    assert "version: must be 1" in rejected["problems"]
    assert accepted.keys() == {"time", "level", "event", "result", "config"}
    assert [line["message"].split(" is ")[0] for line in warnings] == ["provider late", "model wild/*"]


def test_sighup_reloads_on_every_worker(tmp_path: Path, routes: str, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes, env=ENV, args=["--workers", "2"]) as gateway:
        gateway.routes.write_text(moved(routes))
        gateway.signal(signal.SIGHUP)
        until("the reload", lambda: {fresh(gateway) for _ in range(12)} == {"b"})
    assert upstream.requests


def fresh(gateway: Gateway) -> str:
    """The model that answers `auto` on a new connection, which any worker may get."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "x"}]}
    with httpx.Client(base_url=gateway.url, trust_env=False) as client:
        return str(client.post("/v1/chat/completions", json=body).headers["x-gateway-model"])


def test_a_call_in_flight_finishes_on_the_old_configuration(tmp_path: Path, routes: str, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("a-up", replies.ok("One two.", gate=gate))
    with Gateway(tmp_path, routes, env=ENV) as gateway, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(gateway.chat, "auto", stream=True)
        assert gate.reached.wait(60)
        gateway.reload(moved(routes))
        until("the reload", lambda: gateway.chat("auto").headers["x-gateway-model"] == "b")
        gate.open()
        assert waiting.result(60).headers["x-gateway-model"] == "a"
        assert waiting.result().text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("workers", [1, 2])
def test_metrics_show_every_process_of_the_gateway(tmp_path: Path, workers: int) -> None:
    """Also a worker that was started anew, and the embedded model; memory as the kernel counts it."""
    routes = "version: 1\nproviders: {local: {dialect: local}}\nmodels: {small: {provider: local, price: unmetered}}\n"
    with Gateway(tmp_path, routes, args=["--workers", str(workers)]) as gateway:
        expected = {"gateway", "model local"} | ({"worker 0", "worker 1"} if workers > 1 else set())

        def resident() -> dict[str, float]:
            found = [s for s in gateway.samples() if s.name == "process_resident_memory_bytes"]
            return {s.labels["process"]: s.value for s in found}

        def all_at_work() -> bool:
            found = resident()
            return set(found) == expected and min(found.values()) > 10_000_000

        until("all of them", all_at_work)
        pages = int(Path(f"/proc/{gateway.pid}/statm").read_text().split()[1])
        assert resident()["gateway"] == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE"), rel=0.2)
        names = {s.name for s in gateway.samples() if "process" in s.labels}
        assert names == set(NAMES)
        if workers > 1:
            began = gateway.metric("process_start_time_seconds", process="worker 0")
            children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
            [first] = [pid for pid in children if "\0--number\x000\0" in Path(f"/proc/{pid}/cmdline").read_text()]
            os.kill(int(first), signal.SIGKILL)
            until("its successor", lambda: gateway.metric("process_start_time_seconds", process="worker 0") > began)


@pytest.mark.parametrize("args", [[], ["--workers", "2"]], ids=["one process", "two workers"])
def test_sigterm_drains(tmp_path: Path, routes: str, upstream: Upstream, args: list[str]) -> None:
    gate = Gate()
    upstream.script("a-up", replies.ok("One two.", gate=gate))
    with (
        Gateway(tmp_path, routes, env=ENV, args=["--drain-delay", "3s", *args]) as gateway,
        ThreadPoolExecutor(1) as pool,
    ):
        streaming = pool.submit(gateway.chat, "a", stream=True)
        assert gate.reached.wait(60)
        gateway.signal(signal.SIGTERM)
        until("readiness to end", lambda: gateway.ops.get("/readyz").status_code == 503)
        assert fresh(gateway) == "a"  # still serving, for those who have not noticed yet

        def refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", gateway.port), timeout=1).close()
            except ConnectionError:
                return True
            return False

        until("no new connections", refused)
        assert gateway.process
        assert gateway.process.poll() is None
        gate.open()
        assert streaming.result(60).text.endswith("data: [DONE]\n\n")
        assert gateway.process.wait(60) == 0
        assert {row["outcome"] for row in gateway.wait_rows(2)} == {"ok"}


def test_a_second_sigterm_exits_now(tmp_path: Path, routes: str, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("a-up", replies.ok(gate=gate))
    with Gateway(tmp_path, routes, env=ENV) as gateway, ThreadPoolExecutor(1) as pool:
        streaming = pool.submit(gateway.chat, "a", stream=True)
        assert gate.reached.wait(60)
        gateway.signal(signal.SIGTERM)
        until("readiness to end", lambda: gateway.ops.get("/readyz").status_code == 503)
        began = time.monotonic()
        gateway.signal(signal.SIGTERM)
        assert gateway.process
        gateway.process.wait(60)
        assert time.monotonic() - began < 25  # the stream would go on for 30
        gate.open()
        assert streaming.exception(60) or "[DONE]" not in streaming.result().text


def test_the_drain_timeout_ends_streams(tmp_path: Path, routes: str, upstream: Upstream) -> None:
    upstream.script("a-up", replies.words_then([30.0], 1))
    with (
        Gateway(tmp_path, routes, env=ENV, args=["--drain-delay", "0s", "--drain-timeout", "1s"]) as gateway,
        ThreadPoolExecutor(1) as pool,
    ):
        streaming = pool.submit(gateway.chat, "wild/a-up", stream=True)
        upstream.wait_for(lambda up: len(up.requests) == 1)
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < 25  # of 30
        assert streaming.exception(60) or "[DONE]" not in streaming.result().text
        assert len(gateway.wait_rows(1)) == 1


def test_two_workers_count_as_one(tmp_path: Path, routes: str, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes, env=ENV, args=["--workers", "2"]) as gateway:
        models = [fresh(gateway) for _ in range(40)]
        assert models == ["a"] * 40
        until("all counted", lambda: gateway.metric("gateway_requests_total", outcome="ok") == 40)
        assert gateway.metric("gateway_tokens_total", type="input") == 40 * 12
        assert len(gateway.wait_rows(40)) == 40
    assert len(upstream.requests) == 40


def test_a_killed_worker_is_replaced(tmp_path: Path, routes: str, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes, env=ENV, args=["--workers", "2"]) as gateway:
        assert [fresh(gateway) for _ in range(4)] == ["a"] * 4
        children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        until("a new worker", lambda: new_child(gateway, children))
        until("service", lambda: [fresh(gateway) for _ in range(6)] == ["a"] * 6)
    assert upstream.requests


def new_child(gateway: Gateway, before: list[str]) -> bool:
    now = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    return len(now) == len(before) and set(now) != set(before)


def test_the_ledger_survives_kill_9_up_to_the_last_batch(tmp_path: Path, routes: str, upstream: Upstream) -> None:
    with Gateway(tmp_path, routes, env=ENV) as gateway:
        for _ in range(20):
            gateway.chat("a")
        gateway.wait_rows(20)
        gateway.kill()
        gateway.start()
        gateway.wait_ready()
        gateway.chat("a")
        assert len(gateway.wait_rows(21)) == 21
    assert len(upstream.requests) == 21


def test_a_dry_run_calls_nobody(gateway: Gateway, upstream: Upstream) -> None:
    answer = gateway.chat(
        "auto", messages=[{"role": "user", "content": "Traceback: x"}], headers={"x-gateway-dry-run": "true"}
    )
    assert answer.status_code == 200
    told = json.dumps(answer.json())
    assert all(f'"{word}"' in told for word in ("coding", "b", "b-up", "closed"))
    assert "Traceback: x" not in told
    assert upstream.requests == []


def test_a_model_that_cannot_is_skipped(gateway: Gateway, upstream: Upstream) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    assert gateway.chat("text-only").headers["x-gateway-model"] == "asleep"
    assert gateway.chat("text-only", tools=[tool]).headers["x-gateway-model"] == "a"
    assert [request.model for request in upstream.requests] == ["asleep-up", "a-up"]


def test_a_bad_file_does_not_start(tmp_path: Path, routes: str) -> None:
    bad = Gateway(tmp_path, routes.replace("use: [b]", "use: [nosuch]").replace("retries: 0", "retrys: 0"), env=ENV)
    assert bad.run_to_end() != 0
    assert "nosuch" in bad.log
    assert "retrys" in bad.log
    assert "Traceback (" not in bad.log


def test_a_port_in_use_is_said_plainly(gateway: Gateway, tmp_path: Path, routes: str) -> None:
    second = Gateway(tmp_path, routes, env=ENV)
    second.command[second.command.index("--listen") + 1] = f"127.0.0.1:{gateway.port}"
    assert second.run_to_end() != 0
    assert str(gateway.port) in second.log
    assert "Traceback (" not in second.log


def test_metrics_are_valid_and_labels_come_from_the_configuration(gateway: Gateway, upstream: Upstream) -> None:
    gateway.chat("wild/junk-name-1")
    gateway.chat("auto", headers={"x-gateway-task": "junk-task-2"})
    gateway.chat("gpt-junk-3")
    until("the counters", lambda: gateway.metric("gateway_requests_total", model="wild/*") == 1)
    text = gateway.ops.get("/metrics").text
    assert "junk" not in text
    assert "gateway_build_info" in text
    assert "gateway_config_info" in text
    assert upstream.requests
