"""What a Dockerfile says about an image: enough of the format (docs.docker.com/reference/dockerfile) for our own file.

Stages inherit from the stage that they are FROM. What is not understood is an error, never passed over.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
VARIABLE = re.compile(r"\$\{(\w+)\}")
IGNORED = {"RUN", "LABEL", "ARG", "EXPOSE"}  # of no consequence for how an image starts


class Copy(NamedTuple):
    sources: tuple[str, ...]
    target: str
    stage: str  # that it comes from; empty: the build context


@dataclass(frozen=True)
class Image:
    """`base`: the image that its first stage is FROM, as written."""

    base: str = ""
    env: dict[str, str] = field(default_factory=dict)
    user: str = ""
    workdir: str = "/"
    volumes: tuple[str, ...] = ()
    copies: tuple[Copy, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"
    runs: tuple[str, ...] = ()

    @property
    def argv(self) -> list[str]:
        return [*self.entrypoint, *self.cmd]


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Comments within a continued instruction are left out, as Docker does."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


def exec_form(text: str) -> tuple[str, ...]:
    """The shell form would put a shell between the runtime's signals and the program: it is refused."""
    parsed = json.loads(text)
    assert isinstance(parsed, list), text
    return tuple(str(part) for part in parsed)


def _health(rest: str) -> tuple[str, ...]:
    options, _, command = rest.partition("CMD ")
    assert all(option.startswith("--") for option in options.split()), rest
    return exec_form(command)


def _copy(rest: str) -> Copy:
    words = rest.split()
    flags = [word for word in words if word.startswith("--")]
    stage = next((flag.partition("=")[2] for flag in flags if flag.startswith("--from=")), "")
    *sources, target = [word for word in words if not word.startswith("--")]
    return Copy(tuple(sources), target, stage)


def apply(image: Image, name: str, rest: str) -> Image:
    match name:
        case "ENV":
            pairs = dict(word.split("=", 1) for word in shlex.split(rest))
            known = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"} | image.env
            return replace(image, env=image.env | {k: VARIABLE.sub(lambda m: known[m[1]], v) for k, v in pairs.items()})
        case "USER":
            return replace(image, user=rest)
        case "WORKDIR":
            return replace(image, workdir=rest)
        case "VOLUME":
            return replace(image, volumes=(*image.volumes, rest))
        case "COPY":
            return replace(image, copies=(*image.copies, _copy(rest)))
        case "ENTRYPOINT":
            return replace(image, entrypoint=exec_form(rest), cmd=())  # it resets an inherited CMD
        case "CMD":
            return replace(image, cmd=exec_form(rest))
        case "HEALTHCHECK":
            return replace(image, healthcheck=_health(rest))
        case "STOPSIGNAL":
            return replace(image, stop_signal=rest)
        case _:
            assert name in IGNORED, f"{name} is not understood here"
            return replace(image, runs=(*image.runs, rest)) if name == "RUN" else image


def stages(text: str) -> dict[str, Image]:
    """By name, in order; a stage without one goes by its number."""
    found: dict[str, Image] = {}
    current = ""
    for name, rest in instructions(text):
        if name == "FROM":
            parent, _, named = rest.partition(" AS ")
            current = named or str(len(found))
            found[current] = found.get(parent, Image(base=parent))
        elif current:
            found[current] = apply(found[current], name, rest)
    return found


def image(target: str) -> Image:
    return stages(DOCKERFILE.read_text())[target]
