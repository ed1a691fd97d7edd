"""What the documentation says to copy works: each code block of README.md and docs/ runs, or says it is a picture.

Blocks of ``python`` and ``js`` run against a real gateway with the shipped routes.yaml; ``yaml`` must load; of ``sh``
each line runs, and scripts must exist, but pages that are one story have a test of their own. ``text`` and ``mermaid``
are pictures; so is a block with ``illustrative`` after its language.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.servers import BIN, Gateway, until

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECRETS = {  # what the pages' files and commands read from the environment
    "GATEWAY_ADMIN_TOKEN": "docs-0123456789abcdef",
    "GATEWAY_KEY": "unused-but-long-enough",
    "CI_GATEWAY_KEY": "docs-ci-0123456789abcdef",
}
# Run by these in environments that only `scripts/test --full` makes.
ELSEWHERE = {
    "docs/clients/langchain.md": "tests/e2e/test_python_clients.py",
    "docs/clients/llama-index.md": "tests/e2e/test_python_clients.py",
    "docs/clients/pydantic-ai.md": "tests/e2e/test_python_clients.py",
    "docs/clients/vercel-ai.md": "tests/e2e/test_client_vercel_ai.py",
}
# Their commands are about the file that they begin with, and may change what a gateway of their own does.
OF_THEIR_OWN = ("docs/budgets.md", "docs/keys.md")
# Followed from the first block to the last, each by a test of its own.
FOLLOWED = {"docs/quickstart.md": "tests/test_quickstart.py", "docs/operations.md": "tests/test_operations_doc.py"}
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


class Block(NamedTuple):
    page: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str, text: str) -> Iterator[Block]:
    for found in FENCE.finditer(text):
        language, *marks = found[1].split() or [""]
        if language not in ("text", "mermaid") and "illustrative" not in marks:
            yield Block(page, text.count("\n", 0, found.start()) + 1, language, found[2])


NAMED = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
BLOCKS = [block for page, text in NAMED.items() if page not in ELSEWHERE for block in blocks(page, text)]


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("docs"), (ROOT / "routes.yaml").read_text()) as started:
        until("the embedded model", lambda: started.chat("auto", max_tokens=1).is_success)
        yield started


def here(code: str, gateway: Gateway) -> str:
    return code.replace("127.0.0.1:4000", f"127.0.0.1:{gateway.port}").replace(
        "127.0.0.1:9464", f"127.0.0.1:{gateway.ops_port}"
    )


def run(command: list[str], *, cwd: Path = ROOT) -> str:
    env = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **SECRETS}
    ended = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, f"{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return ended.stdout


def test_every_block_is_run_or_marked() -> None:
    told = {**FOLLOWED, **ELSEWHERE}
    assert [page for page, test in told.items() if Path(page).stem not in (ROOT / test).read_text()] == []
    assert {block.language for block in BLOCKS} <= {"sh", "python", "js", "yaml"}
    assert len(BLOCKS) > 10


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python(block: Block, gateway: Gateway) -> None:
    assert run([interpreter(block.code), "-c", here(block.code, gateway)])


def interpreter(code: str) -> str:
    """Our own has OpenAI's SDK; others are in the environments of the client suites."""
    if "import Anthropic" not in code:
        return sys.executable
    python = ROOT / ".venv-clients/anthropic-python/bin/python"
    if not python.exists():
        assert not os.environ.get("CI"), "run scripts/test: it makes .venv-clients"
        pytest.skip("no .venv-clients/anthropic-python: scripts/test makes it")
    return str(python)


@pytest.mark.parametrize("block", of("js"), ids=str)
def test_js(block: Block, gateway: Gateway, tmp_path: Path) -> None:
    modules = ROOT / ".venv-clients/openai-node/node_modules"
    if not modules.exists():
        assert not os.environ.get("CI"), "run scripts/test: it makes .venv-clients"
        pytest.skip("no .venv-clients/openai-node: scripts/test makes it")
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "example.mjs").write_text(here(block.code, gateway))
    assert run(["node", "example.mjs"], cwd=tmp_path)


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml(block: Block, tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text(block.code)
    assert run([str(BIN), "check", "--config", str(tmp_path / "routes.yaml")])


PUBLISHED = re.compile(r"\$\{\w*(?:KEY|SECRET|TOKEN|PASSWORD)\w*:-[^}]+\}")
FILES = [*PAGES, ROOT / "routes.yaml", *(ROOT / "deploy").rglob("*.yaml")]


@pytest.mark.parametrize("name", sorted(str(path.relative_to(ROOT)) for path in FILES))
def test_no_secret_has_a_default_that_everybody_knows(name: str) -> None:
    """A file that is copied and served without its variables must not open to whoever has read it here."""
    assert PUBLISHED.search('value: "${LAB_KEY:-lab-0123}"')
    assert PUBLISHED.findall((ROOT / name).read_text()) == []


def lines(code: str) -> list[str]:
    """Commands: a backslash and an open quote go on in the next line."""
    return re.findall(r"(?:[^\n']|'[^']*')+", code.replace("\\\n", " "))


def of_curl() -> Iterator[Any]:
    """Blocks of shell; those of curl's guide with what the compatibility page may say of it, by their own words."""
    for block in (each for each in of("sh") if each.page not in FOLLOWED):
        asked = [line for line in lines(block.code) if line.startswith("curl -sf") and "dry-run" not in line]
        marks = [
            pytest.mark.compatible(
                client="curl", system="smollm2", endpoint=path, how="streamed" if '"stream": true' in line else "whole"
            )
            for line in asked
            for path in re.findall(r"/v1(/\S+)", line)
            if path != "/models"
        ]
        yield pytest.param(block, marks=marks if block.page == "docs/clients/curl.md" else ())


@pytest.mark.parametrize("block", [*of_curl()], ids=str)
def test_sh(block: Block, gateway: Gateway, tmp_path: Path) -> None:
    if block.page in OF_THEIR_OWN:
        first = next(each for each in of("yaml") if each.page == block.page)
        (tmp_path / "routes.yaml").write_text(first.code)
    else:
        shutil.copy(ROOT / "routes.yaml", tmp_path)
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    with serving(block, gateway, tmp_path) as served:
        run_lines(block, served, tmp_path)


@contextlib.contextmanager
def serving(block: Block, gateway: Gateway, directory: Path) -> Iterator[Gateway]:
    """One of its own where a block administers it."""
    if "/admin/" not in block.code:
        yield gateway
        return
    routes = (directory / "routes.yaml").read_text()
    (directory / "served").mkdir()
    with Gateway(directory / "served", routes, env=SECRETS) as started:
        yield started


def run_lines(block: Block, gateway: Gateway, tmp_path: Path) -> None:
    for line in lines(block.code):
        program = line.split()[0]
        if program.startswith("scripts/"):
            assert os.access(ROOT / program, os.X_OK), program  # run by CI itself, or too long for here
        else:
            assert run(["bash", "-ec", here(line, gateway)], cwd=tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_guide_is_listed() -> None:
    home = ROOT / "docs/clients/README.md"
    listed = set(LINK.findall(home.read_text()))
    assert {page.name for page in home.parent.glob("*.md")} - {home.name} <= listed


def test_a_planted_block_is_found() -> None:
    text = "Hello\n\n```python\nprint(1)\n```\n\n```text\na picture\n```\n\n```sh illustrative\nrm -r x\n```\n"
    assert list(blocks("x.md", text)) == [Block("x.md", 3, "python", "print(1)\n")]
