"""What a look says: one line for what it looked at, good or bad, with the cause and the fix."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from gateway.cli.table import table
from gateway.config.redact import SHOWN, redact

State = Literal["ok", "skipped", "warning", "failure"]
STATES: tuple[State, ...] = ("failure", "warning", "skipped", "ok")
_LONGEST = 300  # letters of what others wrote that are shown
_SHORTEST = 8  # letters of a secret that is looked for in all that is shown: shorter ones are also words of our own


class Finding(NamedTuple):
    check: str  # "configuration", "credentials", "upstream", ...
    subject: str  # what was looked at
    state: State
    found: str  # the cause, or how it stands
    fix: str = ""  # what to do; never empty for a warning or a failure
    measured: Mapping[str, float] = {}  # seconds, bytes: for programs


def ok(check: str, subject: str, found: str, measured: Mapping[str, float] | None = None) -> Finding:
    return Finding(check, subject, "ok", found, measured=measured or {})


def skipped(check: str, subject: str, found: str, fix: str = "") -> Finding:
    return Finding(check, subject, "skipped", found, fix)


def warning(check: str, subject: str, found: str, fix: str) -> Finding:
    return Finding(check, subject, "warning", found, fix)


def failure(check: str, subject: str, found: str, fix: str) -> Finding:
    return Finding(check, subject, "failure", found, fix)


def counts(findings: Iterable[Finding]) -> dict[State, int]:
    states = [finding.state for finding in findings]
    return {state: states.count(state) for state in STATES}


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def clean(finding: Finding, secrets: Sequence[str]) -> Finding:
    """Without secrets, and without what could steer a terminal: names of models and messages come from elsewhere."""

    def text(raw: str) -> str:
        for secret in secrets:
            raw = raw.replace(secret, SHOWN)
        shown, _ = redact("".join(letter if letter.isprintable() else " " for letter in raw))
        return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."

    return finding._replace(subject=text(finding.subject), found=text(finding.found), fix=text(finding.fix))


def worth_hiding(values: Iterable[str]) -> list[str]:
    """The longest first: one may hold another."""
    return sorted({value for value in values if len(value) >= _SHORTEST}, key=len, reverse=True)


def as_text(findings: Sequence[Finding]) -> str:
    rows = [(each.state.upper() if each.state == "failure" else each.state, *_cells(each)) for each in findings]
    of = counts(findings)
    told = (
        f"{count(of['failure'], 'failure')}, {count(of['warning'], 'warning')}, {of['ok']} ok, {of['skipped']} skipped"
    )
    return f"{table(('STATE', 'CHECK', 'SUBJECT', 'FOUND'), rows)}\n\n{told}."


def _cells(finding: Finding) -> tuple[str, str, str]:
    return finding.check, finding.subject, f"{finding.found}\nfix: {finding.fix}" if finding.fix else finding.found


def as_json(findings: Sequence[Finding], *, fine: bool) -> str:
    shown: list[dict[str, Any]] = [
        {**each._asdict(), "fix": each.fix or None, "measured": dict(each.measured)} for each in findings
    ]
    return json.dumps({"ok": fine, "counts": counts(findings), "findings": shown}, indent=2)
