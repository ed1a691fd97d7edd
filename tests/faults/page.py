"""docs/failures.md, from the enum, the failure table and the results of its tests.

    python -m tests.faults.page RESULTS    prints the page; exit status 1 where a play failed or was not run

`scripts/failures` runs both. `tests/test_failures_doc.py` holds the page to the table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from gateway.core.breaker import FAILURES, SUCCESSES
from gateway.core.failures import Kind
from tests.faults.drive import PLAYS, Play
from tests.faults.table import IMPOSSIBLE, ROWS, Mode, Phase, Row

_SAYS_NOTHING = {
    Kind.RATE_LIMITED: "the endpoint rests for its Retry-After",
    Kind.EMPTY: "a prompt can ask for it, and no client may shut out a model for all",
}
INTRO = """\
<!-- Made by scripts/failures from tests/faults/table.py and the results of its tests: do not edit. -->
# What happens when an upstream fails

Each kind of failure (`fallback_on` in routes.yaml) at each phase of an answer, streamed and not. Every row is a test:
a request goes through a real gateway to an upstream that fails in this way. The route has a fallback.

- **Before the first content** nothing has reached the client: the fallback answers, and the client sees no error. An
  answer that is not streamed is passed on when it is whole, so this holds for it to the end.
- **After content** (streamed) the client gets an error event and no `[DONE]`: half an answer never looks whole.
- With `mid_stream: continue` a fallback that supports `prefill` goes on where the answer broke off: one stream, one id,
  no error. Not with `n` above 1, tools or a JSON schema.
- With `retries: 1` the same target is asked once more first, but not after `timeout`, `account`, `context_length` and
  `content_filter`, and never after content.
- With `x-gateway-no-fallback: true`, or a kind that is not in `fallback_on`, the client gets 504 after `timeout`, 503
  after `connect` and `rate_limited`, the upstream's own words after `context_length` and `content_filter`, else 502.
- Azure charges for a prompt that its filter refuses, and does not say how much: its estimated input is settled there,
  where the table says nothing.
- Each attempt has a row in the ledger with its kind and what it is charged.
"""


def note(directory: Path, play: Play, *, passed: bool) -> None:
    """Keeps the result of one play."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{play.name}.json").write_text(json.dumps({"play": str(play), "passed": passed}) + "\n")


def read_notes(directory: Path) -> dict[str, bool]:
    notes = [json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))]
    return {each["play"]: each["passed"] for each in notes}


def missing() -> list[tuple[Kind, Phase, Mode]]:
    """Combinations that the table says nothing about, or both that they happen and that they cannot."""
    happens = {(row.kind, row.phase, row.mode) for row in ROWS}
    never = {(cell.kind, cell.phase, cell.mode) for cell in IMPOSSIBLE}
    every = [(kind, phase, mode) for kind in Kind for phase in Phase for mode in Mode]
    return [cell for cell in every if (cell in happens) == (cell in never)]


def render(results: dict[str, bool]) -> str:
    """The page. `results`: by the name of a play; one that is not in there has not been run."""
    return "\n".join([INTRO, *(line for kind in Kind for line in _section(kind, results))])


def _section(kind: Kind, results: dict[str, bool]) -> Iterator[str]:
    yield f"## `{kind}`\n"
    yield f"{_to_the_breaker(kind)}\n"
    yield "| phase | | the upstream | the client gets | charged | passes |"
    yield "|---|---|---|---|---|---|"
    for phase in Phase:
        for mode in Mode:
            where = f"| {phase.value} | {mode.value} |"
            for number, row in enumerate(ROWS):
                if (row.kind, row.phase, row.mode) == (kind, phase, mode):
                    mark = _mark(number, row, results)
                    yield f"{where} {row.what} | {row.seen.value} | {row.charge.value} | {mark} |"
            for cell in IMPOSSIBLE:
                if (cell.kind, cell.phase, cell.mode) == (kind, phase, mode):
                    yield f"{where} *impossible: {cell.why}* | | | |"
    yield ""


def _to_the_breaker(kind: Kind) -> str:
    if kind in FAILURES:
        but = ", but for a wildcard entry, whose clients choose the model" if kind is Kind.ACCOUNT else ""
        return f"The breaker counts it as a failure{but}."
    if kind in SUCCESSES:
        return "The breaker counts it as an answer: the server did its part."
    return f"The breaker stays as it is: {_SAYS_NOTHING[kind]}."


def _mark(number: int, row: Row, results: dict[str, bool]) -> str:
    """Of a row under all its policies."""
    plays = [play for play in PLAYS if (play.number, play.row) == (number, row)]
    return "yes" if all(results.get(str(play)) for play in plays) else "**NO**"


def main() -> int:
    results = read_notes(Path(sys.argv[1]))
    print(render(results), end="")
    return 0 if not missing() and all(results.get(str(play)) for play in PLAYS) else 1


if __name__ == "__main__":
    sys.exit(main())
