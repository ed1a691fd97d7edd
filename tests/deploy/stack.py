"""deploy/compose/compose.yaml as the real Compose resolves it, and what its services see of this checkout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.deploy.tools import DEPLOY, parser, passes

FOLDER = DEPLOY / "compose"
FILLED_IN = {"GATEWAY_KEY": "a-key-for-this-test-0123456789", "GRAFANA_PASSWORD": "a password"}  # what .env must say


def compose(*arguments: str, env: Mapping[str, str]) -> str:
    """With `env` alone: no .env that lies in the folder."""
    command = [parser("docker-compose"), "--env-file", "/dev/null", "-f", str(FOLDER / "compose.yaml"), *arguments]
    return passes(command, env={**env})


@cache
def resolved(profile: str = "") -> Mapping[str, Any]:
    profiles = ["--profile", profile] if profile else []
    found: Mapping[str, Any] = json.loads(compose(*profiles, "config", "--format", "json", env=FILLED_IN))
    return found


def binds(service: str) -> dict[str, Path]:
    """Target in the container -> source in this checkout."""
    volumes = resolved()["services"][service].get("volumes", ())
    return {each["target"]: Path(each["source"]) for each in volumes if each["type"] == "bind"}


def mounted(service: str, directory: Path) -> Path:
    """A folder that holds, at their targets, the files that the service gets from this checkout."""
    for target, source in binds(service).items():
        place = directory / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place)
        else:
            shutil.copy(source, place)
    return directory
