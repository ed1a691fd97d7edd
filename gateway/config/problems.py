"""Collecting everything that is wrong with a file, in words for people."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from gateway.errors import WHOLE_FILE, Problem

Path: TypeAlias = tuple[str | int, ...]
Data: TypeAlias = Any  # parsed YAML: dict, list, str, int, Decimal, bool, None

_SIMPLE = re.compile(r"[A-Za-z0-9_*-]+")
_LISTED = 12  # names shown where nothing comes close


def dotted(path: Path) -> str:
    """`("routes", 0, "use")` -> "routes[0].use"; names that are not plain are quoted: `models["openai/*"].price`."""
    text = "" if path else WHOLE_FILE
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _SIMPLE.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant; empty where none comes close."""
    names = {each.lower(): each for each in sorted(known)}
    close = difflib.get_close_matches(name.lower()[:200], names, n=1)
    return names[close[0]] if close else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: "; did you mean `x`?" or "; there are: a, b, c"."""
    names = sorted(known)
    near = nearest(name, names)
    if near:
        return f"; did you mean `{near}`?"
    if not names:
        return "; there are none"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"; there are: {', '.join(names[:_LISTED])}{more}"


class Warned(str):
    """A warning that says what it is about, for who sorts them (`gateway doctor`); to all others it is its text."""

    __slots__ = ("about", "subject")

    about: Literal["credentials", "price", "unpriced"]
    subject: str  # the provider, model, endpoint, key or webhook

    def __new__(cls, text: str, about: Literal["credentials", "price", "unpriced"], subject: str) -> Warned:
        made = super().__new__(cls, text)
        made.about = about
        made.subject = subject
        return made


class Problems:
    """What is wrong so far. A path gets one problem: the first said about it is the most to the point."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.lines: Mapping[Path, int] = {}  # known once the YAML is read
        self._paths: set[str] = set()

    def at_line(self, line: int, path: str, message: str) -> None:
        self._paths.add(path)
        self.found.append(Problem(line, path, message))

    def add(self, path: Path, message: str) -> None:
        name = dotted(path)
        if name not in self._paths:
            self.at_line(self.line(path), name, message)

    def line(self, path: Path) -> int:
        """Of the value at `path`, or of what would hold it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)
