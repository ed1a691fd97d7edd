"""Windows of the day and of the week, to the second, also where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.hours import DAY, EVERY_DAY, Window, within

BERLIN = ZoneInfo("Europe/Berlin")  # +1, and +2 from 2026-03-29 01:00 UTC to 2026-10-25 01:00 UTC
NEW_YORK = ZoneInfo("America/New_York")
SHANGHAI = ZoneInfo("Asia/Shanghai")
KATHMANDU = ZoneInfo("Asia/Kathmandu")  # +5:45
WORKDAYS = frozenset(range(1, 6))


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def hours(begin: float, end: float) -> tuple[int, int]:
    return round(begin * 3600), round(end * 3600)


@pytest.mark.parametrize(
    ("window", "when", "open_"),
    [
        # to the second, and a fraction of one belongs to the second that it is in
        (Window(*hours(16.5, 24)), "2026-11-25T16:29:59.999Z", False),
        (Window(*hours(16.5, 24)), "2026-11-25T16:30:00Z", True),
        (Window(*hours(16.5, 24)), "2026-11-25T23:59:59.999Z", True),
        (Window(*hours(16.5, 24)), "2026-11-26T00:00:00Z", False),
        (Window(0, 1), "2026-11-26T00:00:00.999Z", True),
        (Window(0, 1), "2026-11-26T00:00:01Z", False),
        # another zone's clock, and its weekday: Wednesday 23:00 UTC is Thursday in Shanghai and Kathmandu
        (Window(*hours(7, 8), zone=SHANGHAI), "2026-11-25T23:00:00Z", True),
        (Window(*hours(7, 8), frozenset({3}), SHANGHAI), "2026-11-25T23:00:00Z", False),
        (Window(*hours(7, 8), frozenset({4}), SHANGHAI), "2026-11-25T23:00:00Z", True),
        (Window(*hours(4.75, 5), frozenset({4}), KATHMANDU), "2026-11-25T23:00:00Z", True),
        # hours of one zone on the days of another
        (Window(*hours(17, 24), WORKDAYS, calendar=SHANGHAI), "2026-11-27T17:00:00Z", False),  # Saturday in Shanghai
        (Window(*hours(17, 24), WORKDAYS, calendar=SHANGHAI), "2026-11-29T17:00:00Z", True),  # Monday there
        # spring: 02:00 becomes 03:00
        (Window(*hours(1, 2), zone=BERLIN), "2026-03-29T00:59:59Z", True),  # 01:59:59
        (Window(*hours(2, 3), zone=BERLIN), "2026-03-29T00:59:59Z", False),
        (Window(*hours(2, 3), zone=BERLIN), "2026-03-29T01:00:00Z", False),  # 03:00: the hour never was
        (Window(*hours(3, 4), zone=BERLIN), "2026-03-29T01:00:00Z", True),
        # autumn: 03:00 becomes 02:00, and the hour comes again
        (Window(*hours(2, 3), zone=BERLIN), "2026-10-25T00:00:00Z", True),  # 02:00 summer time
        (Window(*hours(2, 3), zone=BERLIN), "2026-10-25T00:59:59Z", True),
        (Window(*hours(2, 3), zone=BERLIN), "2026-10-25T01:00:00Z", True),  # 02:00 winter time
        (Window(*hours(2, 3), zone=BERLIN), "2026-10-25T01:59:59Z", True),
        (Window(*hours(2, 3), zone=BERLIN), "2026-10-25T02:00:00Z", False),
    ],
)
def test_a_window(window: Window, when: str, open_: bool) -> None:
    assert within([window], at(when)) is open_


@pytest.mark.parametrize(
    ("day", "seconds"), [("2026-03-29", 23 * 3600), ("2026-10-25", 25 * 3600), ("2026-11-25", 24 * 3600)]
)
def test_a_day_is_as_long_as_its_clocks_make_it(day: str, seconds: int) -> None:
    """Night (22:00-06:00) and day share the whole of it, second for second."""
    start = datetime.fromisoformat(day).replace(tzinfo=BERLIN).timestamp()
    night = [Window(*hours(22, 24), zone=BERLIN), Window(*hours(0, 6), zone=BERLIN)]
    light = [Window(*hours(6, 22), zone=BERLIN)]
    for when in range(int(start), int(start) + seconds, 300):
        assert within(night, when) is not within(light, when)
    dark = sum(within(night, when) for when in range(int(start), int(start) + seconds, 60)) * 60
    assert dark == seconds - 16 * 3600


ZONES = st.sampled_from([UTC, BERLIN, NEW_YORK, SHANGHAI, KATHMANDU])
MOMENTS = st.floats(at("2020-01-01T00:00Z"), at("2040-01-01T00:00Z"))


@settings(deadline=None)  # a shared machine pauses at will
@given(MOMENTS, ZONES, st.integers(1, DAY - 1))
def test_a_day_cut_in_two_is_always_in_one_half(when: float, zone: ZoneInfo, cut: int) -> None:
    assert within([Window(0, cut, zone=zone)], when) is not within([Window(cut, DAY, zone=zone)], when)


@settings(deadline=None)  # a shared machine pauses at will
@given(MOMENTS, ZONES, st.sets(st.integers(1, 7)))
def test_a_week_cut_in_two_too(when: float, zone: ZoneInfo, days: set[int]) -> None:
    some, others = frozenset(days), EVERY_DAY - days
    assert within([Window(0, DAY, some, zone)], when) is not within([Window(0, DAY, others, zone)], when)
