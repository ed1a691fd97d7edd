"""Limits held for several processes: real memory that they share, real locks, real deaths."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gateway import rates
from gateway.core.limits import Limit, Quota
from gateway.errors import RequestError
from gateway.rates import Rates, memory

LIMIT = Limit("limits[0]", requests_per_minute=500, tokens_per_minute=100_000, max_in_flight=400)
QUOTA = Quota(LIMIT, "all")
HAMMER = """
import sys
from gateway.core.limits import Limit, Quota
from gateway.errors import RequestError
from gateway.rates import Rates

quota = Quota(Limit("limits[0]", requests_per_minute=500), "all")
rates = Rates(int(sys.argv[1]), process=int(sys.argv[2]), processes=4)
passed = []
for _ in range(400):
    try:
        passed.append(rates.enter((quota,), 3))
    except RequestError:
        pass
if sys.argv[3] == "die":
    import os
    print(len(passed), flush=True)
    os.kill(os.getpid(), 9)
for each in passed:
    rates.leave(each, 7)
print(len(passed))
"""


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def shared() -> Iterator[int]:
    descriptor = memory(4)
    yield descriptor
    os.close(descriptor)


def hammer(descriptor: int, *ends: str) -> list[int]:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, str(descriptor), str(number), end],
            stdout=subprocess.PIPE,
            pass_fds=[descriptor],
        )
        for number, end in enumerate(ends)
    ]
    return [int(process.communicate(timeout=30)[0]) for process in started]


def test_four_processes_let_in_exactly_the_limit(shared: int) -> None:
    assert sum(hammer(shared, "leave", "leave", "leave", "leave")) == 500
    assert Rates(shared, process=0, processes=4).usage(QUOTA) == (500, 500 * 7, 0)


def test_what_a_dead_process_had_in_flight_ends_with_the_next_of_its_number(shared: int) -> None:
    lived, died = hammer(shared, "leave", "die")
    assert died > 0
    assert Rates(shared, process=0, processes=4).usage(QUOTA).in_flight == died
    assert Rates(shared, process=1, processes=4).usage(QUOTA) == (lived + died, lived * 7 + died * 3, 0)


def test_all_or_none() -> None:
    tight, wide = (
        Quota(Limit("tight", requests_per_minute=1), "all"),
        Quota(Limit("wide", requests_per_minute=9), "all"),
    )
    one = Rates(clock=Clock())
    one.enter((wide, tight), 0)
    with pytest.raises(RequestError) as caught:
        one.enter((wide, tight), 0)
    assert one.usage(wide).requests == 1
    error = caught.value
    assert (error.status, error.type, error.code) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert error.message == "The limit tight is reached: 1 requests a minute. Try again in 61 s."
    assert error.headers == {
        "retry-after": "61",
        "x-ratelimit-limit-requests": "1",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m1s",
    }


def test_a_request_that_never_fits_is_not_to_be_sent_again() -> None:
    with pytest.raises(RequestError) as caught:
        Rates(clock=Clock()).enter((QUOTA,), 100_001)
    assert caught.value.headers["x-should-retry"] == "false"
    assert "retry-after" not in caught.value.headers


def test_scopes_beyond_the_table_share_a_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever invents users gains nothing by it, and keeps nobody else's count from being kept."""
    monkeypatch.setattr(rates, "METERS", 64)
    clock = Clock()
    one = Rates(clock=clock)
    limit = Limit("limits[0]", per="user", requests_per_minute=2)
    passed = 0
    for number in range(1_000):
        try:
            one.leave(one.enter((Quota(limit, f"user {number}"),), 0), 0)
            passed += 1
        except RequestError:
            pass
    assert passed <= 66
    clock.now += 62
    assert one.enter((Quota(limit, "somebody new"),), 0)


def test_a_count_survives_a_reload_and_other_scopes_do_not_disturb_it() -> None:
    clock = Clock()
    one = Rates(clock=clock)
    for number in range(200):
        one.leave(one.enter((Quota(LIMIT, f"user {number}"), QUOTA), 5), 11)
    assert one.usage(QUOTA) == (200, 200 * 11, 0)
    changed = Quota(LIMIT._replace(requests_per_minute=200), "all")
    with pytest.raises(RequestError):
        one.enter((changed,), 0)
