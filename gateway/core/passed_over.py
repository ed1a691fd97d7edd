"""Why routes did not match, in sentences. Worked out only when somebody looks: a request itself never pays for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

from gateway.core.call import Call, Principal
from gateway.core.index import LineUp
from gateway.core.rules import Skipped
from gateway.core.tasks import Task


class Asked(NamedTuple):
    call: Call
    task: Task
    principal: Principal


class PassedOver(Sequence[Skipped]):
    """The routes before the chosen one."""

    __slots__ = ("_asked", "_chosen", "_line_ups", "_named")

    def __init__(self, line_ups: Sequence[LineUp], chosen: int | None, asked: Asked, *, named: bool) -> None:
        """`chosen`: its position, None where no route was. `named`: the client named a model itself."""
        self._line_ups = line_ups
        self._chosen = chosen
        self._asked = asked
        self._named = named

    def __len__(self) -> int:
        return len(self._line_ups[: self._chosen])

    def __iter__(self) -> Iterator[Skipped]:
        return (Skipped(line_up.route.name, self._why(line_up)) for line_up in self._line_ups[: self._chosen])

    @overload
    def __getitem__(self, index: int) -> Skipped: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Skipped]: ...
    def __getitem__(self, index: int | slice) -> Skipped | Sequence[Skipped]:
        return tuple(self)[index]

    def _why(self, line_up: LineUp) -> str:
        if self._named:
            return "the client named a model that this route does not name literally"
        unmet = line_up.matcher.unmet(*self._asked)
        wanted = getattr(line_up.route.match, unmet)
        if unmet in ("min_input_tokens", "max_input_tokens"):
            return f"{unmet} is {wanted}, the input has about {self._asked.call.estimated_input}"
        return f"{unmet} is {_listed(self._given(unmet))}, not {_listed(wanted)}"

    def _given(self, condition: str) -> Iterable[str]:
        call, task, principal = self._asked
        match condition:
            case "model":
                return (call.model,)
            case "task":
                return (task.label,)
            case "key":
                return (principal.key,)
            case "team":
                return (principal.team,)
            case "tag":
                return call.hints.tags | principal.tags
            case _:
                return call.has


def _listed(names: Iterable[str]) -> str:
    return " or ".join(sorted(filter(None, names))) or "none"
