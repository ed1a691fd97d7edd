"""YAML text -> plain data that remembers its lines.

Scalars follow the YAML 1.2 core schema (`yes`, `no` and `on` are text, `010` is ten), as editors do; dates stay text.
Numbers with a fraction become `Decimal` of their source text, because prices are exact. Anchors, aliases and `<<` merge
keys work; what they expand to is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import yaml

from gateway.config.problems import Data, Path, Problems, dotted
from gateway.errors import WHOLE_FILE

MAX_BYTES = 8 * 1024 * 1024
MAX_VALUES = 200_000  # after aliases are expanded: a bomb of nested aliases stops here
MAX_DEPTH = 40

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FRACTION = re.compile(r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,5})?")
_TEXT_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})


class Document(NamedTuple):
    data: Data
    lines: dict[Path, int]  # 1-based; of an entry the line of its key


class _Node(NamedTuple):
    line: int
    value: Any  # a scalar, a list of _Node, or a list of (key, line of the key, _Node, is a merge) for a mapping
    mapping: bool = False


class _Unreadable(Exception):  # it carries one problem up to `read`, and never leaves this file
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def read(text: str, problems: Problems) -> Document | None:
    """None where the text is no YAML at all: then exactly one problem says why."""
    try:
        node = _Builder(text, problems).document()
        return _Expansion(problems).document(node)
    except _Unreadable as error:
        problems.at_line(error.line, WHOLE_FILE, str(error))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        about = " ".join(part for part in (error.problem, error.context) if part)
        problems.at_line(mark.line + 1 if mark else 0, WHOLE_FILE, f"not valid YAML: {about}")
    except yaml.YAMLError as error:
        problems.at_line(0, WHOLE_FILE, f"not valid YAML: {str(error).splitlines()[0]}")
    return None


def _scalar(event: yaml.ScalarEvent) -> Data:
    text: str = event.value
    if event.tag in _TEXT_TAGS or not event.implicit[0]:
        return text
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _INTEGER.fullmatch(text):
        return int(text, 10 if text[:2] not in {"0o", "0x"} else 0)
    if _FRACTION.fullmatch(text):
        try:
            return Decimal(text)
        except InvalidOperation:
            return text
    return text


class _Builder:
    """Events -> nodes. An alias is the node of its anchor, so that nothing is copied yet."""

    def __init__(self, text: str, problems: Problems) -> None:
        self.problems = problems
        self.anchors: dict[str, _Node] = {}
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))

    def document(self) -> _Node:
        next(self.events)  # the stream's start
        if isinstance(next(self.events), yaml.StreamEndEvent):
            raise _Unreadable(0, "the file is empty; start with `version: 1`")
        node = self.node(next(self.events), 0)
        next(self.events)  # the document's end
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise _Unreadable(after.start_mark.line + 1, "a second document begins here; one file holds one")
        return node

    def node(self, event: Data, depth: int) -> _Node:
        line = event.start_mark.line + 1
        if depth > MAX_DEPTH:
            raise _Unreadable(line, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise _Unreadable(line, f"the alias *{event.anchor} has no finished anchor &{event.anchor} before it")
            return self.anchors[event.anchor]
        if event.tag is not None and event.tag not in _TEXT_TAGS:
            raise _Unreadable(line, f"YAML tags such as {event.tag[:40]} are not supported")
        if isinstance(event, yaml.ScalarEvent):
            node = _Node(line, _scalar(event))
        elif isinstance(event, yaml.SequenceStartEvent):
            node = _Node(line, self.items(depth))
        else:
            node = _Node(line, self.entries(depth), mapping=True)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def items(self, depth: int) -> list[_Node]:
        found = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            found.append(self.node(event, depth + 1))
        return found

    def entries(self, depth: int) -> list[tuple[str, int, _Node, bool]]:
        found = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent):
                raise _Unreadable(line, "a key must be plain text")
            merge = event.value == "<<" and event.implicit[0]
            found.append((event.value, line, self.node(next(self.events), depth + 1), merge))
        return found


class _Expansion:
    """Nodes -> data and lines; merges `<<`, reports keys that are given twice."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.lines: dict[Path, int] = {}
        self.count = 0

    def document(self, node: _Node) -> Document:
        self.lines[()] = node.line
        return Document(self.expand(node, ()), self.lines)

    def bound(self, line: int, path: Path) -> None:
        self.count += 1
        if self.count > MAX_VALUES or len(path) > MAX_DEPTH:
            raise _Unreadable(line, f"too large: more than {MAX_VALUES} values, or too deep, once aliases are expanded")

    def expand(self, node: _Node, path: Path) -> Data:
        self.bound(node.line, path)
        if node.mapping:
            return self.mapping(node, path)
        if isinstance(node.value, list):
            data = []
            for index, item in enumerate(node.value):
                self.lines[*path, index] = item.line
                data.append(self.expand(item, (*path, index)))
            return data
        return node.value

    def mapping(self, node: _Node, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, line, value, merge in node.value:
            if merge:
                continue
            if key in data:
                first = self.lines[*path, key]
                self.problems.at_line(line, dotted((*path, key)), f"`{key}` is given twice (first on line {first})")
                continue
            self.lines[*path, key] = line
            data[key] = self.expand(value, (*path, key))
        for _, line, value, merge in node.value:
            if merge:
                self.merge(value, line, path, data)
        return data

    def merge(self, node: _Node, line: int, path: Path, data: dict[str, Any]) -> None:
        sources = node.value if isinstance(node.value, list) and not node.mapping else [node]
        for source in sources:
            if not source.mapping:
                raise _Unreadable(line, "`<<` takes a mapping, or a list of mappings")
            for key, key_line, value, nested in source.value:
                self.bound(line, path)
                if nested:
                    self.merge(value, key_line, path, data)
                elif key not in data:
                    self.lines[*path, key] = key_line
                    data[key] = self.expand(value, (*path, key))
