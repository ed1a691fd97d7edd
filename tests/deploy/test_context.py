"""What reaches the builder, as Docker's own client sends it: Compose's binary, and a listener that takes it."""

from __future__ import annotations

import http.server
import io
import json
import shutil
import tarfile
import threading
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.deploy.dockerfile import DOCKERFILE, stages
from tests.deploy.tools import ROOT, parser, passes

COMPOSE = (
    "services: {gateway: {image: x, build: {context: ., dockerfile: deploy/docker/Dockerfile, target: gateway}}}\n"
)
PLANTED = (
    ".env", "deploy/compose/.env", "gateway.db", "gateway.db-wal", "gateway/gateway.db", "gateway/.env",
    "gateway/x.log",
    "deploy/docker/.env.production", "deploy/docker/ledger.db-shm", "id_ed25519", "notes.txt", "routes.yaml",
    "tests/secret.py", "gateway/core/__pycache__/call.cpython-311.pyc", ".git/config", ".venv/bin/python",
)  # fmt: skip


class Sent(NamedTuple):
    names: set[str]
    dockerfile: str
    target: str


class Listener(http.server.BaseHTTPRequestHandler):
    """As much of Docker's HTTP API as a client asks for before it sends a context."""

    protocol_version = "HTTP/1.1"
    sent: list[Sent]

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, told: Any) -> None:
        body = json.dumps(told).encode()
        self.send_response(200)
        for name, value in {"api-version": "1.45", "ostype": "linux", "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self._answer({})

    def do_GET(self) -> None:
        self._answer({"ApiVersion": "1.45", "Version": "28", "OSType": "linux", "Os": "linux"})

    def do_POST(self) -> None:
        asked = urlsplit(self.path)
        assert asked.path.endswith("/build"), self.path
        query = parse_qs(asked.query)
        with tarfile.open(fileobj=io.BytesIO(self._body())) as archive:
            names = {member.name for member in archive.getmembers() if not member.isdir()}
        self.sent.append(Sent(names, query["dockerfile"][0], query["target"][0]))
        self._answer({"aux": {"ID": "sha256:" + "0" * 64}})

    def _body(self) -> bytes:
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Sent:
    """The context of a checkout in which somebody left everything that must not go along."""
    checkout = tmp_path_factory.mktemp("context")
    listed = passes(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]).split("\0")
    for name in [*filter(None, listed), *PLANTED]:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        if name not in PLANTED:
            shutil.copy(ROOT / name, checkout / name, follow_symlinks=False)
    for name in PLANTED:
        (checkout / name).write_text("a secret")
    (checkout / "compose.yaml").write_text(COMPOSE)
    Listener.sent = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.server_address[1]}"
        command = [parser("docker-compose"), "-f", str(checkout / "compose.yaml"), "build"]
        passes(command, env={"DOCKER_HOST": address, "DOCKER_BUILDKIT": "0", "HOME": str(checkout)})
        server.shutdown()
    (one,) = Listener.sent
    return one


def test_it_names_the_dockerfile_and_a_stage_of_it(sent: Sent) -> None:
    assert sent.dockerfile == "deploy/docker/Dockerfile"
    assert sent.target in stages(DOCKERFILE.read_text())


def test_all_that_the_dockerfile_copies_is_there(sent: Sent) -> None:
    sources = {
        s for found in stages(DOCKERFILE.read_text()).values() for c in found.copies if not c.stage for s in c.sources
    }
    assert len(sources) > 8
    for source in sources:
        assert any(name == source or (source.endswith("/") and name.startswith(source)) for name in sent.names), source
    ours = passes(["git", "ls-files", "-z", "gateway"]).split("\0")
    assert {name for name in ours if name} <= sent.names


@pytest.mark.parametrize("planted", PLANTED)
def test_what_was_left_lying_about_is_not(sent: Sent, planted: str) -> None:
    assert planted not in sent.names


def test_nothing_else_is(sent: Sent) -> None:
    allowed = ("gateway/", "deploy/docker/", "deploy/requirements/")
    files = {".dockerignore", "pyproject.toml", "README.md", "LICENSE", "requirements-uv.lock", "deploy/routes.yaml"}
    assert {name for name in sent.names if not name.startswith(allowed)} == files
