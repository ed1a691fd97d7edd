"""Overload: how many requests this process works on at a time, for each model and in all.

Each limit has a short queue behind it: as many requests as the limit itself, first come first served, each for at most
`QUEUE_SECONDS`. Beyond that an honest refusal is worth more than an answer that comes after the client has given up.

The limit in all is this process's own: it guards its memory and descriptors. A model's limit guards the upstream and
holds for the whole gateway, so each of N workers takes its share (`share`). Decision 0008 says why.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping

from gateway.core.rules import Model
from gateway.errors import Overloaded

MAX_IN_FLIGHT = 2000  # of one process; see decision 0008
QUEUE_SECONDS = 1.0
RETRY_AFTER = 1  # seconds: a queue that was full a second ago has been worked off or refused by then


class Admission:
    """Counts who is in. Every `enter` that returned, and every `enter_model` that said "", is followed by one leave.

    Belongs to one event loop, and outlives reloads.
    """

    def __init__(self, max_in_flight: int = MAX_IN_FLIGHT, *, worker: int = 0, workers: int = 1) -> None:
        """`worker`: which of how many `workers` this process is, from 0."""
        self._worker = worker
        self._workers = workers
        self._total = _Gate(max_in_flight)
        self._models: dict[str, _Gate] = {}

    def configure(self, models: Mapping[str, Model]) -> None:
        """Puts the models' limits in force, at once: what waits is let in where a limit grew."""
        for name in [name for name, gate in self._models.items() if name not in models and gate.unused]:
            del self._models[name]
        for name, gate in self._models.items():
            gate.change(self._limit_of(models.get(name)))
        for name in models.keys() - self._models.keys():
            self._models[name] = _Gate(self._limit_of(models[name]))

    async def enter(self) -> None:
        """Raises Overloaded where there is no room and none comes up within the queue's time."""
        gate = self._total
        if gate.take() or await gate.wait(QUEUE_SECONDS):
            return
        raise Overloaded(f"The gateway has {gate.limit} requests under way, its limit.", retry_after=RETRY_AFTER)

    def leave(self) -> None:
        self._total.give_back()

    async def enter_model(self, model: Model, patience: float) -> str:
        """Empty: admitted. Otherwise why not. `patience`: seconds to queue at most; 0 or less: not at all."""
        gate = self._models.get(model.name)
        if gate is None:  # a call of a configuration that is no longer in force
            gate = self._models[model.name] = _Gate(self._limit_of(model))
        if gate.take() or (patience > 0 and await gate.wait(min(patience, QUEUE_SECONDS))):
            return ""
        return f"{gate.limit} requests in flight, its limit"

    def leave_model(self, name: str) -> None:
        """`name`: of a model that was entered."""
        self._models[name].give_back()

    def _limit_of(self, model: Model | None) -> int | None:
        if model is None or model.max_in_flight is None:
            return None
        return share(model.max_in_flight, self._worker, self._workers)


def share(limit: int, worker: int, workers: int) -> int:
    """A worker's part of a limit. The first workers take the remainder; each has at least 1, so that it can serve."""
    return max(1, limit // workers + (worker < limit % workers))


class _Gate:
    """A number of places, and the queue for them. A place that is given back goes to the first in the queue."""

    __slots__ = ("_queue", "held", "limit")

    def __init__(self, limit: int | None) -> None:
        self.limit = limit  # None: no limit; it counts all the same, as a reload may set one
        self.held = 0
        self._queue: OrderedDict[asyncio.Future[bool], None] = OrderedDict()  # True: the place is theirs

    @property
    def unused(self) -> bool:
        return not self.held and not self._queue

    def take(self) -> bool:
        """A place now. Nobody overtakes the queue."""
        if self.limit is not None and (self.held >= self.limit or self._queue):
            return False
        self.held += 1
        return True

    async def wait(self, seconds: float) -> bool:
        """A place within that time; False also where the queue is full."""
        if self.limit is None or len(self._queue) >= self.limit:
            return False
        loop = asyncio.get_running_loop()
        place: asyncio.Future[bool] = loop.create_future()
        self._queue[place] = None
        timer = loop.call_later(seconds, self._time_is_up, place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                if place.result():  # it came in the same moment
                    self.give_back()
            else:
                self._queue.pop(place, None)
            raise
        finally:
            timer.cancel()

    def give_back(self) -> None:
        self.held -= 1
        self._let_in()

    def change(self, limit: int | None) -> None:
        self.limit = limit
        self._let_in()

    def _let_in(self) -> None:
        while self._queue and (self.limit is None or self.held < self.limit):
            place, _ = self._queue.popitem(last=False)
            if not place.done():  # cancelled, and not yet told
                self.held += 1
                place.set_result(True)

    def _time_is_up(self, place: asyncio.Future[bool]) -> None:
        self._queue.pop(place, None)
        if not place.done():
            place.set_result(False)
