"""docs/reference is what the code says. UPDATE_GOLDEN=1 (or scripts/references) writes it; read the difference."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

import pytest

from gateway.cli import COMMANDS, parser_of
from gateway.config.schema import json_schema
from gateway.telemetry.families import FAMILIES, Family
from scripts import references
from scripts.references import HERE, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_as_the_code_has_it(name: str) -> None:
    made = PAGES[name]()
    if os.environ.get("UPDATE_GOLDEN"):
        (HERE / name).write_text(made)
    assert (HERE / name).read_text() == made


@pytest.mark.parametrize("name", PAGES)
def test_links_within_lead_somewhere(name: str) -> None:
    text = PAGES[name]()
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-")
        for head in re.findall("^#+ (.*)$", text, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_nothing_is_left_out() -> None:
    routes, metrics, cli = (PAGES[name]() for name in ("routes.md", "metrics.md", "cli.md"))
    schema = json_schema()
    for name, node in schema["$defs"].items():
        section = routes.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section, name
        assert all(f"`{field}`" in section for field in node["properties"])
    assert all(f"`{name}`" in metrics for name in FAMILIES)
    assert all(f"## gateway {name}\n" in cli for name in COMMANDS)
    options = set(re.findall(r"(?m)^\| `(--[a-z-]+)", cli))
    assert options >= {"--listen", "--drain-timeout", "--fail-if", "--ops-listen", "--budget-usd"}
    assert "||" not in cli.replace(" ", "")  # an option without a word of what it does


def test_what_changes_in_the_code_changes_the_page() -> None:
    schema = json_schema()
    schema["$defs"]["Route"]["properties"]["retries"]["description"] = "Planted."
    assert "| Planted. |" in references.routes_page(schema)
    planted = {"x": Family("gateway_x", "counter", "Planted.", ("route",))}
    assert "| `gateway_x` | counter | `route` | Planted. |" in references.metrics_page(planted)
    parser = parser_of(COMMANDS)
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    commands.choices["check"].add_argument("--planted", metavar="N", help="planted (default %(default)s)", default=3)
    assert "| `--planted N` | Planted (default 3). |" in references.commands_page(parser)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(references, "HERE", tmp_path / "reference")
    assert references.main(["--check"]) == 1
    assert references.main([]) == 0
    assert references.main(["--check"]) == 0
    (tmp_path / "reference/cli.md").write_text("by hand")
    capsys.readouterr()
    assert references.main(["--check"]) == 1
    assert "docs/reference/cli.md is not as the code has it" in capsys.readouterr().err
