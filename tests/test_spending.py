"""Several processes' dealings with one budget, on real SQLite: what they hold, wait for and give back."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.core.budgets import Action, Budget, Periods, Threshold, Touch, Window
from gateway.core.purse import Hold, Short, calm
from gateway.errors import StoreUnavailable
from gateway.spending import Spending
from gateway.stores.audit import Change
from gateway.stores.counters import TTL, SqliteCounters, change, rows
from gateway.stores.schema import connect


def touch(limit: int, name: str = "b") -> Touch:
    return Periods().touch(Budget(name, limit, Window("total")), "", 1_800_000_000.0)


def processes(folder: Path) -> tuple[Spending, Spending]:
    return Spending(lambda: SqliteCounters(dsn(folder))), Spending(lambda: SqliteCounters(dsn(folder)))


def dsn(folder: Path) -> str:
    return f"sqlite:///{folder / 'gateway.db'}"


def balances(folder: Path) -> dict[str, tuple[int, int]]:
    """By budget: what is settled, and what is held."""
    with closing(connect(folder / "gateway.db", busy_seconds=1)) as connection:
        return {row.account.budget: (row.settled, row.held) for row in rows(connection, 0.0)}


def test_what_is_too_little_for_either_is_not_kept_by_both(tmp_path: Path) -> None:
    """Each process is left with 9 of which its waiting calls need 10: one of them must get them."""

    async def play() -> list[bool]:
        both = processes(tmp_path)
        touches = [touch(20)]
        first = [await each.reserve(touches, 10, seconds=0.0) for each in both]
        next_two = [asyncio.create_task(each.reserve(touches, 10, seconds=5.0)) for each in both]
        await asyncio.sleep(0.2)  # both wait
        for each, hold in zip(both, first, strict=True):
            assert isinstance(hold, Hold)
            each.settle(hold, 1)
        got = [isinstance(await task, Hold) for task in next_two]
        for each in both:
            await each.close()
        return got

    assert sum(asyncio.run(play())) == 1


def test_calls_that_come_at_once_get_one_lease_together(tmp_path: Path) -> None:
    """Each call having one, 40 of them would hold a third of the budget, and lose it when their process dies."""

    async def play() -> tuple[list[bool], dict[str, tuple[int, int]]]:
        one, _ = processes(tmp_path)
        touches = [touch(100_000), touch(60_000, "team")]
        calls = [asyncio.create_task(one.reserve(touches, 10, seconds=0.0)) for _ in range(40)]
        got = [isinstance(await call, Hold) for call in calls]
        held = balances(tmp_path)
        await one.close()
        return got, held

    got, held = asyncio.run(play())
    assert all(got)
    for limit, (settled, nano) in zip((100_000, 60_000), (held["b"], held["team"]), strict=True):
        assert settled == 0
        assert 40 * 10 < nano <= 40 * 10 + limit // 100


def test_who_ends_gives_back_what_no_call_of_its_uses(tmp_path: Path) -> None:
    """Its leases too, though a call of its is still under way in another budget: that alone is left to expire."""

    async def play() -> dict[str, tuple[int, int]]:
        one, _ = processes(tmp_path)
        leased = await one.reserve([touch(100_000, "leased")], 1, seconds=0.0)
        await one.reserve([touch(100_000, "used")], 400, seconds=0.0)
        assert isinstance(leased, Hold)
        one.settle(leased, 1)
        await one.close()
        return balances(tmp_path)

    assert asyncio.run(play()) == {"leased": (1, 0), "used": (0, 400)}


def test_who_was_taken_for_dead_takes_the_charge_back_when_it_ends(tmp_path: Path) -> None:
    now = 1_800_000_000.0

    async def play() -> dict[str, tuple[int, int]]:
        nonlocal now
        both = [Spending(lambda: SqliteCounters(dsn(tmp_path)), clock=lambda: now) for _ in range(2)]
        holds = [await both[0].reserve([touch(100_000)], 1, seconds=0.0)]
        task = both[0]._task
        assert task is not None
        task.cancel()  # it hangs
        await asyncio.wait([task])
        both[0]._task = None
        now += TTL + 1
        holds.append(await both[1].reserve([touch(100_000)], 1, seconds=0.0))
        assert balances(tmp_path)["b"][0] == 1001, "the dead are charged in full, lease and all"
        for each, hold in zip(both, holds, strict=True):
            assert isinstance(hold, Hold)
            each.settle(hold, 1)
            await each.close()
        return balances(tmp_path)

    assert asyncio.run(play()) == {"b": (2, 0)}


def test_who_makes_up_users_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the most that are told apart all share one account, and no name that was made up is kept for good."""
    monkeypatch.setattr("gateway.stores.counters.MOST_USERS", 3)
    monkeypatch.setattr("gateway.spending.MOST_ALIASES", 5)

    async def play() -> tuple[int, dict[str, int]]:
        one, _ = processes(tmp_path)
        budget, periods = Budget("b", 1_000_000, Window("total"), per="user"), Periods()
        for number in range(30):
            hold = await one.reserve([periods.touch(budget, f"made-up-{number}", 1.0)], 10, seconds=0.0)
            assert isinstance(hold, Hold)
            one.settle(hold, 10)
        kept = len(one._aliases)
        await one.close()
        with closing(connect(tmp_path / "gateway.db", busy_seconds=1)) as connection:
            return kept, {row.account.scope: row.settled for row in rows(connection, 0.0)}

    kept, settled = asyncio.run(play())
    assert kept <= 5
    assert sum(settled.values()) == 300
    assert settled["user other"] == 270


def test_a_threshold_that_a_reload_removes_ends_nothing(tmp_path: Path) -> None:
    """It was asked about, and passed, while the file lost it: whoever comes next is still answered."""

    class Slow(SqliteCounters):
        def sync(self, *given: Any, **more: Any) -> Any:
            report = super().sync(*given, **more)
            if report.crossed:
                asked.set()
                assert changed.wait(60)
            return report

    asked, changed = threading.Event(), threading.Event()
    told: list[int] = []

    async def play() -> Hold | Short:
        one = Spending(lambda: Slow(dsn(tmp_path)), lambda crossing: told.append(crossing.percent))
        before = Budget("b", 1000, Window("total"), at=(Threshold(50, Action.ALERT), Threshold(100, Action.REJECT)))
        after = before._replace(at=(Threshold(100, Action.REJECT),))
        hold = await one.reserve([Periods().touch(before, "", 1.0)], 10, seconds=0.0)
        assert isinstance(hold, Hold)
        one.settle(hold, 600)
        assert await asyncio.to_thread(asked.wait, 60)
        assert one.settled(Periods().touch(after, "", 1.0).account) == 600
        looking = one.asked(one.purses([Periods().touch(after, "", 1.0)]))  # the file has changed
        changed.set()
        assert looking is not None
        await looking
        async with asyncio.timeout(60):
            got = await one.reserve([Periods().touch(after, "", 1.0)], 300, seconds=0.0)
        if isinstance(got, Hold):
            one.settle(got, 0)
        await one.close()
        return got

    assert isinstance(asyncio.run(play()), Hold)
    assert told == []


def test_what_a_forgotten_account_is_charged_late_is_booked_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that was to cost nothing holds nothing, and its account may be forgotten before it ends."""
    monkeypatch.setattr("gateway.spending.FORGET", 0.0)

    async def play() -> int:
        one = Spending(lambda: SqliteCounters(dsn(tmp_path)))
        touches = [touch(1_000)]
        late = [await one.reserve(touches, 0, seconds=0.0) for _ in range(2)]
        async with asyncio.timeout(10):
            while touches[0].account in one._purses:
                other = await one.reserve([touch(1_000, "other")], 10, seconds=0.0)  # so that it talks to the store
                assert isinstance(other, Hold)
                one.settle(other, 0)
                await asyncio.sleep(0.01)
        again = await one.reserve(touches, 100, seconds=0.0)
        assert not any(purse.forgotten for purse in one.purses(touches)), "nobody is given a forgotten one"
        for hold, cost in zip([*late, again], (30, 5, 7), strict=True):
            assert isinstance(hold, Hold)
            one.settle(hold, cost)
        await one.close()
        return balances(tmp_path)["b"][0]

    assert asyncio.run(play()) == 42


def test_a_call_that_is_still_under_the_old_file_does_not_bring_its_limit_back(tmp_path: Path) -> None:
    """What accounts a call touches is remembered, and a reload's limit holds for who remembers it too."""

    async def play() -> tuple[int, bool, Hold | Short]:
        one = Spending(lambda: SqliteCounters(dsn(tmp_path)))
        budget = Budget("b", 100_000, Window("total"))
        old, new, late = (
            (Periods().touch(each, "", 1.0),) for each in (budget, budget._replace(limit_nano=50), budget)
        )
        for touches, cost in ((old, 40), (new, 1), (late, 20)):
            hold = await one.reserve(touches, 1, seconds=0.0)
            assert isinstance(hold, Hold)
            one.settle(hold, cost)
        purses = one.purses(new)
        found = purses[0].limit, calm(purses), await one.reserve(new, 1, seconds=0.0)
        await one.close()
        return found

    assert asyncio.run(play()) == (50, False, Short(touch(50), spent=True))


def test_who_comes_while_the_store_is_being_asked_is_told_that_it_failed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands in the queue, but is not among those that the store was asked for."""
    monkeypatch.setattr("gateway.stores.counters.BUSY", 0.1)

    class Slow(SqliteCounters):
        def sync(self, *given: Any, **more: Any) -> Any:
            asked.set()
            assert came.wait(60)
            return super().sync(*given, **more)

    asked, came = threading.Event(), threading.Event()

    async def play() -> list[object]:
        one = Spending(lambda: Slow(dsn(tmp_path)))
        calls = [asyncio.create_task(one.reserve([touch(1_000)], 10, seconds=0.0))]
        assert await asyncio.to_thread(asked.wait, 60)
        calls.append(asyncio.create_task(one.reserve([touch(1_000)], 10, seconds=0.0)))
        looks = [one.asked(one.purses([touch(1_000)]))]
        await asyncio.sleep(0)  # now it waits
        with closing(connect(tmp_path / "gateway.db", busy_seconds=1)) as writer:
            writer.execute("BEGIN IMMEDIATE")  # nobody else writes
            came.set()
            async with asyncio.timeout(60):
                return await asyncio.gather(*calls, *filter(None, looks), return_exceptions=True)

    assert list(map(type, asyncio.run(play()))) == [StoreUnavailable] * 3


def test_what_others_do_with_an_account_is_seen_however_much_goes_on_elsewhere(tmp_path: Path) -> None:
    """Other processes spend from it, and somebody resets it: who only asks for it is told of both."""

    async def play() -> list[int]:
        one, other = processes(tmp_path)
        asked, busy = [touch(1_000, "asked")], [touch(10**9, "busy")]
        seen: list[int] = []

        async def sees(nano: int) -> None:
            while True:
                purses = one.purses(asked)
                if (looking := one.asked(purses)) is not None:
                    await looking
                if not seen or purses[0].settled != seen[-1]:
                    seen.append(purses[0].settled)
                if seen[-1] == nano:
                    return
                hold = await one.reserve(busy, 1, seconds=0.0)  # so that it always has something to tell
                assert isinstance(hold, Hold)
                one.settle(hold, 1)
                await asyncio.sleep(0.01)

        async with asyncio.timeout(60):
            await sees(0)
            hold = await other.reserve(asked, 600, seconds=0.0)
            assert isinstance(hold, Hold)
            other.settle(hold, 600)
            await sees(600)
            with closing(connect(tmp_path / "gateway.db", busy_seconds=5)) as connection:
                change(connection, asked[0].account, asked[0].ends, lambda _: 0, Change(0.0, "me", "reset", "asked"))
            await sees(0)
        for each in (one, other):
            await each.close()
        return seen

    assert asyncio.run(play()) == [0, 600, 0]
