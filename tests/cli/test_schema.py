"""`gateway schema`."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli import main


def test_it_prints_what_is_checked_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == (Path(__file__).parents[2] / "routes.schema.json").read_text()
