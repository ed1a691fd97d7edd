"""How long an attempt may go on waiting, and whether the upstream is to blame when that time is over."""

from __future__ import annotations

import math
import time

from gateway.flight import Flight

FAIR = 0.9  # of the time that a target is given otherwise: with less, being late says nothing about it


class Patience:
    """The limit in force for one attempt: its own, or what is left of the whole call's time."""

    def __init__(self, flight: Flight) -> None:
        assert flight.call is not None
        assert flight.plan is not None
        self.awaiting = ""
        self.limit = 0.0  # seconds
        self.hurried = False
        """Whether the limit is shorter than the target may expect: cut short by the client, or by what went before."""
        self._total = flight.plan.total
        self._deadline = flight.start + flight.plan.total
        self._shortened = flight.call.hints.timeout == flight.plan.total

    @property
    def left(self) -> float:
        """Seconds of the whole call's time."""
        return max(0.0, self._deadline - time.monotonic())

    def expect(self, what: str, seconds: float | None) -> None:
        """What is awaited, and for how long at most: for the limit itself and for the message when it passes."""
        own, left = math.inf if seconds is None else seconds, self.left
        self.awaiting, self.limit = what, min(own, left)
        self.hurried = left < own and (self._shortened or left < FAIR * min(own, self._total))
