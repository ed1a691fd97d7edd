"""The Dockerfile's installing steps, run line by line with their folders below a temporary one; and what they made.

This machine's Python stands in for the base image's. What the last stages do to the system (the account, libgomp1) is
not done here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.container import ROOT, Container, Spec, installed
from tests.deploy.dockerfile import DOCKERFILE, image, instructions
from tests.deploy.tools import passes
from tests.deploy.unit import UNIT
from tests.servers import until

pytestmark = pytest.mark.full
STAGES = ("installer", "wheel", "installed", "model-installed")
MOVED = re.compile(r"(?<![\w./-])/(uv|locks|build|source|wheels|opt|usr/local/bin/python)(?=[/\s:]|$)")
KEY = "a-key-for-this-test-0123456789"


def moved(text: str, root: Path) -> str:
    return MOVED.sub(lambda found: f"{root}/{found[1]}", text)


def copy(words: list[str], cwd: str, root: Path) -> None:
    """From the context, or from another stage, whose folders lie below the same root."""
    flags = [word for word in words if word.startswith("--")]
    *sources, target = [word for word in words if not word.startswith("--")]
    for source in sources:
        found = Path(moved(source, root)) if flags else ROOT / source
        place = Path(moved(target if target.startswith("/") else f"{cwd}/{target}", root))
        if found.resolve() == place.resolve():
            continue
        if found.is_dir():
            shutil.copytree(found, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place = place / found.name if target.endswith("/") else place
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, place)


def run_stages(root: Path) -> int:
    """Every instruction of the stages that install: how many RUN lines there were."""
    python = root / "usr/local/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(f"{sys.base_prefix}/bin/python3")
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    env["PATH"] = f"{python.parent}:{env['PATH']}"
    stage, cwd, lines = "", "/", 0
    for name, rest in instructions(DOCKERFILE.read_text()):
        if name == "FROM":
            stage, cwd = rest.partition(" AS ")[2], "/"
        if stage not in STAGES:
            continue
        match name:
            case "ENV":
                for word in moved(rest, root).split():
                    key, _, value = word.partition("=")
                    env[key] = value.replace("${PATH}", env["PATH"])
                env.pop("UV_NO_CACHE", None)  # the only step aside: what was downloaded before is not again
                env.pop("PIP_NO_CACHE_DIR", None)
            case "WORKDIR":
                cwd = rest
            case "COPY":
                copy(rest.split(), cwd, root)
            case "RUN":
                place = Path(moved(cwd, root)) if cwd != "/" else root
                ended = subprocess.run(
                    ["/bin/sh", "-ec", moved(rest, root)],
                    cwd=place,
                    env=env,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert ended.returncode == 0, f"{rest}\n{ended.stdout}\n{ended.stderr}"
                lines += 1
    return lines


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("image")
    found.chmod(0o755)  # as `/` of an image
    assert run_stages(found) == 6
    return found


def packages(root: Path, *more: str) -> dict[str, str]:
    told = passes([str(root / "uv/bin/uv"), "pip", "list", "--format", "json", *more])
    return {each["name"]: each["version"] for each in json.loads(told)}


def test_what_is_installed_is_what_the_lock_says(root: Path) -> None:
    python = str(root / "opt/open-model-gateway/bin/python")
    here = packages(root, "--python", python)
    assert here.pop("open-model-gateway")
    lock = (ROOT / "deploy/requirements/runtime.lock").read_text()
    locked = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.MULTILINE))
    assert here.items() <= locked.items()
    elsewhere = set(locked) - set(here)
    assert all(re.search(rf"^{re.escape(name)}==\S+ ;", lock, re.MULTILINE) for name in elsewhere), (
        "left out by a marker"
    )
    passes([str(root / "uv/bin/uv"), "pip", "check", "--python", python])


def test_nothing_runs_when_python_starts(root: Path) -> None:
    assert [path.name for path in (root / "opt").rglob("*.pth")] == []


def test_a_changed_hash_is_refused(root: Path, tmp_path: Path) -> None:
    locked = (ROOT / "deploy/requirements/build.lock").read_text()
    (tmp_path / "lock").write_text(re.sub(r"sha256:\w{8}", "sha256:00000000", locked))
    uv = str(root / "uv/bin/uv")
    passes([uv, "venv", "--quiet", str(tmp_path / "venv")])
    command = [
        uv,
        "pip",
        "sync",
        "--require-hashes",
        "--python",
        str(tmp_path / "venv/bin/python"),
        str(tmp_path / "lock"),
    ]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "hash" in refused.stderr.lower()


def test_the_image_that_this_makes_answers(root: Path, tmp_path: Path) -> None:
    """The entry point of the image with a model in it, on what was just installed and nothing of .venv."""
    built = image("embedded")
    (tmp_path / "data").mkdir()
    os.chown(tmp_path / "data", 10001, 10001)
    spec = Spec(
        argv=built.argv,
        uid=10001,
        cwd=built.workdir,
        env=built.env | {"GATEWAY_KEY": KEY},
        files={
            **installed(root / "opt/open-model-gateway"),
            "/opt/open-model-gateway/healthcheck.py": root / "opt/open-model-gateway/healthcheck.py",
            "/opt/model": root / "opt/model",
            "/etc/open-model-gateway/routes.yaml": ROOT / "deploy/routes.yaml",
        },
        volumes={str(root): (root, "ro"), built.volumes[0]: (tmp_path / "data", "rw")},
    )
    with Container(tmp_path, spec) as running:
        running.wait_ready()
        mapped = Path(f"/proc/{running.pid}/maps").read_text()
        assert f"{root}/opt/open-model-gateway/lib" in mapped
        assert f"{ROOT}/.venv" not in mapped
        assert running.execute(*built.healthcheck).returncode == 0
        body = {"model": "auto", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 3}
        headers = {"authorization": f"Bearer {KEY}"}

        def answered() -> bool:
            answer = running.inside(lambda: running.api.post("/v1/chat/completions", json=body, headers=headers))
            return answer.status_code == 200

        until("the model", answered, 120)
        seen = running.execute("gateway", "doctor", "--json")
        assert seen.returncode == 0, seen.stdout + seen.stderr
        assert running.end_now() == 0


UNIT_PLACES = re.compile(r"(?<![\w.-])(/opt|/etc|/usr/lib)(?=/)")
NEEDS_A_MANAGER = ("systemctl", "editor")


def test_the_unit_is_installed_as_the_page_says(tmp_path: Path) -> None:
    """The lines of docs/deploy.md, below a folder of their own, up to those that need systemd to run or a person."""
    page = (ROOT / "docs/deploy.md").read_text()
    block = next(
        each for each in re.findall(r"```sh illustrative\n(.*?)```", page, re.DOTALL) if "systemd-sysusers" in each
    )
    lines = [line.removeprefix("sudo ") for line in block.splitlines()]
    run = [line for line in lines if line.split()[0] not in NEEDS_A_MANAGER]
    assert (len(run), len(lines)) == (11, 14)
    for line in run:
        command = UNIT_PLACES.sub(lambda found: f"{tmp_path}{found[1]}", line)
        command = re.sub(r"^(systemd-\w+)", rf"\1 --root={tmp_path}", command)
        passes(["/bin/sh", "-ec", command], env={"PATH": f"{sys.base_prefix}/bin:{os.environ['PATH']}"})
    folder = tmp_path / "etc/open-model-gateway"
    modes = {path.name: f"{path.stat().st_mode & 0o777:o}" for path in [folder, *folder.iterdir()]}
    assert modes == {"open-model-gateway": "750", "routes.yaml": "640", "environment": "600"}
    gateway = str(tmp_path / "opt/open-model-gateway/bin/gateway")
    told = passes([gateway, "check", "--config", str(folder / "routes.yaml")], env={"GATEWAY_KEY": KEY})
    assert "routes.yaml is fine" in told
    assert (tmp_path / "etc/systemd/system/open-model-gateway.service").read_text() == UNIT.read_text()
