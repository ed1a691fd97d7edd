"""docs/translation.md names every member that a translation knows, and says whether it is dropped or refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from gateway.core.translate import messages_to_chat, responses_to_chat
from gateway.core.translate.messages_content import PARTS
from gateway.core.translate.responses_input import ITEMS

PAGE = (Path(__file__).parents[1] / "docs/translation.md").read_text()
TABLES: list[tuple[str, Iterable[str], Mapping[str, bool]]] = [
    ("`/v1/messages` on chat servers", messages_to_chat.CARRIED, messages_to_chat.NOT_CARRIED),
    ("`/v1/responses` on chat servers", responses_to_chat.CARRIED, responses_to_chat.NOT_CARRIED),
]


def rows(heading: str) -> list[tuple[set[str], str]]:
    """(what a row is about, what becomes of it)."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| (.+?) \| (.+) \|$", section, re.MULTILINE)
    return [(set(re.findall(r"`([^`]+)`", first)), second) for first, second in found]


@pytest.mark.parametrize(("heading", "carried", "lost"), TABLES)
def test_every_member_stands_in_the_table(heading: str, carried: Iterable[str], lost: Mapping[str, bool]) -> None:
    said = rows(heading)
    for name in carried:
        assert any(name in names for names, _ in said), name
    for name, harmless in lost.items():
        becomes = [becomes for names, becomes in said if name in names and re.match("dropped|refused", becomes)]
        assert [text.split(":")[0] for text in becomes] == ["dropped" if harmless else "refused"], name


def test_every_item_stands_in_the_table() -> None:
    said = set().union(*(names for names, _ in rows("`/v1/responses` on chat servers")))
    assert set(ITEMS) <= said


def test_every_block_stands_in_the_table() -> None:
    said = set().union(*(names for names, _ in rows("`/v1/messages` on chat servers")))
    assert {*PARTS, "tool_use", "tool_result", "thinking", "redacted_thinking"} <= said
