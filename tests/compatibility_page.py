"""docs/compatibility.md as Markdown, of the facts that `tests.compatibility` collects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from gateway.core.forms import Endpoint
from tests.compatibility import DOCUMENTED, FAMILIES, HOW, HTTP, LIVE, SYSTEMS, Fact, System

INTRO = f"""\
<!-- Made by tests/test_compatibility_doc.py from the marks of the tests: do not edit. -->
# Compatibility

Which system answered which client at which endpoint. Each cell is a test that sends the request through a real `gateway
serve` and reads the answer as that client does. There is no cell without a test.

- **{LIVE}**: a real server with a real model answered.
- **{DOCUMENTED}**: a server on this machine answered with an exchange from the
  system's documentation. Nobody has asked the system itself.
- `whole` and `streamed` say how the answer came; `tools`, that it called a tool. † is run by `scripts/test --full`
  only, the rest by every CI run. A dash is not tested, which says nothing about whether it works.
- At `/v1/messages` and `/v1/responses` a system was asked for a chat, whose answer was [translated](translation.md);
  where it was asked by an API of its own of that name, its row says so.
- The client *{HTTP}* is a plain HTTP client without an SDK; *{HTTP} as X* sends what X's source sends: X was not run.
  The others are the real programs and packages, these in locked environments (most of a suite in `tests/clients`).
  [Guides](clients/README.md) show how to use them.

Systems of one dialect differ in small things, which are told and mended ([providers](providers.md)). A system that is
not here but has OpenAI's API gets the client's bytes as they came. `/v1/models` has no row: no system is asked for it.
"""


class Row(NamedTuple):
    """Cells of a table of Markdown."""

    cells: Sequence[str]

    def __str__(self) -> str:
        return f"| {' | '.join(self.cells)} |"


def render(facts: Iterable[Fact]) -> str:
    """The page."""
    found = set(facts)
    return "\n".join([INTRO, *_families(found), *_systems(found), *_endpoints(found)])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield str(Row(head))
    yield f"|{'---|' * len(head)}"
    yield from (str(Row(row)) for row in rows)
    yield ""


def _families(facts: set[Fact]) -> Iterator[str]:
    yield "## Families of models\n"
    served = [(family, evidence, serving(family, facts)) for family in FAMILIES for evidence in (LIVE, DOCUMENTED)]
    rows = (
        (family, ", ".join(system.label for system in systems if system.evidence == evidence), evidence)
        for family, evidence, systems in served
    )
    yield from _table(("family", "asked through", "evidence"), (row for row in rows if row[1]))


def serving(family: str, facts: set[Fact]) -> list[System]:
    """The systems that answered with a model of this family."""
    glob = FAMILIES[family]
    there = {fact.system for fact in facts}
    return [
        system
        for name, system in SYSTEMS.items()
        if name in there and any(fnmatchcase(_bare(model), glob) for model in system.models)
    ]


def _bare(model: str) -> str:
    return model.lower().rpartition("/")[2]


def _systems(facts: set[Fact]) -> Iterator[str]:
    there = {fact.system for fact in facts}
    yield "## Systems\n"
    yield from _table(
        ("system", "models", "evidence", "documentation"),
        (
            (
                system.label,
                ", ".join(f"`{model}`" for model in system.models) or "-",
                system.evidence,
                " ".join(f"[{number}]({source})" for number, source in enumerate(system.sources, 1)) or "-",
            )
            for name, system in SYSTEMS.items()
            if name in there
        ),
    )


def _endpoints(facts: set[Fact]) -> Iterator[str]:
    """A table for each kind of evidence, with the clients that have some."""
    for endpoint in Endpoint:
        here = {fact for fact in facts if fact.endpoint == endpoint}
        if here:
            yield f"## `/v1{endpoint}`\n"
        for evidence in (LIVE, DOCUMENTED):
            shown = {fact for fact in here if SYSTEMS[fact.system].evidence == evidence}
            if not shown:
                continue
            clients = sorted({fact.client for fact in shown}, key=lambda client: (client != HTTP, client.lower()))
            rows = [name for name in SYSTEMS if any(fact.system == name for fact in shown)]
            yield f"**{evidence}**\n"
            yield from _table(
                ("system", *clients),
                ((SYSTEMS[name].label, *(_cell(shown, name, client) for client in clients)) for name in rows),
            )


def _cell(facts: set[Fact], system: str, client: str) -> str:
    return ", ".join(filter(None, (_word(facts, system, client, how) for how in HOW))) or "-"


def _word(facts: set[Fact], system: str, client: str, how: str) -> str:
    """What only a full run shows is marked, what any run shows is not."""
    full = {fact.full for fact in facts if (fact.system, fact.client, fact.how) == (system, client, how)}
    return "" if not full else how if False in full else f"{how} †"
