"""Regular expressions in linear time: the only file that imports RE2."""

from __future__ import annotations

from collections.abc import Callable

import re2

MAX_PATTERN = 4096  # characters


class CompiledPattern:
    """Implements `gateway.core.tasks.Pattern`; keeps the expression as written, for messages."""

    __slots__ = ("search", "text")

    def __init__(self, text: str, search: Callable[[str], object | None]) -> None:
        self.text = text
        self.search = search

    def __repr__(self) -> str:
        return f"CompiledPattern({self.text!r})"


def compile_pattern(text: str) -> CompiledPattern:
    """Raises ValueError with RE2's own words: look-around and back-references are the usual surprise."""
    if len(text) > MAX_PATTERN:
        raise ValueError(f"longer than {MAX_PATTERN} characters")
    options = re2.Options()
    options.log_errors = False  # it would write to stderr
    try:
        return CompiledPattern(text, re2.compile(text, options).search)
    except re2.error as error:
        reason = error.args[0] if error.args else "malformed"
        raise ValueError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from None


def substitute(pattern: str, by: str) -> Callable[[str], tuple[str, int]]:
    """Replaces what the pattern finds; gives the new text and the number of finds."""
    found = re2.compile(pattern)
    return lambda text: found.subn(by, text)
