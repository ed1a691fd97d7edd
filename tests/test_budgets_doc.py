"""docs/budgets.md and docs/keys.md: every rule names tests, and every test that a page names is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
RULES = {"docs/budgets.md": "## What is held for a call", "docs/keys.md": "## Rules"}  # where they begin


def there_in(file: Path) -> set[str]:
    """Functions, and names that a module binds (a state machine's `TestCase`)."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in found if name.lower().startswith("test")}


def missing(text: str) -> list[str]:
    """The tests that a page names and that are not there."""
    named = NAMED.findall(text)
    return [
        f"{path}::{name}" for path, name in named if not (ROOT / path).exists() or name not in there_in(ROOT / path)
    ]


def rules(text: str) -> Iterator[str]:
    """Each bullet, with its further lines."""
    for block in re.split(r"\n(?=- |\n|#)", text):
        if block.startswith("- "):
            yield block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_that_is_named_is_there(page: Path) -> None:
    assert missing(page.read_text()) == []


@pytest.mark.parametrize("page", RULES)
def test_every_rule_names_a_test(page: str) -> None:
    text = (ROOT / page).read_text()
    found = list(rules(text[text.index(RULES[page]) :]))
    assert len(found) > 5
    assert [rule for rule in found if not NAMED.search(rule)] == []


def test_the_promise_stands_in_the_page_word_for_word() -> None:
    promise = "**Nothing is admitted unless, for every budget it touches, settled + reserved + its ceiling <= limit**"
    assert promise in (ROOT / "docs/budgets.md").read_text()


def test_a_planted_mistake_is_found() -> None:
    text = "- a rule\n  `tests/test_budgets_doc.py::test_a_planted_mistake_is_found`\n- another\n"
    assert missing(text) == []
    assert missing("`tests/test_budgets_doc.py::test_no_such` `tests/nowhere.py::test_x`") == [
        "tests/test_budgets_doc.py::test_no_such",
        "tests/nowhere.py::test_x",
    ]
    assert [bool(NAMED.search(rule)) for rule in rules(text)] == [True, False]
