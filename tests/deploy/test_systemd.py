"""The unit by systemd's own tools; and its ExecStart, run with its account, files and system call filter."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import unit
from tests.deploy.container import Container, installed
from tests.deploy.tools import DEPLOY, passes, run, system
from tests.servers import until

FOLDER = DEPLOY / "systemd"
CEILING = 1.3  # of 10; what keeps it above 0 are mostly addresses: a gateway has to reach the network
UID = 10002
KEY = "a-key-for-this-test-0123456789"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine with the unit, what Debian's systemd brings along, and the program that the unit starts."""
    found = tmp_path_factory.mktemp("machine")
    shutil.copytree("/usr/lib/systemd/system", found / "usr/lib/systemd/system", symlinks=True)
    for program in ("opt/open-model-gateway/bin/gateway", "bin/kill"):
        (found / program).parent.mkdir(parents=True)
        (found / program).write_text("#!/bin/sh\n")
        (found / program).chmod(0o755)
    (found / "etc/systemd/system").mkdir(parents=True)
    shutil.copy(unit.UNIT, found / "etc/systemd/system")
    return found


def test_verify_has_nothing_to_say(root: Path) -> None:
    command = [system("systemd-analyze"), "verify", f"--root={root}", unit.UNIT.name]
    verified = run(command)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")

    planted = root / "etc/systemd/system" / unit.UNIT.name
    planted.write_text(unit.UNIT.read_text().replace("ProtectHome=yes", "ProtectHome=perhaps"))
    assert "Failed to parse protect home value" in run(command).stderr
    shutil.copy(unit.UNIT, planted)


def test_its_exposure_is_under_the_ceiling() -> None:
    command = [system("systemd-analyze"), "security", "--offline=yes", "--no-pager", f"--threshold={CEILING * 10:.0f}"]
    told = passes([*command, str(unit.UNIT)])
    level = re.search(r"Overall exposure level for open-model-gateway.service: ([\d.]+)", told)
    assert level is not None
    assert 0 < float(level[1]) <= CEILING


def test_a_softer_unit_is_over_it(tmp_path: Path) -> None:
    softer = tmp_path / unit.UNIT.name
    softer.write_text(
        re.sub(r"^(ProtectSystem|SystemCallFilter|PrivateUsers)=.*\n", "", unit.UNIT.read_text(), flags=re.MULTILINE)
    )
    command = [system("systemd-analyze"), "security", "--offline=yes", "--no-pager", f"--threshold={CEILING * 10:.0f}"]
    assert run([*command, str(softer)]).returncode == 1


def test_accounts_and_folders_are_made_as_the_unit_needs_them(tmp_path: Path) -> None:
    """By systemd's own tools, in a root of their own. Needs root, as they change owners."""
    if os.geteuid() != 0:
        pytest.skip("changes owners: run as root")
    (tmp_path / "etc/open-model-gateway").mkdir(parents=True)
    for name in ("routes.yaml", "environment"):
        (tmp_path / "etc/open-model-gateway" / name).touch(0o666)
    passes([system("systemd-sysusers"), f"--root={tmp_path}", str(FOLDER / "open-model-gateway.sysusers")])
    accounts = dict(line.split(":", 1) for line in (tmp_path / "etc/passwd").read_text().splitlines())
    uid, gid, *_, home, shell = accounts["open-model-gateway"].split(":")[1:]
    assert (home, shell) == ("/var/lib/open-model-gateway", "/usr/sbin/nologin")
    passes([system("systemd-tmpfiles"), "--create", f"--root={tmp_path}", str(FOLDER / "open-model-gateway.tmpfiles")])
    expected = {
        "etc/open-model-gateway": ("0750", 0, int(gid)),
        "etc/open-model-gateway/routes.yaml": ("0640", 0, int(gid)),
        "etc/open-model-gateway/environment": ("0600", 0, 0),
        "var/lib/open-model-gateway": ("0700", int(uid), int(gid)),
    }
    made = {name: (tmp_path / name).stat() for name in expected}
    assert {name: (f"{s.st_mode & 0o7777:04o}", s.st_uid, s.st_gid) for name, s in made.items()} == expected


def test_time_to_stop_is_longer_than_the_drain() -> None:
    settings = unit.service()
    drain = sum(int(seconds) for seconds in re.findall(r"--drain-\w+ (\d+)s", settings["ExecStart"][0]))
    assert drain == 35
    assert int(settings["TimeoutStopSec"][0]) >= drain + 10
    assert settings["KillMode"] == ["mixed"]
    assert settings["UMask"] == ["0077"], "what it makes is nobody else's to read"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Started under the filter, with the routes.yaml and the environment file that docs/deploy.md installs."""
    directory = tmp_path_factory.mktemp("service")
    (directory / "state").mkdir(mode=0o700)
    os.chown(directory / "state", UID, UID)
    lines = (FOLDER / "environment").read_text().splitlines()
    env = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert env == {"GATEWAY_KEY": ""}
    files = {**installed(), "/etc/open-model-gateway/routes.yaml": DEPLOY / "routes.yaml"}
    settings = unit.service()
    started = unit.spec(settings, uid=UID, data=directory / "state", files=files, env={"GATEWAY_KEY": KEY})
    with Container(directory, started) as running:
        running.wait_ready()
        yield running


def test_the_filter_is_in_force(service: Container) -> None:
    status = service.status()
    assert (status["Seccomp"], status["Seccomp_filters"], status["NoNewPrivs"]) == ("2", "2", "1")
    calls = service.spec.calls
    assert {"read", "socket", "clone", "execve"} <= set(calls)
    assert not {"mount", "ptrace", "setuid", "sched_setscheduler", "init_module", "bpf"} & set(calls)


def test_a_program_that_breaks_the_rules_is_stopped(service: Container, tmp_path: Path) -> None:
    """That the filter can fail: what it forbids, tried under it."""
    tries = (
        "import mmap, socket, os, json\n"
        "found = {}\n"
        "def attempt(name, act):\n"
        "    try:\n"
        "        act(); found[name] = 0\n"
        "    except OSError as error:\n"
        "        found[name] = error.errno\n"
        "attempt('mmap', lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC))\n"
        "attempt('netlink', lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))\n"
        "attempt('packet', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))\n"
        "attempt('inet', lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close())\n"
        "attempt('nice', lambda: os.setpriority(os.PRIO_PROCESS, 0, 5))\n"
        "attempt('chroot', lambda: os.chroot('/'))\n"
        "print(json.dumps(found))\n"
    )
    spec = service.spec
    planted = type(spec)(**{**vars(spec), "argv": ["/opt/open-model-gateway/bin/python", "-c", tries]})
    with Container(tmp_path, planted) as tried:
        assert tried.wait() == 0, tried.log
        told = tried.output()
    assert json.loads(told) == {"mmap": 1, "netlink": 97, "packet": 97, "inet": 0, "nice": 1, "chroot": 1}


def test_it_serves_a_real_model_under_the_filter(service: Container) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 3}

    def answered() -> bool:
        headers = {"authorization": f"Bearer {KEY}"}
        answer = service.inside(lambda: service.api.post("/v1/chat/completions", json=body, headers=headers))
        return answer.status_code == 200

    until("the embedded model", answered, 120)
    metrics = service.inside(lambda: service.ops.get("/metrics")).text
    begun = re.search(r'^process_start_time_seconds{process="gateway"} (\S+)$', metrics, re.MULTILINE)
    assert begun is not None
    assert float(begun[1]) > 1.7e9, "a date: /proc/stat can be read"


def test_it_ends(service: Container) -> None:
    """Without its drain, for which test_container.py waits."""
    assert service.end_now() == 0, service.log
