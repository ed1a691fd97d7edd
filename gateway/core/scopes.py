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
MOST_CALLERS = 10_000  # that are remembered: users may be the client's own word


class Guard(Protocol):
    """An entry of `budgets` or `limits`."""

    @property
    def name(self) -> str:
        """Tells it apart from others."""

    @property
    def match(self) -> Match: ...

    @property
    def per(self) -> Scope: ...


G = TypeVar("G", bound=Guard)
T = TypeVar("T")


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


class ByCaller(Generic[T]):
    """What entries come to for a caller, remembered where nothing else of a request decides it: nearly always.

    A caller is a principal, together with what else the entries count by. A principal's own entries, which ask for
    nothing and have no `per`, come and go with it.
    """

    __slots__ = ("_alone", "_by_task", "_by_user", "_known", "remembers")

    def __init__(self, guards: Sequence[Guard]) -> None:
        self.remembers = all(guard.match._replace(key=None, team=None) == EVERYTHING for guard in guards)
        self._by_task = any(guard.per == "task" for guard in guards)
        self._by_user = any(guard.per == "user" for guard in guards)
        self._alone = not (self._by_task or self._by_user)
        self._known: dict[object, tuple[Principal, T]] = {}

    def get(self, call: Call, task: Task, principal: Principal) -> T | None:
        known = self._known.get(id(principal) if self._alone else self._key(call, task, principal))
        return known[1] if known is not None and known[0] is principal else None

    def put(self, call: Call, task: Task, principal: Principal, found: T) -> None:
        if not self.remembers:
            return
        if len(self._known) >= MOST_CALLERS:
            self._known.clear()
        # By identity, as a principal takes long to hash; it is kept, so that no other gets its place in memory.
        self._known[id(principal) if self._alone else self._key(call, task, principal)] = principal, found

    def _key(self, call: Call, task: Task, principal: Principal) -> object:
        return id(principal), task.label if self._by_task else "", call.user if self._by_user else ""


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
