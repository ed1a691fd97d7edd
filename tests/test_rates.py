"""Limits held for several processes: real memory that they share, real locks, real deaths."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gateway import rates
from gateway.core import limits
from gateway.core.limits import Limit, Quota, Quotas
from gateway.errors import RequestError
from gateway.rates import Passed, Rates, memory

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
    return [int(process.communicate(timeout=120)[0]) for process in started]


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


def test_who_had_no_room_has_a_meter_of_its_own_as_soon_as_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "METERS", 64)
    clock = Clock()
    one = Rates(clock=clock)
    limit = Limit("limits[0]", per="user", requests_per_minute=1)
    callers = [(Quota(limit, f"user {number}"),) for number in range(100)]  # the very same come again

    def let_in(quotas: Quotas) -> bool:
        try:
            one.leave(one.enter(quotas, 0), 0)
        except RequestError:
            return False
        return True

    crowded = [each for each in callers if not let_in(each)]
    assert len(crowded) > 30
    clock.now += 62
    assert all(let_in(each) for each in crowded[:10])


def test_two_quotas_of_a_request_do_not_take_the_same_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "METERS", 2)
    clock = Clock()
    one = Rates(clock=clock)
    both = [Limit(f"limits[{at}]", per="user", requests_per_minute=1) for at in range(2)]
    for number in range(20):
        quotas = tuple(Quota(limit, f"user {number}") for limit in both)
        one.leave(one.enter(quotas, 0), 0)
        assert [one.usage(quota).requests for quota in quotas] == [1, 1]
        clock.now += 62


def test_without_any_room_a_request_is_refused_and_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "METERS", 1)
    one = Rates(clock=Clock())
    quotas = tuple(Quota(Limit(f"limits[{at}]", requests_per_minute=1), "all") for at in range(2))
    with pytest.raises(RequestError) as caught:
        one.enter(quotas, 0)
    assert (caught.value.status, caught.value.headers["retry-after"]) == (429, "61")


def test_a_meter_that_another_process_was_given_is_not_counted_in_any_more(
    shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each remembers where its quotas' meters are, until one of them moves. There is room for two, and two come."""
    monkeypatch.setattr(rates, "METERS", 2)
    clock = Clock()
    first, second = (Rates(shared, process=number, processes=4, clock=clock) for number in range(2))
    mine = (Quota(Limit("mine", requests_per_minute=1), "all"),)
    for number in range(20):
        second.leave(second.enter((Quota(Limit(f"of {number}", requests_per_minute=1), "all"),), 0), 0)
        first.leave(first.enter(mine, 0), 0)
        clock.now += 62


@pytest.mark.parametrize("meters", [3, 8, 40])
@pytest.mark.parametrize("seed", range(3))
def test_however_crowded_the_table_no_user_gets_more_and_nothing_is_left(
    shared: int, monkeypatch: pytest.MonkeyPatch, meters: int, seed: int
) -> None:
    """Three processes, of which some die, and 30 users under two limits, each of 3 requests a minute."""
    monkeypatch.setattr(rates, "METERS", meters)
    chance, clock = random.Random(seed), Clock()  # noqa: S311 - not a secret

    def process(number: int) -> Rates:
        return Rates(shared, process=number, processes=4, clock=clock)

    both = [Limit(f"limits[{at}]", per="user", requests_per_minute=3, max_in_flight=2) for at in range(2)]
    callers = [[tuple(Quota(limit, f"user {user}") for limit in both) for user in range(30)] for _ in range(3)]
    living, under_way = [process(number) for number in range(3)], list[tuple[int, Passed]]()
    times: dict[int, list[float]] = {user: [] for user in range(30)}
    for _ in range(400):
        clock.now += chance.choice([0, 0.2, 1, 5, 30, 62]) if chance.random() < 0.2 else 0
        what, number, user = chance.random(), chance.randrange(3), chance.randrange(30)
        if under_way and what < 0.45:
            whose, passed = under_way.pop(chance.randrange(len(under_way)))
            living[whose].leave(passed, chance.randrange(9))
        elif what < 0.97:
            with contextlib.suppress(RequestError):
                under_way.append((number, living[number].enter(callers[number][user], chance.randrange(4))))
                times[user].append(clock.now)
        else:
            under_way = [each for each in under_way if each[0] != number]
            living[number] = process(number)
    assert sum(map(len, times.values())) > 20
    for each in times.values():
        assert all(sum(first <= time < first + 60 for time in each) <= 3 for first in each)
    for whose, passed in under_way:
        living[whose].leave(passed, 0)
    clock.now += 62
    assert all(living[0].usage(Quota(limit, "user 0")) == (0, 0, 0) for limit in both)
    assert all(limits.idle(living[0]._meter(at), clock.now) for at in range(meters))


def test_a_count_survives_a_reload_and_other_scopes_do_not_disturb_it() -> None:
    clock = Clock()
    one = Rates(clock=clock)
    for number in range(200):
        one.leave(one.enter((Quota(LIMIT, f"user {number}"), QUOTA), 5), 11)
    assert one.usage(QUOTA) == (200, 200 * 11, 0)
    changed = Quota(LIMIT._replace(requests_per_minute=200), "all")
    with pytest.raises(RequestError):
        one.enter((changed,), 0)
