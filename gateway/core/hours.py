"""Times of day and of week at which a price holds. Told the time, it says whether; it never looks at a clock."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import NamedTuple

DAY = 86_400  # seconds on a clock face
EVERY_DAY = frozenset(range(1, 8))  # ISO 8601: Monday is 1, Sunday 7


class Window(NamedTuple):
    """From `start` up to, not including, `end`, as a wall clock in `zone` shows it.

    So an hour that a change of the clocks skips is never in it, and one that comes twice is in it twice. A window over
    midnight is two.
    """

    start: int  # seconds since 00:00
    end: int  # up to DAY
    days: frozenset[int] = EVERY_DAY
    zone: datetime.tzinfo = datetime.UTC
    calendar: datetime.tzinfo | None = None  # whose weekdays `days` are; None: those of `zone`


def within(windows: Sequence[Window], when: float) -> bool:
    """Whether one of them is open at `when`, unix seconds."""
    zone: datetime.tzinfo | None = None
    second = day = 0
    for window in windows:
        if window.zone is not zone:
            zone = window.zone
            local = datetime.datetime.fromtimestamp(when, zone)
            second = local.hour * 3600 + local.minute * 60 + local.second
            day = local.isoweekday()
        if window.start <= second < window.end:
            calendar = window.calendar
            today = day if calendar is None else datetime.datetime.fromtimestamp(when, calendar).isoweekday()
            if today in window.days:
                return True
    return False
