"""docs/failures.md is whole, and is what `scripts/failures` makes when every play of the failure table passes."""

from __future__ import annotations

from pathlib import Path

from gateway.core.failures import Kind
from tests.faults.drive import PLAYS
from tests.faults.page import missing, note, read_notes, render
from tests.faults.table import IMPOSSIBLE, ROWS, Mode, Phase

PAGE = Path(__file__).parent.parent / "docs/failures.md"


def test_no_cell_is_missing() -> None:
    assert missing() == []
    cells = {row[:3] for row in ROWS} | {cell[:3] for cell in IMPOSSIBLE}
    assert len(cells) == len(Kind) * len(Phase) * len(Mode)


def test_every_row_is_played() -> None:
    assert {play.row for play in PLAYS} == set(ROWS)
    assert len({str(play) for play in PLAYS}) == len(PLAYS)


def test_every_impossible_has_a_reason() -> None:
    assert all(cell.why for cell in IMPOSSIBLE)


def test_the_page_is_current_and_every_row_passes() -> None:
    assert PAGE.read_text() == render({str(play): True for play in PLAYS}), "run scripts/failures"


def test_a_failed_and_a_missing_result_show(tmp_path: Path) -> None:
    for play in PLAYS[1:]:
        note(tmp_path, play, passed=play.number != ROWS.index(ROWS[-1]))
    text = render(read_notes(tmp_path))
    assert text.count("**NO**") == 2
