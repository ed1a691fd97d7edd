"""The unit, started by systemd itself: one that boots in a container of its own, by systemd-nspawn.

/usr is this machine's. The packages and the interpreter are those that tests run with, put where the unit's protections
do not hide them: neither below /root nor below /tmp.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.deploy.container import ROOT, Network, need_root
from tests.deploy.tools import DEPLOY, passes, system
from tests.deploy.unit import UNIT
from tests.servers import until

pytestmark = pytest.mark.full
FOLDER = DEPLOY / "systemd"
KEY = "a-key-for-this-test-0123456789"
TARGET = f"""[Unit]
Requires={UNIT.name}
After={UNIT.name}
"""


ACTIVE = ("/usr/bin/systemctl", "is-active", UNIT.name)


class Machine(NamedTuple):
    pid: int  # of its systemd, seen from outside
    root: Path
    network: Network

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--ipc", "--uts", "--pid", "--root"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=120, check=False)

    def shown(self, setting: str) -> str:
        told = self.run("/usr/bin/systemctl", "show", UNIT.name, f"--property={setting}", "--value")
        assert told.returncode == 0, told.stderr
        return told.stdout.strip()

    def ask(self, method: str, url: str, **more: object) -> httpx.Response:
        def act() -> httpx.Response:
            with httpx.Client(trust_env=False, timeout=120) as client:
                return client.request(method, url, **more)  # type: ignore[arg-type]

        return self.network.inside(act)


def prepare(root: Path) -> None:
    """A system that has nothing but what docs/deploy.md installs."""
    for name in (
        "usr",
        "etc/systemd/system",
        "etc/sysusers.d",
        "etc/tmpfiles.d",
        "etc/open-model-gateway",
        "var/lib",
        "opt",
    ):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    shutil.copy("/etc/os-release", root / "etc")
    (root / "etc/machine-id").touch()
    (root / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
    )
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (root / "etc/systemd/system/try.target").write_text(TARGET)
    shutil.copy(UNIT, root / "etc/systemd/system")
    for kind in ("sysusers", "tmpfiles"):
        shutil.copy(FOLDER / f"open-model-gateway.{kind}", root / f"etc/{kind}.d/open-model-gateway.conf")
    shutil.copy(DEPLOY / "routes.yaml", root / "etc/open-model-gateway")
    environment = (FOLDER / "environment").read_text().replace("GATEWAY_KEY=", f"GATEWAY_KEY={KEY}")
    environment += "PYTHONPATH=/opt/source\nLD_LIBRARY_PATH=/opt/python/lib\n"
    (root / "etc/open-model-gateway/environment").write_text(environment)
    passes([system("systemd-sysusers"), f"--root={root}", "open-model-gateway.conf"])
    passes([system("systemd-tmpfiles"), "--create", f"--root={root}", "open-model-gateway.conf"])
    home = root / "opt/open-model-gateway"
    (home / "bin").mkdir(parents=True)
    (home / "lib").mkdir()
    (home / "bin/python").symlink_to(f"/opt/python/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    (home / "pyvenv.cfg").write_text("home = /opt/python/bin\n")
    script = (Path(sys.prefix) / "bin/gateway").read_text()
    (home / "bin/gateway").write_text(re.sub(r"^#!.*", "#!/opt/open-model-gateway/bin/python", script))
    (home / "bin/gateway").chmod(0o755)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    need_root()
    nspawn, root = system("systemd-nspawn"), tmp_path_factory.mktemp("machine") / "root"
    root.mkdir()
    prepare(root)
    command = [nspawn, "--register=no", "--keep-unit", "--quiet", "--private-network", f"--directory={root}", "--boot"]
    given = {"/usr": "/usr", sys.base_prefix: "/opt/python", f"{ROOT}/gateway": "/opt/source/gateway"}
    given[f"{sys.prefix}/lib"] = "/opt/open-model-gateway/lib"
    command += [*(f"--bind-ro={source}:{target}" for source, target in given.items()), "systemd.unit=try.target"]
    log = root.parent / "log"
    with log.open("wb") as output:
        started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def first() -> int:
        assert started.poll() is None, log.read_text(errors="replace")
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        return next((int(pid) for pid in children if "systemd\n" in Path(f"/proc/{pid}/comm").read_text()), 0)

    try:
        pid = until("systemd", first, 60)
        network = Network(pid)
        yield Machine(pid, root, network)
        network.close()
    finally:
        started.send_signal(signal.SIGTERM)  # nspawn hands an orderly shutdown on
        try:
            started.wait(60)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def test_systemd_starts_it_and_it_answers(machine: Machine) -> None:
    until("the unit to be active", lambda: machine.run(*ACTIVE).returncode == 0, 60)

    def ready() -> bool:
        try:
            return machine.ask("GET", "http://127.0.0.1:9464/readyz").status_code == 200
        except httpx.TransportError:
            return False

    until("the gateway", ready, 120)
    body = {"model": "auto", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 3}
    headers = {"authorization": f"Bearer {KEY}"}

    def answered() -> bool:
        url = "http://127.0.0.1:4000/v1/chat/completions"
        return machine.ask("POST", url, json=body, headers=headers).status_code == 200

    until("the embedded model", answered, 120)
    assert machine.shown("NRestarts") == "0"


def test_its_protections_are_in_force(machine: Machine) -> None:
    account = machine.run("/usr/bin/id", "-u", "open-model-gateway").stdout.strip()
    main = int(machine.shown("MainPID"))
    status = machine.run("/bin/cat", f"/proc/{main}/status").stdout
    told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert told["Uid"].split() == [account] * 4
    assert (told["NoNewPrivs"], told["Seccomp"], int(told["CapBnd"], 16)) == ("1", "2", 0)
    within = ["/usr/bin/nsenter", f"--target={main}", "--mount", "/bin/sh", "-c"]
    for place in ("/etc/open-model-gateway", "/opt", "/var", "/usr"):
        refused = machine.run(*within, f"echo x > {place}/planted")
        assert "Read-only file system" in refused.stderr, place
    hidden = machine.run(*within, "cat /etc/open-model-gateway/environment; ls -A /root /tmp")
    assert KEY not in hidden.stdout


def test_the_doctor_sees_what_the_gateway_sees(machine: Machine) -> None:
    """The line of docs/deploy.md. `systemd-run` waits by way of D-Bus, as every machine has it."""
    system("dbus-daemon")
    for name, line in (("passwd", "messagebus:x:90:90::/:/usr/sbin/nologin\n"), ("group", "messagebus:x:90:\n")):
        with (machine.root / "etc" / name).open("a") as file:
            file.write(line)
    assert machine.run("/usr/bin/systemctl", "start", "dbus.service").returncode == 0
    page = (ROOT / "docs/deploy.md").read_text()
    command = shlex.split(re.search(r"sudo (systemd-run(?:.*\\\n)*.*)", page)[1].replace("\\\n", " "))  # type: ignore[index]
    seen = machine.run("/usr/bin/systemd-run", *command[1:], "--json")
    assert seen.returncode == 0, seen.stdout + seen.stderr
    found = {(each["check"], each["subject"]): each["state"] for each in json.loads(seen.stdout)["findings"]}
    assert found["running", "127.0.0.1:9464"] == "ok"
    assert found["credentials", "keys"] == "ok", "GATEWAY_KEY comes from the environment's file"
    assert KEY not in seen.stdout


def test_reload_keeps_it_and_stop_lets_it_drain(machine: Machine) -> None:
    main = machine.shown("MainPID")
    assert machine.run("/usr/bin/systemctl", "reload", UNIT.name).returncode == 0
    assert machine.shown("MainPID") == main
    assert machine.shown("ActiveState") == "active"
    assert machine.run("/usr/bin/systemctl", "stop", UNIT.name).returncode == 0
    assert [machine.shown(name) for name in ("ActiveState", "Result", "ExecMainStatus")] == ["inactive", "success", "0"]
    ledger = machine.root / "var/lib/open-model-gateway/gateway.db"
    assert ledger.stat().st_size > 0
    assert f"{ledger.stat().st_mode & 0o777:o}" == "600"
    assert f"{ledger.parent.stat().st_mode & 0o777:o}" == "700"
