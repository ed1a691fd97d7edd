"""What is installed is what the locks say, and nothing else runs when Python starts.

A compromised litellm release once shipped a `.pth` file, which the interpreter executes at every start
(BerriAI/litellm#24518); so an unexpected one fails here. Locks hold versions and hashes, never download addresses.
"""

from __future__ import annotations

import json
import re
import site
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EDITABLE = "_editable_impl_open_model_gateway.pth"  # our own: one line, the checkout's path
LOCKS = sorted(
    [
        *ROOT.glob("requirements*.lock"),
        *ROOT.glob("deploy/requirements/*.lock"),
        *ROOT.glob("tests/**/requirements.lock"),
    ]
)

# The hosts that package clients download from; written in pieces so that this file does not name them either.
REGISTRY_HOSTS = re.compile(
    "|".join(
        re.escape(".".join(parts))
        for parts in (
            ("pypi", "org"),
            ("files", "pythonhosted", "org"),
            ("registry", "npmjs", "org"),
            ("registry", "yarnpkg", "com"),
            ("deb", "debian", "org"),
        )
    )
)


def unexpected_pth(directory: Path) -> list[str]:
    return [
        path.name
        for path in directory.glob("*.pth")
        if path.name != EDITABLE or path.read_text().strip() != str(ROOT)  # ours may hold the path and no code
    ]


def lock_problems(text: str) -> list[str]:
    """Entries without a hash, not pinned exactly, or with an address or a path."""
    problems = []
    for entry in re.split(r"\n(?=[^\s#])", text.replace("\\\n", " ")):
        line = "\n".join(row for row in entry.splitlines() if not row.lstrip().startswith("#")).strip()
        if not line:
            continue
        if not re.match(r"[A-Za-z0-9._-]+(\[[^\]]*\])?==[^\s;]+", line):
            problems.append(f"not pinned exactly: {line[:60]}")
        if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", line):
            problems.append(f"no hash: {line[:60]}")
        if "://" in line or " @ " in line or re.search(r"(^|\s)/\w", line):
            problems.append(f"an address or a path: {line[:60]}")
    return problems


def test_no_unexpected_pth() -> None:
    directories = [Path(directory) for directory in site.getsitepackages()]
    assert [name for directory in directories for name in unexpected_pth(directory)] == []


def test_a_planted_pth_is_found(tmp_path: Path) -> None:
    (tmp_path / "litellm_init.pth").write_text("import os")
    (tmp_path / EDITABLE).write_text(f"{ROOT}\nimport os")
    assert sorted(unexpected_pth(tmp_path)) == [EDITABLE, "litellm_init.pth"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_locks_hold_hashes_and_no_addresses(lock: Path) -> None:
    text = lock.read_text()
    assert "==" in text
    assert lock_problems(text) == []


HASH = "--hash=sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("click==8.0", "no hash"),
        (f"click>=8.0 {HASH}", "not pinned"),
        (f"click==8.0 @ file:///wheels/click.whl {HASH}", "an address"),
        (f"--index-url https://example.test\nclick==8.0 \\\n    {HASH}", "not pinned"),
        (f"-e /home/me/click {HASH}", "an address"),
    ],
)
def test_a_planted_lock_entry_is_found(entry: str, problem: str) -> None:
    assert any(found.startswith(problem) for found in lock_problems(entry))


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_file_names_a_registry_or_this_checkout() -> None:
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", "replace")
        if REGISTRY_HOSTS.search(text) or f"{ROOT}/" in text:
            found.append(str(path.relative_to(ROOT)))
    assert found == []


def test_a_planted_host_is_found() -> None:
    assert REGISTRY_HOSTS.search("https://files.pythonhosted." + "org/x")


def test_npm_dependencies_are_pinned_exactly() -> None:
    for manifest in [*ROOT.glob("tests/*/*/package.json"), ROOT / "grafana/render/package.json"]:
        declared = json.loads(manifest.read_text())
        versions = {**declared.get("dependencies", {}), **declared.get("devDependencies", {})}
        assert versions, manifest
        assert {name: v for name, v in versions.items() if not re.fullmatch(r"\d+\.\d+\.\d+", v)} == {}
