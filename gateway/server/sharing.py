"""Health with several workers: their parent holds the breakers, each worker has a copy of what they say.

A worker's reports go up in batches, failures at once; what is not fine comes down whenever it changes. The trial of a
half-open replica is **granted** to one worker at a time, for a moment: whoever has traffic takes it. All processes of a
machine read the same monotonic clock, so that a grant ends everywhere at the same time.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from gateway.core.breaker import SUCCESSES, Ended, Phase
from gateway.core.rules import Standing
from gateway.health import Health, Key

BATCH = 0.02  # seconds that a worker gathers successes
GRANT = 0.5  # seconds in which a worker may take the trial
GRACE = 0.25  # seconds more for the word that it was taken to arrive
TRIAL = "trial"  # in place of a result: the grant was taken
_WAITS = SUCCESSES | {"cancelled"}  # results that nobody is in a hurry to know
_TAKEN = "breaker half-open: its trial is another request's"


class WorkerHealth:
    """Implements `gateway.health.Watch`. `send` takes a payload to the parent."""

    def __init__(self, send: Callable[[bytes], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._standings: dict[Key, Standing] = {}
        self._phases: dict[Key, str] = {}
        self._grants: dict[Key, tuple[int, float]] = {}  # number, and the end of its time
        self._used: dict[Key, int] = {}  # the number of the last grant taken
        self._pending: list[list[Any]] = []
        self._timer: asyncio.TimerHandle | None = None

    def view(self) -> Mapping[Key, Standing]:
        return self._standings

    def enter(self, model: str, replica: str) -> str:
        if not self._standings:
            return ""
        key = (model, replica)
        phase = self._phases.get(key, Phase.CLOSED)
        if phase == Phase.CLOSED:
            return ""
        number, ends = self._grants.pop(key, (0, 0.0))
        if phase == Phase.HALF_OPEN and self._clock() < ends:
            self._used[key] = number
            self._block(key)
            self._pending.append([model, replica, 1, TRIAL])
            self._flush()
            return ""
        return self._standings[key].blocked or _TAKEN

    def report(self, model: str, replica: str, ended: Ended) -> None:
        pending = self._pending
        last = pending[-1] if pending else None
        if last and ended.result in SUCCESSES and (last[0], last[1], last[3]) == (model, replica, ended.result):
            last[2] += 1
        else:
            pending.append([model, replica, 1, *ended])
        if ended.result not in _WAITS:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH, self._flush)

    def update(self, payload: bytes) -> None:
        """What the parent says now, in place of all it said before."""
        told = json.loads(payload)
        self._standings = {(model, replica): Standing(*standing) for model, replica, _, standing in told["unwell"]}
        self._phases = {(model, replica): phase for model, replica, phase, _ in told["unwell"]}
        grants = {(model, replica): (number, ends) for model, replica, number, ends in told["grants"]}
        self._grants = {key: grant for key, grant in grants.items() if grant[0] != self._used.get(key)}
        for key in grants.keys() - self._grants.keys():  # taken, and the parent did not know yet
            self._block(key)
        self._used = {key: number for key, number in self._used.items() if key in self._phases}

    def _block(self, key: Key) -> None:
        self._standings[key] = Standing(blocked=_TAKEN, retry_after=1.0)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending:
            self._send(json.dumps(self._pending).encode())
            self._pending = []


class _Grant(NamedTuple):
    worker: int
    number: int
    ends: float


class HealthDesk:
    """The parent's side of it."""

    def __init__(self, health: Health, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._health = health
        self._clock = clock
        self._grants: dict[Key, _Grant] = {}
        self._holders: dict[Key, int] = {}  # of trials: the worker
        self._number = 0
        self._said: dict[int, bytes] = {}  # by worker; one that was told nothing takes everything to be fine

    def take(self, worker: int, payload: bytes) -> None:
        """A worker's reports, in the order in which they came about."""
        for model, replica, count, *ended in json.loads(payload):
            key = (model, replica)
            if ended == [TRIAL]:
                if self._health.phase(*key) is Phase.HALF_OPEN and not self._health.enter(*key):
                    self._holders[key] = worker
                self._grants.pop(key, None)
                continue
            self._health.report(model, replica, Ended(*ended), count)
            if self._holders.get(key) == worker:
                del self._holders[key]

    def gone(self, worker: int) -> None:
        """A worker died: its trials have no verdict."""
        self._said.pop(worker, None)
        for key in [key for key, holder in self._holders.items() if holder == worker]:
            del self._holders[key]
            self._health.report(*key, Ended("cancelled"))
        self._grants = {key: grant for key, grant in self._grants.items() if grant.worker != worker}

    def news(self, workers: Collection[int]) -> Iterable[tuple[int, bytes]]:
        """What each of `workers` has to be told, where that is not what it was told last."""
        standings = self._health.view()
        if not standings and not self._said:
            return
        unwell = [self._row(key, standing) for key, standing in standings.items()]
        free = [key for key, standing in standings.items() if self._free(key, standing)]
        self._grants = {key: self._granted(key, sorted(workers)) for key in free if workers}
        for worker in workers:
            grants = [(*key, g.number, g.ends) for key, g in self._grants.items() if g.worker == worker]
            held = {key for key in free if self._grants[key].worker != worker}
            rows = [[*row[:3], [_TAKEN, 1.0, 1.0]] if row[:2] in held else row for row in unwell]
            payload = json.dumps({"unwell": rows, "grants": grants}).encode()
            if payload != self._said.get(worker):
                self._said[worker] = payload
                yield worker, payload
        if not standings:
            self._said.clear()

    def _row(self, key: Key, standing: Standing) -> tuple[str, str, str, Standing]:
        """Rounded, so that it is told once a second and not all the time."""
        share = math.floor(standing.share * 20) / 20
        rounded = standing._replace(retry_after=float(math.ceil(standing.retry_after)), share=share)
        return (*key, self._health.phase(*key), rounded)

    def _free(self, key: Key, standing: Standing) -> bool:
        return self._health.phase(*key) is Phase.HALF_OPEN and not standing.blocked

    def _granted(self, key: Key, workers: list[int]) -> _Grant:
        """The grant in force, or one for the next worker."""
        now = self._clock()
        before = self._grants.get(key)
        if before is not None and now < before.ends + GRACE:
            return before
        last = before.worker if before is not None else -1
        self._number += 1
        return _Grant(next((each for each in workers if each > last), workers[0]), self._number, now + GRANT)
