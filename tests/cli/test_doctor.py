"""`gateway doctor` finds each planted fault, that one and no other, and names what mends it; no secret is ever shown.

Upstreams are real servers on loopback, stores real SQLite files, modes and sockets the machine's own. `test_healthy`
has all of it well, as a process of its own beside a gateway that serves; each other test breaks one thing.
"""

from __future__ import annotations

import datetime
import email.utils
import http.server
import json
import os
import shutil
import socket
import sqlite3
import ssl
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from gateway import __version__
from gateway.cli import doctor, main
from gateway.cli.doctor import files, installed, listeners, stores, upstreams
from gateway.stores.schema import MIGRATIONS, connect
from tests import replies
from tests.servers import BIN, Gateway, free_port, until
from tests.upstream import STALL, Received, Reply, Step, Upstream

SERVED = "Qwen/Qwen3-32B"
KEY = "sk-doctor-secret-0123456789abcdef"
ROUTES = """version: 1
providers: {{vllm: {{base_url: "{url}", api_key: "${{VLLM_KEY}}"}}}}
models: {{qwen: {{provider: vllm, model: Qwen/Qwen3-32B, hosting: self, price: unmetered}}}}
routes: [{{name: default, match: {{model: auto}}, use: [qwen]}}]
"""


def listing(*names: str, ahead: float = 0.0) -> Reply:
    """A list of models, as vLLM gives it to who has the key; `ahead`: seconds that its clock is."""

    def reply(received: Received) -> Iterator[Step]:
        if received.header("authorization") != f"Bearer {KEY}":
            yield from replies.status(401)(received)
        elif received.path != "/v1/models":
            yield from replies.status(404)(received)
        else:
            body = {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "vllm"} for name in names]}
            date = email.utils.formatdate(time.time() + ahead, usegmt=True)
            yield replies.http(200, json.dumps(body).encode(), {"date": date})

    return reply


class Seen(NamedTuple):
    code: int
    findings: list[dict[str, Any]]

    @property
    def wrong(self) -> list[tuple[str, str, str]]:
        """Check, subject, state."""
        found = [each for each in self.findings if each["state"] in ("warning", "failure")]
        assert all(each["found"] and each["fix"] for each in found)  # the cause and the fix, always
        return [(each["check"], each["subject"], each["state"]) for each in found]

    @property
    def only(self) -> dict[str, Any]:
        """The one that is wrong."""
        (found,) = [each for each in self.findings if each["state"] in ("warning", "failure")]
        return found


class Place:
    """A folder with a good routes.yaml, a ledger, and an upstream that serves; a test breaks one of them."""

    def __init__(self, folder: Path, upstream: Upstream, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.upstream = upstream
        self.routes = folder / "routes.yaml"
        self.ledger = folder / "gateway.db"
        self.addresses = ["--listen", f"127.0.0.1:{free_port()}", "--ops-listen", f"127.0.0.1:{free_port()}"]
        self._capsys = capsys
        self.write()
        connect(self.ledger, busy_seconds=5).close()

    def write(self, old: str = "", new: str = "") -> None:
        text = ROUTES.format(url=self.upstream.base_url)
        assert old in text
        self.routes.write_text(text.replace(old, new) if old else text)

    def examine(self, *args: str) -> Seen:
        """As JSON, and as text for the same exit code; without the secret in either."""
        command = ["doctor", "--config", str(self.routes), *self.addresses, *args]
        told = []
        for form in ([], ["--json"]):
            code = main([*command, *form])
            out, err = self._capsys.readouterr()
            assert KEY not in out + err
            told.append((code, out))
        (text_code, text), (code, shown) = told
        seen = Seen(code, json.loads(shown)["findings"])
        assert text_code == code
        assert all(each["subject"] in text for each in seen.findings)
        assert json.loads(shown)["ok"] == (code == 0)
        return seen


@pytest.fixture(scope="module")
def vllm() -> Iterator[Upstream]:
    with Upstream(listing(SERVED)) as upstream:
        yield upstream


@pytest.fixture
def place(tmp_path: Path, vllm: Upstream, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Place:
    vllm.forget()
    vllm.default = listing(SERVED)
    monkeypatch.setenv("VLLM_KEY", KEY)
    for name in ("GATEWAY_ADMIN_TOKEN", "GONE"):
        monkeypatch.delenv(name, raising=False)
    return Place(tmp_path, vllm, capsys)


def test_nothing_is_wrong_where_nothing_is_broken(place: Place) -> None:
    seen = place.examine("--strict")
    assert (seen.code, seen.wrong) == (0, [])
    checks = {each["check"] for each in seen.findings}
    assert checks >= {"configuration", "credentials", "prices", "upstream", "clock", "store", "disk", "files"}
    assert checks >= {"listeners", "running", "version"}
    (key,) = [each for each in seen.findings if each["check"] == "credentials"]
    assert key["found"] == "a key is there, from VLLM_KEY"
    (reached,) = [each for each in seen.findings if each["check"] == "upstream"]
    assert reached["measured"]["latency_seconds"] > 0
    assert {request.path for request in place.upstream.probes} == {"/v1/models"}
    assert place.upstream.calls == []  # no tokens are spent


def test_healthy(place: Place, tmp_path: Path) -> None:
    """A process of its own, beside a gateway that serves the embedded model and the upstream."""
    routes = ROUTES.format(url=place.upstream.base_url)
    routes = routes.replace("providers: {", "providers: {own: {dialect: local}, ")
    routes = routes.replace("models: {", "models: {small: {provider: own, price: unmetered}, ")
    (tmp_path / "served").mkdir()
    with Gateway(tmp_path / "served", routes, env={"VLLM_KEY": KEY}) as gateway:
        address = ["--listen", f"127.0.0.1:{gateway.port}", "--ops-listen", f"127.0.0.1:{gateway.ops_port}"]
        command = [str(BIN), "doctor", "--config", str(gateway.routes), *address, "--json", "--timeout", "60s"]
        ended = subprocess.run(command, env=gateway.env, capture_output=True, text=True, timeout=120, check=False)
    assert KEY not in ended.stdout + ended.stderr
    seen = Seen(ended.returncode, json.loads(ended.stdout)["findings"])
    assert (seen.code, seen.wrong) == (0, []), ended.stderr
    found = {each["subject"]: each for each in seen.findings if each["check"] in ("upstream", "running")}
    assert found["own"]["found"].startswith("the embedded model loads in ")
    assert found[address[3]]["found"].startswith("a gateway serves, version ")


def test_a_mistake_in_the_file(place: Place) -> None:
    place.write("use: [qwen]", "use: [qwne]")
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("configuration", "routes.yaml:4", "failure")])
    assert "did you mean `qwen`?" in seen.only["found"]
    assert "gateway check" in seen.only["fix"]


def test_no_file(place: Place) -> None:
    place.routes.unlink()
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("configuration", "routes.yaml", "failure")])
    assert "--config" in seen.only["fix"]
    place.routes.mkdir()
    assert place.examine().only["fix"] == "say --config FILE with the name of a file"


def without_power(*args: str) -> Seen:
    """A doctor whose rights end where modes say so: root goes without the capability that passes over them."""
    powerless = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"]
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root without setpriv (util-linux)")
    command = [*(powerless if os.geteuid() == 0 else []), str(BIN), "doctor", *args, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return Seen(ended.returncode, json.loads(ended.stdout)["findings"])


def test_a_file_that_cannot_be_read(place: Place) -> None:
    place.routes.chmod(0o200)
    seen = without_power("--config", str(place.routes), *place.addresses)
    assert (seen.code, seen.wrong) == (1, [("configuration", "routes.yaml", "failure")])
    assert "permission denied" in seen.only["found"]
    assert seen.only["fix"].startswith("look as the user that serves")


def test_a_missing_credential(place: Place) -> None:
    """A warning: the rest serves. With --strict it is a failure, as for `gateway check`."""
    place.write("providers: {", 'providers: {openai: {base_url: "https://api.openai.com/v1", api_key: "${GONE}"}, ')
    place.routes.write_text(place.routes.read_text().replace("models: {", "models: {gpt: {provider: openai}, "))
    seen = place.examine()
    assert (seen.code, seen.wrong) == (0, [("credentials", "openai", "warning")])
    assert seen.only["fix"].startswith("set GONE in the environment")
    assert place.examine("--strict").code == 1


@pytest.mark.parametrize(
    ("make", "found", "fix"),
    [
        (lambda path: path.mkdir(), "it is a directory, not a file", "name the file in it; Docker makes a directory"),
        (lambda path: path.touch(mode=0o200), "cannot be read: permission denied", "look as the user that serves"),
        (os.mkfifo, "it is a pipe or a device, not a file", "write the secret into that file"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not text in UTF-8", "write the secret into that file"),
        (Path.absolute, "is not there", "write the secret into that file"),
    ],
    ids=["directory", "unreadable", "pipe", "binary", "none"],
)
def test_a_secret_whose_file_cannot_be_read(place: Place, make: Callable[[Path], None], found: str, fix: str) -> None:
    """Each by its own cause. What is no file is not said to be one that others can read."""
    secret = place.folder / "key"
    make(secret)
    if secret.is_file():
        secret.chmod(secret.stat().st_mode & 0o600)
    place.write("providers: {", 'providers: {more: {base_url: "http://127.0.0.1:9/v1", api_key: "${file:key}"}, ')
    place.routes.write_text(place.routes.read_text().replace("models: {", "models: {gpt: {provider: more}, "))
    seen = without_power("--config", str(place.routes), *place.addresses)
    assert (seen.code, seen.wrong) == (0, [("credentials", "more", "warning")])
    assert seen.only["found"].endswith(found)
    assert seen.only["fix"].startswith(fix)


def test_no_key_that_opens(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once there are keys nobody is anonymous: with all of them ended, each request is a 401."""
    monkeypatch.setenv("OLD_KEY", "sk-client-0123456789abcdef")
    keys = 'keys: [{name: old, value: "${OLD_KEY}", expires: 2026-01-01}, {name: gone, value: "${GONE}"}]\n'
    place.routes.write_text(place.routes.read_text() + keys)
    seen = place.examine()
    asleep = [("credentials", "key gone", "warning"), ("credentials", "key old", "warning")]
    assert (seen.code, sorted(seen.wrong)) == (1, [*asleep, ("credentials", "keys", "failure")])
    found = {each["subject"]: each["found"] for each in seen.findings}
    assert found["key old"].startswith("has expired at 2026-01-01")
    assert found["keys"].endswith("every request is refused with 401")
    assert main(["keys", "create", "ci", "--config", str(place.routes)]) == 0
    assert sorted(place.examine().wrong) == asleep


def test_keys_that_were_all_revoked(place: Place) -> None:
    for action in ("create", "revoke"):
        assert main(["keys", action, "ci", "--config", str(place.routes)]) == 0
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("credentials", "keys", "failure")])
    assert "gateway keys create" in seen.only["fix"]


def test_nothing_awake(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_KEY")
    seen = place.examine()
    asleep = [("configuration", "routes.yaml", "failure"), ("credentials", "vllm", "warning")]
    assert (seen.code, seen.wrong) == (1, asleep)


def test_an_upstream_that_is_down(place: Place) -> None:
    port = free_port()
    place.write(f":{place.upstream.port}/", f":{port}/")
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("upstream", "vllm", "failure")])
    assert "refused" in seen.only["found"].lower()
    assert f"start the server at 127.0.0.1:{port}" in seen.only["fix"]


class Certified(NamedTuple):
    port: int
    ca_file: Path


@contextmanager
def certified(folder: Path, name: str, not_after: datetime.datetime | None = None) -> Iterator[Certified]:
    """A server with a certificate for that name, by an authority of its own; without a name it speaks no TLS."""
    authority = trustme.CA()
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        if name:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(name, not_after=not_after).configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.serve_forever, args=[0.05])
        serving.start()
        try:
            yield Certified(server.server_port, ca_file)
        finally:
            server.shutdown()
            serving.join(10)


@pytest.mark.parametrize(
    ("name", "not_after", "found", "fix"),
    [
        ("", None, "WRONG_VERSION_NUMBER", "write http:// in base_url of vllm"),
        ("elsewhere.example", None, "for another name", "a host that its certificate names"),
        ("localhost", datetime.datetime(2026, 1, 1), "certificate has expired", "renew"),  # noqa: DTZ001 - trustme's
    ],
)
def test_a_certificate_that_is_wrong(
    place: Place, name: str, not_after: datetime.datetime | None, found: str, fix: str
) -> None:
    with certified(place.folder, name, not_after) as server:
        url = f"https://localhost:{server.port}/v1"
        place.write(f'"{place.upstream.base_url}"', f'"{url}", ca_file: "{server.ca_file}"')
        seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("upstream", "vllm", "failure")])
    assert found in seen.only["found"]
    assert fix in seen.only["fix"]


def test_an_upstream_that_hangs(place: Place) -> None:
    place.upstream.default = lambda _: [STALL]
    seen = place.examine("--timeout", "300ms")
    assert (seen.code, seen.wrong) == (1, [("upstream", "vllm", "failure")])
    assert "firewall" in seen.only["fix"]


def test_more_upstreams_that_hang_than_are_asked_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own time, from its turn on: what waited for the others is not said to hang by itself."""
    monkeypatch.setattr(doctor, "AT_ONCE", 1)
    monkeypatch.setattr(doctor, "GRACE", 0.2)
    place.upstream.default = lambda _: [STALL]
    names = [f"p{number}" for number in range(6)]
    url = place.upstream.base_url
    providers = "".join(f'  {name}: {{base_url: "{url}", api_key: "${{VLLM_KEY}}"}}\n' for name in names)
    models = "".join(f"  {name}: {{provider: {name}, price: unmetered}}\n" for name in names)
    routes = f"routes: [{{name: default, match: {{model: auto}}, use: [{', '.join(names)}]}}]\n"
    place.routes.write_text(f"version: 1\nproviders:\n{providers}models:\n{models}{routes}")
    seen = place.examine("--timeout", "200ms")
    assert seen.wrong == [("upstream", name, "failure") for name in names]
    assert all("no whole answer within" in each["found"] for each in seen.findings if each["check"] == "upstream")


def test_an_upstream_that_sends_us_elsewhere(place: Place) -> None:
    """Requests fail there too: no redirect is followed."""
    place.upstream.default = replies.status(301, {}, {"location": "https://elsewhere.example/v1/models"})
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("upstream", "vllm", "failure")])
    assert "base_url of vllm" in seen.only["fix"]


def test_an_upstream_that_is_ill(place: Place) -> None:
    place.upstream.default = replies.status(503)
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("upstream", "vllm", "failure")])
    assert "log" in seen.only["fix"]


def test_a_key_that_the_upstream_refuses(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.upstream.default = replies.status(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("credentials", "vllm", "failure")])
    assert "the key is refused (401" in seen.only["found"]
    assert "api_key of vllm" in seen.only["fix"]
    place.write(', api_key: "${VLLM_KEY}"', "")
    monkeypatch.delenv("VLLM_KEY")
    assert "none is configured" in place.examine().only["found"]


@pytest.mark.parametrize(("ahead", "state", "code"), [(3600, "failure", 1), (-3600, "failure", 1), (-60, "warning", 0)])
def test_a_clock_that_is_wrong(place: Place, ahead: float, state: str, code: int) -> None:
    place.upstream.default = listing(SERVED, ahead=ahead)
    seen = place.examine()
    assert (seen.code, seen.wrong) == (code, [("clock", "vllm", state)])
    assert ("ahead of" if ahead > 0 else "behind") in seen.only["found"]
    assert seen.only["measured"]["skew_seconds"] == pytest.approx(ahead, abs=20)
    assert "NTP" in seen.only["fix"]


def test_a_model_that_is_not_served(place: Place) -> None:
    place.upstream.default = listing("Qwen/Qwen3-8B", "other")
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("models", "qwen", "failure")])
    assert "`model: Qwen/Qwen3-8B` at models.qwen" in seen.only["fix"]


def test_a_path_that_is_missing(place: Place) -> None:
    place.write("/v1", "")
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("upstream", "vllm", "failure")])
    assert seen.only["fix"] == "end base_url of vllm in /v1"


def test_a_model_without_a_price(place: Place) -> None:
    """A warning; a failure where there is a budget, which refuses requests to it."""
    place.write(", price: unmetered", "")
    seen = place.examine()
    assert (seen.code, seen.wrong) == (0, [("prices", "qwen", "warning")])
    assert "models.qwen a `price:`" in seen.only["fix"]
    place.routes.write_text(place.routes.read_text() + "budgets: [{name: all, limit_usd: 10}]\n")
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("prices", "qwen", "failure")])


def test_a_ledger_that_is_damaged(place: Place) -> None:
    """A page within it is overwritten; then its first bytes."""
    raw = bytearray(place.ledger.read_bytes())
    raw[4096 : 3 * 4096] = b"\xff" * (2 * 4096)
    place.ledger.write_bytes(raw)
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("store", "ledger, counters", "failure")])
    assert "damaged" in seen.only["found"]
    assert "backup" in seen.only["fix"]
    place.ledger.write_bytes(b"not a database at all" * 200)
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("store", "ledger, counters", "failure")])


@pytest.mark.parametrize(
    ("version", "state", "code", "fix"),
    [(len(MIGRATIONS) + 1, "failure", 1, "install"), (len(MIGRATIONS) - 1, "warning", 0, "backup")],
    ids=["newer", "older"],
)
def test_a_ledger_of_another_release(place: Place, version: int, state: str, code: int, fix: str) -> None:
    with closing(sqlite3.connect(place.ledger)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    seen = place.examine()
    assert (seen.code, seen.wrong) == (code, [("store", "ledger, counters", state)])
    assert fix in seen.only["fix"]


def test_a_file_of_another_program(place: Place) -> None:
    place.ledger.unlink()
    with closing(sqlite3.connect(place.ledger)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    place.ledger.chmod(0o600)
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("store", "ledger, counters", "failure")])
    assert "stores:" in seen.only["fix"]


def test_a_ledger_that_others_can_read(place: Place) -> None:
    place.ledger.chmod(0o644)
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("files", "gateway.db", "failure")])
    assert seen.only["fix"] == f"chmod o-rwx {place.ledger}*"


def test_secrets_that_others_can_read(place: Place) -> None:
    """In a file of its own: a warning, since container platforms mount them so. In routes.yaml: a failure."""
    key = place.folder / "key"
    key.write_text(KEY)
    key.chmod(0o644)
    place.write("${VLLM_KEY}", "${file:key}")
    seen = place.examine()
    assert (seen.code, seen.wrong) == (0, [("files", "key", "warning")])
    key.unlink()
    place.write("${VLLM_KEY}", KEY)
    place.routes.chmod(0o604)
    seen = place.examine()
    written = [("credentials", "routes.yaml", "warning"), ("files", "routes.yaml", "failure")]
    assert (seen.code, seen.wrong) == (1, written)
    place.routes.chmod(0o600)
    assert place.examine().wrong == written[:1]


def test_a_configuration_that_others_can_change(place: Place) -> None:
    place.routes.chmod(0o646)
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("files", "routes.yaml", "failure")])


def test_a_data_directory_that_is_not_there(place: Place) -> None:
    place.routes.write_text(place.routes.read_text() + 'stores: {ledger: "sqlite:///data/gateway.db"}\n')
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("store", "ledger", "failure")])
    assert f"mkdir -p {place.folder / 'data'}" in seen.only["fix"]


def test_a_directory_in_place_of_the_ledger(place: Place) -> None:
    (place.folder / "data").mkdir(mode=0o700)
    more = 'stores: {ledger: "sqlite:///data", counters: "sqlite:///data"}\n'
    place.routes.write_text(place.routes.read_text() + more)
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("store", "ledger, counters", "failure")])
    assert seen.only["found"].endswith("is a directory")
    assert "data/gateway.db" in seen.only["fix"]


def test_a_data_directory_that_cannot_be_written(place: Place) -> None:
    data = place.folder / "data"
    data.mkdir(mode=0o555)
    more = 'stores: {ledger: "sqlite:///data/gateway.db", counters: "sqlite:///data/gateway.db"}\n'
    place.routes.write_text(place.routes.read_text() + more)
    seen = without_power("--config", str(place.routes), *place.addresses)
    assert (seen.code, seen.wrong) == (1, [("store", "ledger, counters", "failure")])
    assert "permission denied" in seen.only["found"]
    assert "chown or chmod" in seen.only["fix"]


@pytest.mark.parametrize(
    ("room", "state"), [(10 * 1024**2, "failure"), (100 * 1024**2, "warning"), (1024**3, "ok")], ids=str
)
def test_a_disk_that_is_almost_full(room: int, state: str) -> None:
    told = stores.free(Path("/data"), room)
    assert told.state == state
    assert ("make room" in told.fix) == (state != "ok")


def test_listeners_that_would_be_open(place: Place) -> None:
    """The operations listener: a warning, since Prometheus has to reach it. The public one without keys: a failure."""
    place.addresses[3] = f"0.0.0.0:{free_port()}"
    seen = place.examine()
    assert (seen.code, seen.wrong) == (0, [("listeners", "operations", "warning")])
    assert "--ops-listen 127.0.0.1:9464" in seen.only["fix"]
    place.addresses[1::2] = [f"0.0.0.0:{free_port()}", f"127.0.0.1:{free_port()}"]
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("listeners", "public", "failure")])
    assert "gateway keys create" in seen.only["fix"]
    assert place.examine("--allow-anonymous").wrong == [("listeners", "public", "warning")]
    assert main(["keys", "create", "ci", "--config", str(place.routes)]) == 0
    assert place.examine().wrong == []


def test_listeners_that_are_open_now(place: Place) -> None:
    """A gateway serves on all addresses, which the doctor was not told; and it has rejected its file."""
    started = Gateway(
        place.folder, place.routes.read_text(), args=["--allow-anonymous"], env={"VLLM_KEY": KEY}, listen="0.0.0.0"
    )
    started.command[started.command.index("--ops-listen") + 1] = f"0.0.0.0:{started.ops_port}"
    with started as gateway:
        place.addresses[1::2] = [f"127.0.0.1:{gateway.port}", f"127.0.0.1:{gateway.ops_port}"]
        seen = place.examine()
        open_now = [("listeners", "public", "failure"), ("listeners", "operations", "warning")]
        assert (seen.code, seen.wrong) == (1, open_now)
        good = place.routes.read_text()
        gateway.reload("version: 2\n")
        until("the rejection", lambda: gateway.metric("gateway_config_last_reload_successful") == 0)
        other = place.folder / "other.yaml"
        other.write_text(good)
        place.routes = other
        seen = place.examine()
        assert (seen.code, seen.wrong) == (1, [*open_now, ("running", place.addresses[3], "failure")])
        assert (
            "rejected the last change"
            in seen.findings[[each["check"] for each in seen.findings].index("running")]["found"]
        )


def test_a_token_that_is_too_short(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_ADMIN_TOKEN", "short")
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("listeners", "GATEWAY_ADMIN_TOKEN", "failure")])
    assert "openssl rand" in seen.only["fix"]


def test_a_port_that_is_taken(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        place.addresses[1] = f"127.0.0.1:{other.getsockname()[1]}"
        seen = place.examine()
        assert (seen.code, seen.wrong) == (1, [("running", place.addresses[1], "failure")])
        assert "ss -ltnp" in seen.only["fix"]


def test_traces_that_cannot_be_sent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "everything")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    seen = place.examine()
    assert (seen.code, seen.wrong) == (1, [("configuration", "traces", "failure")])


def test_what_others_wrote_is_cleaned(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of models come from the upstream: no secret and no control character in them reaches the terminal."""
    place.upstream.default = listing(f"echo-{KEY}", "\x1b[2Jgone", "x" * 5000)
    seen = place.examine()
    assert seen.wrong == [("models", "qwen", "failure")]
    assert "\x1b" not in json.dumps(seen.only)
    assert len(seen.only["found"]) < 400
    place.write("api_key:", 'headers: {X-Auth-Token: "Token t0k"}, api_key:')
    for short, echoed in (("pass-123", "echo-pass-123"), ("pw9", "echo-pw9"), ("z", "z"), ("other", "a t0k of it")):
        monkeypatch.setenv("VLLM_KEY", short)
        place.upstream.default = replies.status(200, {"data": [{"id": echoed}, {"id": "Bloom"}]})
        assert "it lists [redacted], Bloom" in place.examine().only["found"]


def test_slow_looks_show_that_they_go_on(place: Place) -> None:
    """On a terminal, from a second on, and on stderr: what is printed can still be read by programs."""
    place.upstream.default = lambda _: [STALL]
    main_end, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (40, 120))
    command = [str(BIN), "doctor", "--config", str(place.routes), *place.addresses, "--json", "--timeout", "2s"]
    with closing_fds(main_end, terminal):
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, timeout=60, check=False)
        shown = os.read(main_end, 65536)
    assert b"looking:" in shown
    assert b"upstream vllm" in shown
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["counts"]["failure"] == 1


@contextmanager
def closing_fds(*descriptors: int) -> Iterator[None]:
    try:
        yield
    finally:
        for each in descriptors:
            os.close(each)


def test_usage() -> None:
    for wrong in (["--listen", "4000"], ["--timeout", "soon"]):
        with pytest.raises(SystemExit) as ended:
            main(["doctor", *wrong])
        assert ended.value.code == 2


# The rules, as tables.


@pytest.mark.parametrize(
    ("date", "before", "after", "ahead"),
    [
        ("Thu, 01 Jan 1970 00:01:40 GMT", 100.2, 100.4, 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 100.9, 101.5, 0.0),  # it said so early in our span
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0, 91.0, 9.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 111.0, 112.0, -10.0),
        ("yesterday", 100.0, 101.0, None),
        (None, 100.0, 101.0, None),
    ],
)
def test_skew(date: str | None, before: float, after: float, ahead: float | None) -> None:
    assert upstreams.skew(date, before, after) == ahead


@pytest.mark.parametrize(
    ("name", "listed", "served"),
    [
        ("llama3.2", ["llama3.2:latest"], True),
        ("qwen2.5:7b", ["qwen2.5:latest"], False),
        ("gemini-2.5-flash", ["models/gemini-2.5-flash"], True),
        ("Qwen/Qwen3-32B:together", ["Qwen/Qwen3-32B"], True),
        ("Qwen/Qwen3-32B", ["Qwen/Qwen3-8B"], False),
        ("x", [], False),
    ],
)
def test_is_served(name: str, listed: list[str], served: bool) -> None:
    assert upstreams.is_served(name, listed) is served


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data": 1}', b'{"data": [{}]}', b"\xff", b'{"data": ' + b"[" * 10_000])
def test_what_is_no_list_of_models(body: bytes) -> None:
    assert upstreams.listed_in(body)[0] is None


def test_modes() -> None:
    def state(mode: int, rule: files.Rule) -> str:
        told = files.judge(Path("/x"), mode, rule)
        return told.state if told else "ok"

    table: Mapping[tuple[int, files.Rule], str] = {
        (0o600, files.STORE): "ok",
        (0o660, files.STORE): "ok",  # a group is shared with on purpose
        (0o644, files.STORE): "failure",
        (0o644, files.ROUTES): "ok",
        (0o666, files.ROUTES): "failure",
        (0o644, files.ROUTES_WITH_SECRETS): "failure",
        (0o444, files.KEY_FILE): "warning",
        (0o400, files.KEY_FILE): "ok",
    }
    assert {case: state(*case) for case in table} == table


def test_packages_that_are_not_as_locked() -> None:
    lock = installed.locked(
        "httpx==0.28.1 \\\n    --hash=sha256:00\nTyping_Extensions==4.1 ; x\nnumpy==1 ; a\nnumpy==2 ; b\n"
    )
    assert lock == {"httpx": {"0.28.1"}, "typing-extensions": {"4.1"}, "numpy": {"1", "2"}}
    assert installed.compare(lock, {"httpx": "0.28.1", "numpy": "2"}).state == "ok"
    told = installed.compare(lock, {"httpx": "0.27.0", "numpy": "3"})
    assert (told.state, "httpx 0.27.0 (locked: 0.28.1), numpy 3 (locked: 1 or 2)" in told.found) == ("warning", True)
    assert "--require-hashes" in told.fix


def test_a_gateway_of_another_release_or_configuration() -> None:
    (told,) = listeners.judge_running("127.0.0.1:9464", listeners.Facts("0.0.1", "aaa"), "aaa")
    assert (told.state, "restart" in told.fix) == ("warning", True)
    (told,) = listeners.judge_running("127.0.0.1:9464", listeners.Facts(__version__, "aaa"), "bbb")
    assert (told.state, "environment" in told.fix) == ("warning", True)


def test_sockets_of_the_kernel() -> None:
    head = "  sl  local_address rem_address   st\n"
    four = (
        head + "   0: 00000000:24F8 00000000:0000 0A\n   1: 0100007F:0FA0 00000000:0000 0A\n   2: 0100007F:24F8 x 01\n"
    )
    assert list(listeners.listening(four, 9464)) == ["0.0.0.0"]
    assert list(listeners.listening(four, 4000)) == ["127.0.0.1"]
    six = head + "   0: 00000000000000000000000001000000:24F8 x 0A\n   1: 0000000000000000FFFF00000100007F:24F8 x 0A\n"
    assert list(listeners.listening(six, 9464)) == ["::1", "127.0.0.1"]
