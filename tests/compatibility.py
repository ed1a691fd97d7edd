"""docs/compatibility.md, from the tests: which system answered which client at which endpoint, whole and streamed.

A test that shows that says so, and there is no other source of the page:

    @pytest.mark.compatible(endpoint="/chat/completions", system="vllm")
    @pytest.mark.parametrize("stream", [False, True])
    def test_x(stream: bool) -> None: ...

`system` is a name in `SYSTEMS` or an exchange of `tests/data/dialects`; `client` a column, `HTTP` by default; `how` one
of `HOW`, by default what the test's parameter `stream` says. Each may be a tuple, and `{name}` in it stands for the
test's parameter of that name. A test may have several marks. What may be skipped or is expected to fail shows nothing;
in CI a marked test that is skipped all the same fails (`tests/conftest.py`).

A suite that runs in an environment of its own is marked where it is started; `check` holds those marks to the ledger.

    UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/test_compatibility_doc.py     writes the page
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.core.dialects import BY_NAME
from gateway.core.forms import Endpoint
from tests.dialects import ABOUT
from tests.servers import Gateway, until

ROOT = Path(__file__).parent.parent
OUT = "COMPATIBILITY_FACTS"  # where the collecting process writes what it found
LIVE = "verified"
DOCUMENTED = "from documentation, not verified live"
HTTP = "HTTP"
HOW = ("whole", "streamed", "tools")


class System(NamedTuple):
    """A row. Models as its exchanges name them."""

    label: str
    evidence: str
    models: tuple[str, ...]
    sources: tuple[str, ...] = ()


def _dialects() -> Iterator[tuple[str, System]]:
    for dialect in BY_NAME.values():
        told = [each for each in ABOUT.values() if each["dialect"] == dialect.name]
        assert all(each["verified"] == "documentation" for each in told)
        models = tuple(dict.fromkeys(each["model"] for each in told))
        yield dialect.name, System(dialect.label, DOCUMENTED, models, tuple(each["source"] for each in told))


_OWN = ", its own API"  # at /messages and /responses; others are asked for a chat there
_ANTHROPIC = "https://docs.anthropic.com/en/api/messages"
_RESPONSES = "https://platform.openai.com/docs/api-reference/responses"
_AZURE = "https://learn.microsoft.com/azure/ai-foundry/openai/reference"
SYSTEMS: Mapping[str, System] = {
    "smollm2": System("llama.cpp with SmolLM2", LIVE, ("SmolLM2-135M-Instruct",)),
    "smollm2-native": System(f"llama.cpp with SmolLM2{_OWN}", LIVE, ("SmolLM2-135M-Instruct",)),
    "gemma": System("llama.cpp with Gemma 3", LIVE, ("gemma-3-270m",)),
    "gemma-native": System(f"llama.cpp with Gemma 3{_OWN}", LIVE, ("gemma-3-270m",)),
    **dict(_dialects()),
    "anthropic": System(f"Anthropic{_OWN}", DOCUMENTED, (), (_ANTHROPIC,)),
    "openai-native": System(f"OpenAI{_OWN}", DOCUMENTED, (), (_RESPONSES,)),
    "anthropic-litellm": System("Anthropic through litellm", DOCUMENTED, ("claude-sonnet-4-5",), (_ANTHROPIC,)),
    "gemini-litellm": System(
        *("Gemini through litellm", DOCUMENTED, ("gemini-2.5-flash", "gemini-embedding-001")),
        sources=("https://ai.google.dev/api/generate-content",),
    ),
    "bedrock-litellm": System(
        *("Bedrock through litellm", DOCUMENTED, ("anthropic.claude-3-haiku-20240307-v1:0",)),
        sources=("https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html",),
    ),
    "vertex-litellm": System(
        *("Vertex AI through litellm", DOCUMENTED, ("gemini-2.5-pro", "claude-sonnet-4-5", "gemini-embedding-001")),
        sources=("https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference",),
    ),
    "azure-litellm": System("Azure OpenAI through litellm", DOCUMENTED, ("my-deployment",), (_AZURE,)),
    "jina": System("Jina", DOCUMENTED, ("jina-reranker-v2",), ("https://jina.ai/reranker",)),
    "cohere": System("Cohere", DOCUMENTED, (), ("https://docs.cohere.com/reference/rerank",)),
}
# The families of the story, by the names of their models.
FAMILIES: Mapping[str, str] = {
    "DeepSeek": "deepseek*",
    "Qwen": "qwen*",
    "Kimi": "kimi*",
    "Doubao": "doubao*",
    "Llama": "llama*",
    "Gemini": "gemini*",
    "GPT": "gpt*",
    "Claude": "*claude*",
    "SmolLM2": "smollm2*",
    "Gemma": "gemma*",
}


class Fact(NamedTuple):
    """One test shows this."""

    endpoint: str
    client: str
    system: str
    how: str
    full: bool = False  # only `scripts/test --full` runs it


# What marks say.


def facts(marks: Iterable[pytest.Mark], parameters: Mapping[str, Any], *, full: bool = False) -> Iterator[Fact]:
    """Those of one test; an unknown name is a mistake in its mark."""
    for mark in marks:
        given = {"client": HTTP, "how": _how(parameters), **mark.kwargs}
        assert not mark.args, mark
        assert given.keys() == {"endpoint", "client", "system", "how"}, mark
        values = [_values(given[name], parameters) for name in ("endpoint", "client", "system", "how")]
        for endpoint, client, system, how in itertools.product(*values):
            row = ABOUT[system]["dialect"] if system in ABOUT else system
            assert (endpoint in [*Endpoint], row in SYSTEMS, how in HOW) == (True, True, True), mark
            yield Fact(endpoint, client, row, how, full)


def _how(parameters: Mapping[str, Any]) -> str:
    return {False: "whole", True: "streamed"}.get(parameters.get("stream", ""), "")


def _values(given: str | tuple[str, ...], parameters: Mapping[str, Any]) -> list[str]:
    return [each.format_map(parameters) for each in ((given,) if isinstance(given, str) else given)]


def facts_of(item: pytest.Item) -> list[Fact]:
    """Nothing for a test that may be skipped or is expected to fail."""
    if any(item.get_closest_marker(name) for name in ("skip", "skipif", "xfail")):
        return []
    callspec = getattr(item, "callspec", None)
    parameters = {} if callspec is None else callspec.params
    return [*facts(item.iter_markers("compatible"), parameters, full=item.get_closest_marker("full") is not None)]


def pytest_collection_finish(session: pytest.Session) -> None:
    """In the collecting process, whose plugin this is."""
    if OUT in os.environ:
        found = [fact for item in session.items for fact in facts_of(item)]
        Path(os.environ[OUT]).write_text(json.dumps(found))


def collect(directory: Path = ROOT / "tests") -> list[Fact]:
    """What all tests show, by having pytest collect them in a process of its own."""
    marked = [str(path) for path in sorted(directory.rglob("test_*.py")) if "mark.compatible" in path.read_text()]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "facts.json"
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "tests.compatibility"]
        command += ["-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
        ended = subprocess.run(
            [*command, *marked],
            cwd=ROOT,
            env={**os.environ, OUT: str(out)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
        return [Fact(*each) for each in json.loads(out.read_text())]


# What the ledger says.


class Suite(NamedTuple):
    """A suite of a client that was run in an environment of its own."""

    test: pytest.Item  # that ran it, with its marks
    gateway: Gateway
    began: float  # unix time
    systems: Mapping[str, str]  # by provider, beside the exchanges' names


def check(suite: Suite) -> None:
    """The marks say of whole and streamed answers what the ledger says; of tools at most that."""
    declared = facts_of(suite.test)
    (client,) = {fact.client for fact in declared}
    query = "SELECT * FROM requests WHERE started >= ?"

    def shown() -> set[Fact]:
        return seen(suite.gateway.rows(query, str(round(suite.began * 1e6))), client, suite.systems)

    with contextlib.suppress(AssertionError):  # rows are written in batches; what is missing is said below
        until("the suite's rows", lambda: not differences(declared, shown())[0])
    missing, unsaid = differences(declared, shown())
    assert (missing, unsaid) == (set(), set()), "(marked and not in the ledger, in the ledger and not marked)"


def seen(rows: Iterable[Mapping[str, Any]], client: str, systems: Mapping[str, str]) -> set[Fact]:
    """The facts that answered requests of a ledger show. `systems`: by provider, beside the exchanges' names."""
    found = set()
    for row in rows:
        system = ABOUT[row["provider"]]["dialect"] if row["provider"] in ABOUT else systems.get(row["provider"])
        if row["outcome"] == "ok" and system is not None:
            fact = Fact(row["endpoint"], client, system, "streamed" if row["stream"] else "whole")
            found |= {fact, fact._replace(how="tools")} if "tools" in json.loads(row["has"]) else {fact}
    return found


def differences(declared: Iterable[Fact], shown: set[Fact]) -> tuple[set[Fact], set[Fact]]:
    """(what marks say and the ledger does not, what the ledger says and marks do not).

    A request that offers tools need not have led to a call: the ledger alone says nothing about them.
    """
    said = {fact._replace(full=False) for fact in declared}
    return said - shown, {fact for fact in shown - said if fact.how != "tools"}
