"""docs/compatibility.md is what the marks of the tests say, and every system of the story is in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.core.dialects import BY_NAME
from tests.compatibility import DOCUMENTED, FAMILIES, LIVE, ROOT, SYSTEMS, Fact, collect, differences, facts, seen
from tests.compatibility_page import render, serving

PAGE = ROOT / "docs/compatibility.md"
CHAT = "/chat/completions"


@pytest.fixture(scope="module")
def found() -> set[Fact]:
    return set(collect())


def test_the_page_is_what_the_tests_say(found: set[Fact]) -> None:
    text = render(found)
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text, "UPDATE_GOLDEN=1 writes it anew"


def test_every_system_has_a_row_whole_and_streamed(found: set[Fact]) -> None:
    expected = {*BY_NAME, "smollm2"} | {name for name in SYSTEMS if name.endswith("-litellm")}
    for how in ("whole", "streamed"):
        assert expected <= {fact.system for fact in found if (fact.endpoint, fact.how) == (CHAT, how)}


def test_every_family_is_served(found: set[Fact]) -> None:
    evidence = {family: {system.evidence for system in serving(family, found)} for family in FAMILIES}
    assert all(evidence.values())
    assert {family for family, kinds in evidence.items() if LIVE in kinds} == {"SmolLM2", "Gemma"}


def test_the_page_claims_nothing_else() -> None:
    text = PAGE.read_text()
    assert f"**{DOCUMENTED}**\n\n| system | HTTP |" in text
    assert " works" not in text.replace("whether it works", "")


PLANTED = """
import pytest

def shown(**more):
    return pytest.mark.compatible(endpoint="/chat/completions", **{"system": "vllm", "how": "whole", **more})

@shown(system=("{name}", "sglang"), client="one")  # pytest.mark.compatible(
@pytest.mark.parametrize("name", ["vllm", "deepseek-tools"])
def test_shown(name): pass

@shown(system="tgi")
@pytest.mark.skip
def test_skipped(): pass

@shown(system="tgi")
@pytest.mark.skipif(False, reason="it may be")
def test_that_may_be_skipped(): pass

@shown(system="tgi")
@pytest.mark.xfail
def test_that_fails(): pass

@shown(how="tools")
@pytest.mark.full
def test_long(): pass

@pytest.mark.compatible(endpoint="/messages", system="ollama")
@pytest.mark.parametrize("stream", [False, True])
def test_either(stream): pass
"""


def test_only_what_is_run_is_found(tmp_path: Path) -> None:
    (tmp_path / "test_planted.py").write_text(PLANTED)
    one = {Fact(CHAT, "one", system, "whole") for system in ("vllm", "sglang", "deepseek")}
    both = {Fact("/messages", "HTTP", "ollama", how) for how in ("whole", "streamed")}
    assert set(collect(tmp_path)) == one | both | {Fact(CHAT, "HTTP", "vllm", "tools", full=True)}


SKIPS = """
import pytest

@pytest.mark.compatible()
def test_marked(): pytest.skip("no such environment")

def test_other(): pytest.skip("no such environment")
"""


@pytest.mark.parametrize(("ci", "said"), [("", "2 skipped"), ("true", "1 failed, 1 skipped")])
def test_what_a_marked_test_skips_fails_in_ci(tmp_path: Path, ci: str, said: str) -> None:
    (tmp_path / "test_planted.py").write_text(SKIPS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", str(tmp_path)]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    env = {**os.environ, "CI": ci}
    ended = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert said in ended.stdout


def test_a_cell_that_only_a_full_run_shows_is_marked() -> None:
    long = Fact(CHAT, "HTTP", "vllm", "whole", full=True)
    assert "| vLLM | whole † |" in render([long])
    assert "| vLLM | whole |" in render([long, long._replace(full=False)])


@pytest.mark.parametrize("wrong", [{"system": "nobody"}, {"endpoint": "/chat"}, {"how": "fast"}, {"models": "x"}])
def test_a_mistake_in_a_mark_is_one(wrong: dict[str, Any]) -> None:
    mark = pytest.mark.compatible(**{"endpoint": CHAT, "system": "vllm", "how": "whole", **wrong})
    with pytest.raises(AssertionError):
        list(facts([mark.mark], {}))


def test_marks_of_a_suite_are_held_to_the_ledger() -> None:
    row = {"endpoint": CHAT, "provider": "embedded", "stream": 0, "outcome": "ok", "has": '["tools"]'}
    other = {**row, "provider": "moonshot-search", "stream": 1, "has": "[]"}
    failed = {**row, "provider": "vllm", "outcome": "upstream_error"}
    shown = seen([row, other, failed, {**row, "provider": "elsewhere"}], "sdk", {"embedded": "smollm2"})
    smol, kimi = Fact(CHAT, "sdk", "smollm2", "whole"), Fact(CHAT, "sdk", "moonshot", "streamed")
    assert shown == {smol, smol._replace(how="tools"), kimi}
    assert differences([smol, kimi], shown) == (set(), set()), "tools that were offered need no call"
    assert differences([smol, smol._replace(how="tools")], shown) == (set(), {kimi})
    assert differences([smol, kimi, kimi._replace(how="whole")], shown) == ({kimi._replace(how="whole")}, set())
