"""Call -> Task: the client's word first, then the rules in the order of the file, then `default`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from gateway.core.call import Call


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
    has: frozenset[str] = frozenset()  # of images, tools, audio, json_schema
    min_input_tokens: int | None = None
    model: tuple[str, ...] = ()  # globs on the requested model
    text: str = ""  # the condition as written, for `why`


class TaskRule(NamedTuple):
    name: str
    when: tuple[Condition, ...]  # any of them


Classifier = Callable[[Call, Sequence[TaskRule]], "Task | None"]

DEFAULT_TASK = "default"


def classify(call: Call, rules: Sequence[TaskRule]) -> Task:
    """The task of a call. Runs CLASSIFIERS in order; the first that has an opinion wins; else `default`."""
    raise NotImplementedError
