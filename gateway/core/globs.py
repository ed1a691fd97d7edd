"""Names with wildcards, as in `match:` of a route and `allow:` of a key: `fnmatch.fnmatchcase`, without its cost.

Most globs are a plain name or a prefix with a star; these are compared directly. `fnmatch` keeps a bounded cache of
compiled patterns, which thousands of keys with their own globs would thrash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase, translate
from typing import NamedTuple

_MAGIC = re.compile(r"[*?\[]")


def is_literal(glob: str) -> bool:
    """Whether it can only match itself."""
    return _MAGIC.search(glob) is None


def fits(name: str, glob: str) -> bool:
    """`fnmatchcase(name, glob)`."""
    magic = _MAGIC.search(glob)
    if magic is None:
        return name == glob
    if glob[magic.start() :] == "*":
        return name.startswith(glob[:-1])
    return fnmatchcase(name, glob)


class Names(NamedTuple):
    """ "Any of" some globs, compiled."""

    literals: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]

    @classmethod
    def of(cls, globs: Iterable[str]) -> Names:
        given = tuple(globs)
        patterns = (re.compile(translate(glob)) for glob in given if not is_literal(glob))
        return cls(frozenset(filter(is_literal, given)), tuple(patterns))

    def hold(self, name: str) -> bool:
        if name in self.literals:
            return True
        # A loop, because a generator costs more than the match itself.
        for pattern in self.patterns:  # noqa: SIM110
            if pattern.match(name):
                return True
        return False

    def hold_any(self, names: Iterable[str]) -> bool:
        return any(self.hold(name) for name in names)
