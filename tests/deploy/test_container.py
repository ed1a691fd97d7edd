"""The image's entry point, run as a container runtime does: the same arguments and account, read-only files."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.container import ROOT, Container, Spec, installed
from tests.deploy.dockerfile import Image, image
from tests.servers import until

KEY = "a-key-for-this-test-0123456789"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "Count from one to fifty."}]}
AUTHORIZED = {"authorization": f"Bearer {KEY}"}
SECRETS = {"GATEWAY_KEY": KEY}  # what `docker run -e` adds


def spec_of(target: Image, data: Path, *, env: dict[str, str] | None = None) -> Spec:
    """The files that the image gets from this checkout, and its packages; the volume is `data`."""
    from_context = {copy.target: ROOT / copy.sources[0] for copy in target.copies if not copy.stage}
    health = {"/opt/open-model-gateway/healthcheck.py": ROOT / "deploy/docker/healthcheck.py"}
    uid = int(target.user.partition(":")[0])
    data.mkdir()
    os.chown(data, uid, uid)
    (volume,) = target.volumes
    return Spec(
        argv=target.argv,
        uid=uid,
        cwd=target.workdir,
        env=target.env | (SECRETS if env is None else env),
        files={**installed(), **from_context, **health},
        volumes={volume: (data, "rw")},
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("container") / "data"


@pytest.fixture(scope="module")
def container(data: Path) -> Iterator[Container]:
    with Container(data.parent, spec_of(image("embedded"), data)) as started:
        started.wait_ready()
        yield started


def test_it_runs_as_process_1_of_an_account_without_rights(container: Container) -> None:
    status = container.status()
    assert status["Uid"].split() == ["10001"] * 4
    assert status["Gid"].split() == ["10001"] * 4
    assert status["Groups"] == ""
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["NSpid"].split()[-1] == "1"


@pytest.mark.parametrize("place", ["/", "/etc/open-model-gateway", "/opt/open-model-gateway", "/usr/local", "/var/lib"])
def test_nothing_can_be_written_but_the_volume_and_tmp(container: Container, place: str) -> None:
    refused = container.execute("/bin/sh", "-c", f"echo x > {place}/planted")
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stderr
    for writable in ("/var/lib/open-model-gateway", "/tmp"):  # noqa: S108  # the container's own
        assert (
            container.execute("/bin/sh", "-c", f"echo x > {writable}/planted && rm {writable}/planted").returncode == 0
        )


def test_the_health_check_of_the_image(container: Container) -> None:
    checked = container.execute(*image("embedded").healthcheck)
    assert (checked.returncode, json.loads(checked.stdout)) == (0, {"status": "ready"})
    elsewhere = container.execute(*image("embedded").healthcheck, "127.0.0.1:9")
    assert elsewhere.returncode == 1
    assert "refused" in elsewhere.stdout


def test_keys_are_made_where_exec_starts(container: Container) -> None:
    made = container.execute("gateway", "keys", "list", "--json")
    assert made.returncode == 0, made.stderr


def test_driven_and_drained(container: Container, data: Path) -> None:
    """Answers come from the real embedded model; SIGTERM comes in the middle of one."""
    api, ops = container.api, container.ops
    assert container.inside(lambda: api.post("/v1/chat/completions", json=BODY)).status_code == 401

    def answered() -> bool:
        answer = container.inside(
            lambda: api.post("/v1/chat/completions", json=BODY | {"max_tokens": 3}, headers=AUTHORIZED)
        )
        return answer.status_code == 200 and answer.json()["usage"]["cost"] > 0

    until("the embedded model", answered, 120)
    assert "gateway_requests_total" in container.inside(lambda: ops.get("/metrics")).text

    begun = container.inside(
        lambda: api.send(
            api.build_request(
                "POST", "/v1/chat/completions", headers=AUTHORIZED, json=BODY | {"stream": True, "max_tokens": 24}
            ),
            stream=True,
        )
    )
    lines = begun.iter_lines()
    assert container.inside(lambda: next(lines)).startswith("data: ")
    container.terminate()
    until("/readyz to say so", lambda: container.inside(lambda: ops.get("/readyz")).status_code == 503)
    assert container.execute(*image("embedded").healthcheck).returncode == 1
    rest = container.inside(lambda: [line for line in lines if line])
    assert rest[-1] == "data: [DONE]"
    assert container.wait() == 0

    ledger = data / "gateway.db"
    assert ledger.stat().st_uid == 10001
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as rows:
        outcomes = [outcome for (outcome,) in rows.execute("SELECT outcome FROM requests ORDER BY started")]
    assert outcomes[-1] == "ok"
    assert outcomes.count("ok") >= 2
    assert KEY not in container.log
