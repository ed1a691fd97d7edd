"""What a translation is made of. Every part is a pure function; the provider brings the bytes.

**Losses.** What changes the meaning of an answer and cannot be carried over is *refused*: the target is skipped, and
where no other is left the client gets a 400 that names it. A hint without which the answer means the same is *dropped*
and named in `x-gateway-dropped`. Nothing is lost without being named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from gateway.core.call import Call, Json
from gateway.core.forms import Endpoint
from gateway.core.sse import Event


class Losses(NamedTuple):
    """Names of members and features, in the client's words, in the order in which they stand."""

    refused: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


NONE_LOST = Losses()


class Events(Protocol):
    """A stream on its way from the upstream's dialect into the client's. Belongs to one answer."""

    over: bool
    """The upstream has said that the answer is whole: what may still come is usage and an end."""

    def take(self, event: Event) -> bytes:
        """What the client gets for one of the upstream's events; often nothing, sometimes several events.

        Data that is not a JSON object comes back as it is: who reads on leaves it out and counts it.
        """

    def end(self) -> bytes:
        """What is left to say when the upstream's stream has ended; nothing where it broke off."""


class Translation(NamedTuple):
    """From one endpoint to another, and back. The functions take any input: what they do not know they pass or name."""

    to: Endpoint  # what goes upstream
    obstacles: Callable[[Call], Losses]
    request: Callable[[Call], Call]  # a call of the endpoint `to`; only where nothing is refused
    answer: Callable[[Call, bytes, Json], bytes]  # a whole answer -> the client's dialect
    events: Callable[[Call, Json], Events]
    error: Callable[[int, bytes, Json], bytes]  # an upstream's refusal (its status) -> the client's dialect
    prefill: Mapping[str, Any] | None = None  # members by which the server goes on with the last message; None: it does


class Notes:
    """Collects losses while a request is translated."""

    __slots__ = ("_dropped", "_refused")

    def __init__(self) -> None:
        self._refused: dict[str, None] = {}
        self._dropped: dict[str, None] = {}

    def refuse(self, name: str) -> None:
        self._refused[name[:_NAME]] = None

    def drop(self, name: str) -> None:
        self._dropped[name[:_NAME]] = None

    def drop_others(self, where: str, given: Mapping[str, Any], known: frozenset[str]) -> None:
        """Drops what an object holds besides what is known; null is the same as nothing."""
        for name, value in given.items():
            if name not in known and value is not None:
                self.drop(name if name == "cache_control" else f"{where}.{name}")

    @property
    def losses(self) -> Losses:
        return Losses(tuple(self._refused), tuple(self._dropped))


_NAME = 80  # characters: names end up in headers and messages, and some are the client's own words
