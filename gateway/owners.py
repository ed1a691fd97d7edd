"""Which provider keeps which response: what one process remembers of it (`gateway.core.stored`).

The other workers of a machine are told of each. What nobody remembers is asked of the first target that may be it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from gateway.client import Client
from gateway.core.call import Json
from gateway.core.rules import Target
from gateway.core.sticky import Place
from gateway.core.stored import owner_key, response_id
from gateway.errors import GatewayError
from gateway.flight import Flight, Header

MOST = 100_000  # responses; some 300 bytes each
KEPT = 24 * 3600.0  # seconds
KEY_BYTES = 16


class _Entry(NamedTuple):
    place: Place
    since: float


class Remembering:
    """Implements `gateway.client.Client`: tells whose a response is before the client knows its id."""

    def __init__(self, client: Client, flight: Flight, owners: Owners, json: Json) -> None:
        self._client = client
        self._flight = flight
        self._owners = owners
        self._json = json
        self._looked = False

    async def start(self, status: int, headers: list[Header]) -> None:
        await self._client.start(status, headers)

    async def send(self, body: bytes, *, more: bool) -> None:
        if body and not self._looked:
            self._looked = True
            self._look(body)
        await self._client.send(body, more=more)

    async def fail(self, error: GatewayError, headers: list[Header]) -> None:
        await self._client.fail(error, headers)

    def cut(self) -> None:
        self._client.cut()

    def _look(self, body: bytes) -> None:
        call, target = self._flight.call, self._flight.answering
        native = call is not None and target is not None and call.form.api in target.model.apis
        if native and self._flight.status == 200 and (found := response_id(body, self._json)):
            assert target is not None
            self._owners.made(found, target)


class Owners:
    """Implements `gateway.core.rules.Kept`. Belongs to one event loop; `clock` is monotonic, in seconds.

    `tell` sends a few bytes to the other workers; what `take` there makes of them is best effort.
    """

    def __init__(
        self, tell: Callable[[bytes], None] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # the oldest first

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, /) -> Place | None:
        entry = self._entries.get(key)
        return entry.place if entry is not None and self._clock() - entry.since < KEPT else None

    def made(self, response_id: str, target: Target) -> None:
        """A target has answered with a response of that id, which it may keep."""
        key, place = owner_key(response_id), (target.model.name, target.replica.name)
        self._put(key, place)
        if self._tell is not None:
            self._tell(key + "\0".join(place).encode())

    def take(self, payload: bytes) -> None:
        """What another worker told."""
        model, separator, replica = payload[KEY_BYTES:].decode(errors="replace").partition("\0")
        if separator:
            self._put(payload[:KEY_BYTES], (model, replica))

    def _put(self, key: bytes, place: Place) -> None:
        now = self._clock()
        entries = self._entries
        entries[key] = _Entry(place, now)
        entries.move_to_end(key)
        for _ in range(2):  # what is too old or too much, two at most for each that comes
            oldest = next(iter(entries.values()))
            if len(entries) <= MOST and now - oldest.since < KEPT:
                return
            entries.popitem(last=False)
