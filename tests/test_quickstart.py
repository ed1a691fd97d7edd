"""docs/quickstart.md, followed word by word in a bare copy of the repository: a routed, priced answer and its saving.

Four things are other than on a reader's machine: the ports, which may be taken here; the servers of steps 3 and 4,
which are on loopback (a paid API is not called); the five seconds that a stop takes; and the installed packages, which
are those of this environment, but in `test_on_a_bare_machine`, where `scripts/demo` installs them. The first step, the
demo, takes longest: tests/grafana/test_demo.py runs it, and holds what it says against the page.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import replies
from tests.servers import free_port
from tests.transcript import SAVED, Shell, Step, matches, steps
from tests.upstream import Received, Reply, Upstream
from tests.upstream import Step as Sent

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/quickstart.md"
# What a bare machine has. No Prometheus: the demo goes on without, and tests/grafana/test_demo.py has it.
TOOLS = ("bash", "cat", "cmp", "cp", "curl", "dirname", "env", "grep", "mkdir", "node", "sha256sum", "sleep")
NOT_BARE = re.compile("API_KEY|BASE_URL|^(GATEWAY|OTEL|PYTHON|VIRTUAL_ENV|PYENV)")
KEY = "sk-your-key"


def serves(model: str, key: str = "") -> Reply:
    """A list of the one model and good answers, for who has the key."""

    def reply(received: Received) -> Iterator[Sent]:
        if key and received.header("authorization") != f"Bearer {key}":
            yield from replies.status(401)(received)
        elif received.method == "GET":
            yield replies.http(200, json.dumps({"object": "list", "data": [{"id": model}]}).encode())
        else:
            yield from replies.ok()(received)

    return reply


def bare(directory: Path) -> Path:
    """The files of the repository, as a clone has them, with what is not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name, follow_symlinks=False)
    return directory


def tools(directory: Path) -> str:
    directory.mkdir()
    (directory / "python3").symlink_to(Path(sys.base_prefix) / "bin/python3")
    for name in TOOLS:
        if found := shutil.which(name):
            (directory / name).symlink_to(found)
    return str(directory)


def follow(clone: Path, path: str, first: int = 0) -> str:
    """All that came out."""
    # A machine's own settings, how it reaches a package registry among them; no keys, nothing that Python minds.
    own = {name: value for name, value in os.environ.items() if not NOT_BARE.search(name)}
    with contextlib.ExitStack() as running, Upstream(serves("gpt-5", KEY)) as closed:
        mine = running.enter_context(Upstream(serves("Qwen/Qwen3-32B")))
        public, operations = free_port(), free_port()
        listening = f"--listen 127.0.0.1:{public} --ops-listen 127.0.0.1:{operations}"
        swap = [
            (".venv/bin/gateway serve", f".venv/bin/gateway serve --drain-delay 100ms {listening}"),
            (".venv/bin/gateway doctor", f".venv/bin/gateway doctor {listening}"),
            ("127.0.0.1:4000", f"127.0.0.1:{public}"),
            ("127.0.0.1:9464", f"127.0.0.1:{operations}"),
            ("127.0.0.1:8000", f"127.0.0.1:{mine.port}"),
            ("https://api.openai.com/v1", closed.base_url),
        ]
        told = []
        with Shell(clone, {**own, "PATH": path, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}, swap) as shell:
            for step in steps(PAGE.read_text())[first:]:
                if "x-gateway-fallback-reason" in step.shows:
                    running.close()  # "Stop your server"
                told.append(shell.follow(step))
        assert [call.model for call in mine.calls] == ["Qwen/Qwen3-32B"] * len(mine.calls) != []
        assert [call.model for call in closed.calls] == ["gpt-5"] * len(closed.calls) != []
    return "\n".join(told)


def test_from_the_second_step_on(tmp_path: Path) -> None:
    clone = bare(tmp_path / "clone")
    (clone / ".venv").symlink_to(Path(sys.prefix))
    told = follow(clone, tools(tmp_path / "bin"), first=1)
    assert KEY not in told


@pytest.mark.full
def test_on_a_bare_machine(tmp_path: Path) -> None:
    clone = bare(tmp_path / "clone")
    assert not (clone / ".venv").exists()
    follow(clone, tools(tmp_path / "bin"))
    assert (clone / ".venv/lock").read_text().startswith("requirements.lock")


def test_the_page_is_read_whole() -> None:
    """Each block is a step, or the words to see after one; each file has a name."""
    text = PAGE.read_text()
    found = steps(text)
    assert len([step for step in found if step.code]) == text.count("```sh\n")
    assert len([step for step in found if step.shows]) == text.count("```text\n")
    assert [step.saves for step in found if step.saves] == ["mine.yaml"] * text.count("```yaml\n")
    assert "illustrative" not in text


def test_steps_and_what_they_show() -> None:
    page = "Save this as `x.yaml`:\n\n```yaml\na: 1\n```\n\n```sh\nls\n```\n\n```text\nx ... y\n```\n"
    page += "\n```sh illustrative\nrm\n```\n"
    assert steps(page) == [Step(3, "", saves="x.yaml", content="a: 1\n"), Step(7, "ls\n", "x ... y\n")]
    assert SAVED.findall("save it as `a/b.yaml`") == ["a/b.yaml"]
    assert matches("x ... y\n", "\x1b[2mx\x1b[0m  1\n2 y")
    assert matches("a: b\nc", "a:  b\nc")
    assert not matches("x ... y\n", "y x")
    assert not matches("cost $0.1", "cost $0x1")


def test_a_step_that_fails_is_told(tmp_path: Path) -> None:
    with Shell(tmp_path, dict(os.environ), [("there", "here")]) as shell:
        assert shell.type("echo there; false") == (1, "here\n")
        assert shell.type("export A=1; sleep 60 &")[0] == 0
        assert shell.follow(Step(1, "echo $A\n", "1")) == "1\n"
        with pytest.raises(AssertionError, match="not:\n2"):
            shell.follow(Step(1, "echo $A\n", "2"), patience=0.1)
