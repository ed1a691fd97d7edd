"""Several processes' dealings with one budget, on real SQLite: what they hold, wait for and give back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.core.budgets import Budget, Periods, Touch, Window
from gateway.spending import Hold, Spending
from gateway.stores.counters import SqliteCounters


def touch(limit: int) -> Touch:
    return Periods().touch(Budget("b", limit, Window("total")), "", 1_800_000_000.0)


def processes(folder: Path) -> tuple[Spending, Spending]:
    def started() -> Spending:
        return Spending(lambda: SqliteCounters(f"sqlite:///{folder / 'gateway.db'}"))

    return started(), started()


def test_what_is_too_little_for_either_is_not_kept_by_both(tmp_path: Path) -> None:
    """Each process is left with 9 of which its waiting calls need 10: one of them must get them."""

    async def play() -> list[bool]:
        both = processes(tmp_path)
        touches = [touch(20)]
        first = [await each.reserve(touches, 10, seconds=0.0) for each in both]
        next_two = [asyncio.create_task(each.reserve(touches, 10, seconds=2.0)) for each in both]
        await asyncio.sleep(0.2)  # both wait
        for each, hold in zip(both, first, strict=True):
            assert isinstance(hold, Hold)
            each.settle(hold, 1)
        got = [isinstance(await task, Hold) for task in next_two]
        for each in both:
            await each.close()
        return got

    assert sum(asyncio.run(play())) == 1
