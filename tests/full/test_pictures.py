"""The dashboards in real Chromium, by Grafana's component library: every panel draws, and nothing complains."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.grafana.dashboards import FILES, Panel, panels
from tests.grafana.pictures import RENDERER, Drawn, render

pytestmark = pytest.mark.full
PANELS = list(panels())
LARGEST = 300_000  # bytes of a picture: they stand in the repository


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def drawn(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Drawn]:
    missing = [name for name in ("node", "promtool", "prometheus", "chromium") if not shutil.which(name)]
    missing += [] if (RENDERER / "node_modules").exists() else [".venv-render (scripts/test --full makes it)"]
    if missing:
        assert not os.environ.get("CI"), missing
        pytest.skip(f"missing: {', '.join(missing)}")
    return render(pictures, tmp_path_factory.mktemp("day"))


def test_the_console_says_nothing(drawn: Mapping[str, Drawn]) -> None:
    assert {name: each.said for name, each in drawn.items()} == {path.stem: [] for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_picture_is_there_and_small(drawn: Mapping[str, Drawn], pictures: Path, path: Path) -> None:
    assert drawn[path.stem]
    picture = (pictures / f"{path.stem}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert 20_000 < len(picture) < LARGEST


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_each_panel_draws_something(drawn: Mapping[str, Drawn], panel: Panel) -> None:
    [found] = [each for each in drawn[panel.dashboard].panels if each["id"] == panel.json["id"]]
    assert panel.title in found["text"]
    shown = found["text"].replace(panel.title, "").strip()
    assert shown
    assert "No data" not in shown
    assert "NaN" not in shown
    if panel.type == "timeseries":
        assert found["pixels"] > 200
    if panel.type == "table":
        assert found["rows"] > 1, "a heading, and what stands below it"
    if panel.type in ("stat", "bargauge", "table"):
        assert any(character.isdigit() for character in shown)
