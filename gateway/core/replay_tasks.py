"""The task of a recorded request under changed rules. What the rules before said about its content is still known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from gateway.core.globs import fits
from gateway.core.recorded import RecordedCall, Row
from gateway.core.routing import Rules
from gateway.core.tasks import DEFAULT_TASK, Condition, TaskRule

_BY_CLIENT = ("header x-gateway-task", "metadata.task")  # how `Task.why` begins where the client's word counted
_BY_RULE = re.compile(r"rule (.+)\[([0-9]+)\]: ", re.DOTALL)


class Retasked(NamedTuple):
    label: str
    known: bool  # False: the rules that decide look at content, which is not kept; the label stays as it was


class Tasks:
    """Tasks under `after` of requests that were classified under `before`."""

    def __init__(self, before: Rules, after: Rules) -> None:
        self._before = [(rule.name, [_asked(each) for each in rule.when]) for rule in before.tasks]
        self._after = after.tasks
        self._names = after.known_tasks | {DEFAULT_TASK} | {rule.name for rule in after.tasks}
        self.same = before.known_tasks == after.known_tasks and self._before == [
            (rule.name, [_asked(each) for each in rule.when]) for rule in after.tasks
        ]

    def of(self, row: Row, call: RecordedCall, *, ours: bool) -> Retasked:
        """`ours`: it was classified by exactly the rules before."""
        label = row.task or DEFAULT_TASK
        if self.same:
            return Retasked(label, known=True)
        why = row.task_why or ""
        asked = call.hints.task or (label if why.startswith(_BY_CLIENT) else "")
        if asked in self._names:
            return Retasked(asked, known=True)
        found = _first(self._after, call, self._facts(label, why, ours=ours))
        return Retasked(label, known=False) if found is None else Retasked(found, known=True)

    def _facts(self, label: str, why: str, *, ours: bool) -> dict[Asked, bool]:
        """What is known of conditions: those before the one that held did not hold."""
        facts: dict[Asked, bool] = {}
        rule = _BY_RULE.match(why)
        held = (rule[1], int(rule[2])) if rule else None
        if not ours or why.startswith(_BY_CLIENT) or (held is None and label != DEFAULT_TASK):
            return facts
        for name, conditions in self._before:
            for index, asked in enumerate(conditions):
                if (name, index) == held:
                    facts[asked] = True
                    return facts
                facts[asked] = False
        return facts if held is None else {}


class Asked(NamedTuple):
    """A condition, to be compared: compiled patterns are not equal, their text is."""

    header: tuple[tuple[str, str], ...]
    has: frozenset[str]
    least: int | None
    model: tuple[str, ...]
    content: bool
    text: str


def _asked(condition: Condition) -> Asked:
    header = tuple(sorted(condition.header.items()))
    content = condition.system_prompt is not None or condition.last_message is not None
    return Asked(header, condition.has, condition.min_input_tokens, condition.model, content, condition.text)


def _first(rules: Sequence[TaskRule], call: RecordedCall, facts: dict[Asked, bool]) -> str | None:
    """The first rule that holds, or `default`; None where an earlier one may hold."""
    for rule in rules:
        for condition in rule.when:
            asked = _asked(condition)
            holds = facts[asked] if asked in facts else _holds(asked, call)
            if holds is None:
                return None
            if holds:
                return rule.name
    return DEFAULT_TASK


def _holds(asked: Asked, call: RecordedCall) -> bool | None:
    """None: nobody can say without the headers and the text."""
    if asked.model and not any(fits(call.model, glob) for glob in asked.model):
        return False
    if not asked.has <= call.has or (asked.least is not None and call.estimated_input < asked.least):
        return False
    return None if asked.header or asked.content else True
