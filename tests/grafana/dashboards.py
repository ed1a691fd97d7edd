"""The checked-in dashboards as tests and pictures see them: panels, and their queries with the variables filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

GRAFANA = Path(__file__).parent.parent.parent / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
VARIABLE = re.compile(r"\$\{?(\w+)\}?")


class Target(NamedTuple):
    ref: str
    expr: str
    instant: bool
    legend: str


class Panel(NamedTuple):
    """A panel that shows data: a row is none."""

    dashboard: str  # the file's name: "cost"
    title: str
    type: str
    targets: tuple[Target, ...]
    json: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.title}"


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def panels() -> Iterator[Panel]:
    for path in FILES:
        for each in read(path)["panels"]:
            if each["type"] != "row":
                targets = tuple(
                    Target(t["refId"], t["expr"], t.get("instant", False), t.get("legendFormat", ""))
                    for t in each["targets"]
                )
                yield Panel(path.stem, each["title"], each["type"], targets, each)


def resolved(expr: str, values: Mapping[str, str]) -> str:
    """With the value of each variable in its place. KeyError where there is none."""
    return VARIABLE.sub(lambda found: values[found[1]], expr)
