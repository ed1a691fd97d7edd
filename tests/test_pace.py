"""How fast a route begins, and the share of its requests that may be hedged."""

from gateway.pace import ENOUGH, SAMPLES, SHARE, Pace


def test_no_percentile_before_enough_was_observed() -> None:
    pace = Pace().of("r", stream=True)
    for number in range(ENOUGH - 1):
        pace.began(float(number))
    assert pace.p95 is None
    pace.began(float(ENOUGH - 1))
    assert pace.p95 == ENOUGH * 0.95


def test_the_percentile_follows_the_latest_samples() -> None:
    pace = Pace().of("r", stream=True)
    for _ in range(SAMPLES):
        pace.began(10.0)
    for _ in range(SAMPLES):
        pace.began(1.0)
    assert pace.p95 == 1.0


def test_routes_and_modes_are_apart() -> None:
    pace = Pace()
    for _ in range(ENOUGH):
        pace.of("r", stream=True).began(1.0)
    assert pace.of("r", stream=True).p95 == 1.0
    assert pace.of("r", stream=False).p95 is None
    assert pace.of("q", stream=True).p95 is None


def test_hedges_never_exceed_their_share() -> None:
    pace = Pace().of("r", stream=False)
    hedges = 0
    for number in range(1, 2001):
        pace.came()
        hedges += pace.take_hedge()
        assert hedges <= number * SHARE + 1e-6
    assert hedges >= 99


def test_a_quiet_time_saves_up_a_few_hedges_only() -> None:
    pace = Pace().of("r", stream=False)
    for _ in range(10_000):
        pace.came()
    assert sum(pace.take_hedge() for _ in range(100)) == 5
