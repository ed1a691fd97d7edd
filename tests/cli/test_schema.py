"""`gateway schema`."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli import main


@pytest.mark.parametrize(("asked", "file"), [([], "routes.schema.json"), (["--openapi"], "docs/openapi.json")])
def test_it_prints_what_is_checked_in(capsys: pytest.CaptureFixture[str], asked: list[str], file: str) -> None:
    assert main(["schema", *asked]) == 0
    assert capsys.readouterr().out == (Path(__file__).parents[2] / file).read_text()
