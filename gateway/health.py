"""How the replicas of every model stand: the breakers of `core.breaker`, held together for one machine.

One process holds them (`Health`: the gateway itself, or the parent of its workers) and alone tells of changes.
A worker has a copy with the same three methods, `Watch` (`server/sharing.py`). While everything is fine, all three cost
next to nothing: no state is made, only a number counted.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from gateway.config.types import Config
from gateway.core import breaker
from gateway.core.breaker import FINE, SUCCESSES, Breaker, Ended, Phase
from gateway.core.failures import Kind
from gateway.core.rules import Standing
from gateway.telemetry.events import BreakerChanged, Event

Key = tuple[str, str]  # model and replica, by the names that metrics and messages use

LOOK_EVERY = 0.05  # seconds: a plan's picture of what is not fine is at most this old
IDLE_PROBE = 10.0  # seconds between probes of a self-hosted replica that has no traffic
JITTER = 0.3  # of each probe's time, either way


class Watch(Protocol):
    """What the engine needs of it."""

    def view(self) -> Mapping[Key, Standing]:
        """Every replica that is not simply fine. Not to be changed, nor kept longer than for one plan."""

    def enter(self, model: str, replica: str) -> str:
        """Asks to attempt. Empty: go, and `report` how it ended, always. Otherwise why not."""

    def report(self, model: str, replica: str, ended: Ended) -> None:
        """How an attempt ended."""


class Due(NamedTuple):
    """A replica to probe now."""

    key: Key
    provider: str


class Entry:
    """One replica. Successes are counted by the second and enter the breaker's window when the next one begins."""

    __slots__ = ("clean", "good", "next_probe", "probing", "provider", "second", "self_hosted", "state", "wildcard")

    def __init__(self) -> None:
        self.state: Breaker = FINE
        self.clean = True  # one more success would change nothing but a count
        self.second = 0  # of the last result
        self.good = 0  # successes in that second
        self.provider = ""
        self.self_hosted = False
        self.wildcard = False
        self.probing = False
        self.next_probe = 0.0


class Health:
    """The machine's only one. Belongs to one event loop; `clock` is monotonic, `dice` uniform in [0, 1)."""

    def __init__(
        self,
        emit: Callable[[Event], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._emit = emit
        self._clock = clock
        self._dice = dice
        self._entries: dict[Key, Entry] = {}
        self._unwell: dict[Key, Entry] = {}  # those that `standing` has something to say about
        self._standings: Mapping[Key, Standing] = {}
        self._look_at = 0.0  # when `_standings` is too old

    def configure(self, config: Config) -> None:
        """Knows the replicas of `config` from now on, and no others. What is still there keeps its state."""
        before, self._entries = self._entries, {}
        now = self._clock()
        for model in config.rules.models.values():
            for replica in () if model.disabled else model.replicas:
                key = (model.name, replica.name)
                entry = before.pop(key, None)
                if entry is None:
                    entry = Entry()
                    entry.next_probe = now + self._jittered(IDLE_PROBE)
                entry.provider = replica.provider or model.provider
                entry.self_hosted = model.hosting == "self"
                entry.wildcard = not model.upstream_name
                self._entries[key] = entry
        for key, entry in before.items():
            self._unwell.pop(key, None)
            if entry.state.phase is not Phase.CLOSED:
                self._emit(BreakerChanged(*key, Phase.CLOSED, "no longer configured"))
        self._look_at = 0.0

    def view(self) -> Mapping[Key, Standing]:
        if self._unwell or self._standings:
            now = self._clock()
            if now >= self._look_at:
                self._look(now)
        return self._standings

    def enter(self, model: str, replica: str) -> str:
        if not self._unwell:
            return ""
        key = (model, replica)
        entry = self._unwell.get(key)
        if entry is None:
            return ""
        state, reason = breaker.admit(entry.state, self._clock())
        self._put(key, entry, state)
        return reason

    def report(self, model: str, replica: str, ended: Ended, count: int = 1) -> None:
        """`count`: successes that are told at once."""
        key = (model, replica)
        entry = self._entries.get(key)
        if entry is None:  # the configuration that it belonged to is gone
            return
        now = self._clock()
        second = int(now)
        if entry.clean and second == entry.second and ended.result in SUCCESSES:
            entry.good += count
            return
        if entry.wildcard and ended.result == Kind.ACCOUNT:
            ended = ended._replace(
                result="unknown model"
            )  # the client chose the name: nobody may open it for all by asking for nonsense
        self._settle(entry)
        entry.second = second
        self._put(key, entry, breaker.record(entry.state, ended, now, count=count))

    def phase(self, model: str, replica: str) -> Phase:
        entry = self._unwell.get((model, replica))
        return Phase.CLOSED if entry is None else entry.state.phase

    def known(self) -> list[Key]:
        return list(self._entries)

    def set(self, model: str, replica: str, *, is_open: bool) -> None:
        """By hand. Raises KeyError where there is no such replica."""
        entry = self._entries[model, replica]
        self._settle(entry)
        change = breaker.opened_by_hand if is_open else breaker.closed_by_hand
        why = "" if is_open else "closed by hand"
        self._put((model, replica), entry, change(entry.state, self._clock()), why)

    def due(self) -> list[Due]:
        """What to probe now. Each must end in one `probed`."""
        now = self._clock()
        found = []
        for key, entry in self._entries.items():
            if entry.state.phase is Phase.OPEN:
                self._put(key, entry, breaker.tick(entry.state, now))
            if entry.probing or now < entry.next_probe:
                continue
            if entry.state.phase is Phase.CLOSED:
                if not entry.self_hosted:
                    continue
                if now - entry.second < IDLE_PROBE:
                    entry.next_probe = entry.second + self._jittered(IDLE_PROBE)
                    continue
            entry.probing = True
            found.append(Due(key, entry.provider))
        return found

    def probed(self, key: Key, *, alive: bool | None) -> None:
        """None: there was no way to ask."""
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.probing = False
        now = self._clock()
        if alive is not None:
            self._settle(entry)
            self._put(key, entry, breaker.probed(entry.state, now, alive=alive))
        closed = entry.state.phase is Phase.CLOSED
        entry.next_probe = now + self._jittered(IDLE_PROBE if closed else breaker.probe_gap(entry.state))

    def _settle(self, entry: Entry) -> None:
        """Brings the counted successes into the breaker."""
        if entry.good:
            entry.state = breaker.record(entry.state, Ended("ok"), entry.second, count=entry.good)
            entry.good = 0

    def _put(self, key: Key, entry: Entry, state: Breaker, why: str = "") -> None:
        """Changes a breaker, tells of it, and keeps what depends on it."""
        before, now = entry.state, self._clock()
        if state is before and entry.clean:
            return
        entry.state = state
        if breaker.standing(state, now) is not None:
            self._unwell[key] = entry
        else:
            self._unwell.pop(key, None)
        entry.clean = key not in self._unwell and not state.failures and not state.misses
        if state is not before:
            self._look_at = 0.0
        if state.phase is not before.phase:
            if state.phase is Phase.OPEN:
                entry.next_probe = now + self._jittered(breaker.probe_gap(state))
            self._emit(BreakerChanged(*key, state.phase, why or _told(before, state)))

    def _look(self, now: float) -> None:
        for key, entry in list(self._unwell.items()):
            self._put(key, entry, breaker.tick(entry.state, now))
        standings = {key: breaker.standing(entry.state, now) for key, entry in self._unwell.items()}
        self._standings = {key: standing for key, standing in standings.items() if standing is not None}
        self._look_at = now + LOOK_EVERY

    def _jittered(self, seconds: float) -> float:
        return seconds * (1.0 - JITTER + 2.0 * JITTER * self._dice())


def _told(before: Breaker, state: Breaker) -> str:
    if state.phase is Phase.OPEN:
        return state.why
    if state.phase is Phase.HALF_OPEN:
        return "one request may try"
    return f"its trial went well; it had opened after {before.why}"
