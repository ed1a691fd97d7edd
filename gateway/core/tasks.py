"""Call -> Task: the client's word first, then the rules in the order of the file, then `default`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from gateway.core.call import Call
from gateway.core.globs import fits


class Pattern(Protocol):
    """A compiled, linear-time regular expression (RE2); `search` says whether it occurs anywhere in the text."""

    def search(self, text: str, /) -> object | None: ...


class Task(NamedTuple):
    label: str
    confidence: float  # 1.0 for the client's word and for rules
    why: str  # a sentence for people: "header x-gateway-task", "rule coding[0]: has tools, last_message matches ..."


class Condition(NamedTuple):
    """One entry of `when:`; everything given must hold. None and empty mean "not asked"."""

    header: Mapping[str, str] = {}  # lower-case name -> exact value
    system_prompt: Pattern | None = None
    last_message: Pattern | None = None
    has: frozenset[str] = frozenset()  # of images, tools, audio, json_schema: all of them
    min_input_tokens: int | None = None
    model: tuple[str, ...] = ()  # globs on the requested model: any of them
    text: str = ""  # the condition as written, for `why`


class TaskRule(NamedTuple):
    name: str
    when: tuple[Condition, ...]  # any of them


Classifier = Callable[[Call, Sequence[TaskRule], frozenset[str]], "Task | None"]

DEFAULT_TASK = "default"
_DEFAULT = Task(DEFAULT_TASK, 1.0, "no rule holds")


def by_client(call: Call, rules: Sequence[TaskRule], known: frozenset[str]) -> Task | None:
    """What the client says it is, if that is a task we know."""
    label = call.hints.task
    if label and (label in known or label == DEFAULT_TASK or any(rule.name == label for rule in rules)):
        return Task(label, 1.0, call.hints.task_source)
    return None


def by_rules(call: Call, rules: Sequence[TaskRule], known: frozenset[str]) -> Task | None:  # noqa: ARG001 - a Classifier
    """The first rule of which any condition holds."""
    for rule in rules:
        for index, condition in enumerate(rule.when):
            if _holds(condition, call):
                return Task(rule.name, 1.0, f"rule {rule.name}[{index}]: {condition.text}")
    return None


CLASSIFIERS: Mapping[str, Classifier] = {"client": by_client, "rules": by_rules}


def classify(call: Call, rules: Sequence[TaskRule], *, known: frozenset[str]) -> Task:
    """The task of a call. Runs CLASSIFIERS in order; the first that has an opinion wins; else `default`.

    `known`: the names a client's word may have besides those of the rules and `default` (`Rules.known_tasks`). Another
    word is passed over, and `why` says so without repeating it.
    """
    task = next(filter(None, (classifier(call, rules, known) for classifier in CLASSIFIERS.values())), _DEFAULT)
    if call.hints.task and task.label != call.hints.task:
        return task._replace(why=f"{task.why}; {call.hints.task_source} names no known task")
    return task


def _holds(condition: Condition, call: Call) -> bool:
    """The cheap questions first: the text is looked at last."""
    if any(call.headers.get(name) != value for name, value in condition.header.items()):
        return False
    if condition.model and not any(fits(call.model, glob) for glob in condition.model):
        return False
    if condition.has and not condition.has <= call.has:
        return False
    if condition.min_input_tokens is not None and call.estimated_input < condition.min_input_tokens:
        return False
    if condition.last_message is not None and not condition.last_message.search(call.last_message):
        return False
    return condition.system_prompt is None or bool(condition.system_prompt.search(call.system_prompt))
