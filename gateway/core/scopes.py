"""Which budgets and limits are about a request, and on whose account: what `match` and `per` of an entry come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, Literal, Protocol, TypeVar

from gateway.core.call import Call, Principal
from gateway.core.globs import is_literal
from gateway.core.index import Matcher
from gateway.core.rules import Match
from gateway.core.tasks import Task

Scope = Literal["", "key", "team", "user", "task", "route", "model", "provider"]
ALL = "all"  # the scope of an entry without `per`
EVERYTHING = Match()
NONE = "none"  # the scope of a call that has no such value


class Guard(Protocol):
    """An entry of `budgets` or `limits`."""

    @property
    def name(self) -> str:
        """Tells it apart from others."""

    @property
    def match(self) -> Match: ...


G = TypeVar("G", bound=Guard)


class GuardIndex(Generic[G]):
    """Entries by what they match, so that ten thousand cost what ten do."""

    def __init__(self, guards: Sequence[G]) -> None:
        self._matchers = {guard.name: Matcher(guard.match) for guard in guards}
        self._always: list[G] = []
        self._open: list[G] = []
        self._literal: dict[tuple[str, str], list[G]] = {}
        for guard in guards:
            if guard.match == EVERYTHING:
                self._always.append(guard)
                continue
            asked = _literally(guard.match)
            if asked is None:
                self._open.append(guard)
                continue
            condition, names = asked
            for name in names:
                self._literal.setdefault((condition, name), []).append(guard)

    def matching(self, call: Call, task: Task, principal: Principal) -> list[G]:
        """In a list of the caller's own."""
        if not self._open and not self._literal:
            return self._always.copy()
        matchers = self._matchers
        found = [
            guard for guard in self._candidates(principal) if not matchers[guard.name].unmet(call, task, principal)
        ]
        return self._always + found

    def _candidates(self, principal: Principal) -> Iterator[G]:
        yield from self._open
        if self._literal:
            yield from self._literal.get(("team", principal.team), ())
            yield from self._literal.get(("key", principal.key), ())


def _literally(match: Match) -> tuple[str, tuple[str, ...]] | None:
    """A condition by which an entry can be found at once: its team or key, where they are names without wildcards."""
    for condition, names in (("key", match.key), ("team", match.team)):
        if names is not None and all(map(is_literal, names)):
            return condition, tuple(dict.fromkeys(names))
    return None


def scope_of(per: Scope, call: Call, task: Task, principal: Principal) -> str:
    """What the `per` of an entry is worth for a request; "all" where its target has to be known first."""
    match per:
        case "key":
            return principal.key or NONE
        case "team":
            return principal.team or NONE
        case "user":
            return principal.user or call.user or NONE
        case "task":
            return task.label
        case _:
            return ALL
