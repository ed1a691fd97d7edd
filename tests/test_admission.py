"""A bounded number at a time, a short queue, an honest no: and no place is ever lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from gateway import admission
from gateway.admission import Admission, share
from gateway.core.rules import Model
from gateway.errors import Overloaded

T = TypeVar("T")


def model(limit: int | None, name: str = "m") -> Model:
    return Model(name, "p", name, max_in_flight=limit)


def configured(limit: int | None, *, total: int = 100) -> Admission:
    made = Admission(total)
    made.configure({"m": model(limit)})
    return made


@pytest.fixture(autouse=True)
def _short_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "QUEUE_SECONDS", 0.05)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    return asyncio.get_running_loop().create_task(work)


def test_a_model_takes_its_limit_and_no_more() -> None:
    async def story() -> None:
        a, m = configured(2), model(2)
        assert [await a.enter_model(m, 0.0) for _ in range(3)] == ["", "", "2 requests in flight, its limit"]
        a.leave_model("m")
        assert await a.enter_model(m, 0.0) == ""

    asyncio.run(story())


def test_where_nothing_else_remains_it_queues_first_come_first_served() -> None:
    async def story() -> None:
        a, m, came = configured(2), model(2), []

        async def one(number: int) -> None:
            assert await a.enter_model(m, 1.0) == ""
            came.append(number)

        await asyncio.gather(one(0), one(1))
        waiting = [start(one(number)) for number in (2, 3)]
        await turns()
        assert came == [0, 1]
        assert await a.enter_model(m, 1.0) != ""  # the queue is as long as the limit, and full
        a.leave_model("m")
        assert await a.enter_model(m, 0.0) != ""  # nobody overtakes the queue
        await turns()
        assert came == [0, 1, 2]
        a.leave_model("m")
        await asyncio.gather(*waiting)
        assert came == [0, 1, 2, 3]

    asyncio.run(story())


def test_the_queue_is_short_in_time() -> None:
    async def story() -> None:
        a, m = configured(1), model(1)
        await a.enter_model(m, 1.0)
        began = time.monotonic()
        assert await a.enter_model(m, 1.0) != ""
        assert time.monotonic() - began > 0.04
        a.leave_model("m")
        assert await a.enter_model(m, 0.0) == ""  # whoever waited in vain left nothing behind

    asyncio.run(story())


def test_the_limit_in_all_ends_in_an_honest_503() -> None:
    async def story() -> None:
        a = Admission(2)
        await a.enter()
        await a.enter()
        queued = [start(a.enter()) for _ in range(2)]
        await turns()
        with pytest.raises(Overloaded) as raised:
            await a.enter()
        assert (raised.value.status, raised.value.code) == (503, "overloaded")
        assert raised.value.headers == {"retry-after": "1"}
        a.leave()
        a.leave()
        await asyncio.gather(*queued)

    asyncio.run(story())


def test_a_reload_holds_at_once() -> None:
    async def story() -> None:
        a, m = configured(1), model(1)
        await a.enter_model(m, 1.0)
        queued = start(a.enter_model(m, 1.0))
        await turns()
        a.configure({"m": model(2)})
        assert await queued == ""  # a larger limit lets in who waits
        a.configure({"m": model(1)})
        a.leave_model("m")
        assert await a.enter_model(m, 0.0) != ""  # a smaller one is obeyed as soon as it can be
        a.leave_model("m")
        assert await a.enter_model(m, 0.0) == ""
        a.configure({"m": model(None)})
        assert [await a.enter_model(m, 0.0) for _ in range(9)] == [""] * 9
        a.configure({"m": model(3)})  # what came in while there was no limit counts
        assert await a.enter_model(m, 0.0) != ""

    asyncio.run(story())


def test_a_model_that_a_reload_removed_is_left_as_it_was_entered() -> None:
    async def story() -> None:
        a, m = configured(1), model(1)
        await a.enter_model(m, 0.0)
        a.configure({})
        a.leave_model("m")
        a.configure({})
        assert await a.enter_model(m, 0.0) == ""  # by a call of the old configuration
        a.leave_model("m")

    asyncio.run(story())


@given(st.integers(1, 200), st.integers(1, 64))
def test_shares_add_up(limit: int, workers: int) -> None:
    parts = [share(limit, worker, workers) for worker in range(workers)]
    assert sum(parts) == max(limit, workers)
    assert max(parts) - min(parts) <= 1
    assert parts == sorted(parts, reverse=True)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), max_size=120), st.integers(1, 3))
def test_no_place_is_lost_or_doubled(steps: list[tuple[int, int]], limit: int) -> None:
    """Comes, goes, cancels and turns of the loop in any order, cancels also in the very moment of being let in."""

    async def story() -> None:
        a, m = configured(limit), model(limit)
        tasks: list[asyncio.Task[str]] = []
        inside: list[asyncio.Task[str]] = []
        for what, which in steps:
            if what == 0:
                tasks.append(start(a.enter_model(m, 1.0 if which % 2 == 0 else 0.0)))
            elif what == 1 and tasks:
                tasks[which % len(tasks)].cancel()
            elif what == 2 and inside:
                a.leave_model("m")
                inside.pop()
            else:
                await asyncio.sleep(0)
            inside += [task for task in tasks if task.done() and not task.cancelled() and task.result() == ""]
            tasks = [task for task in tasks if not task.done()]
            assert len(inside) <= limit
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(len(inside) + ends.count("")):
            a.leave_model("m")
        assert [await a.enter_model(m, 0.0) for _ in range(limit)] == [""] * limit
        assert await a.enter_model(m, 0.0) != ""

    asyncio.run(story())


def test_a_storm_with_cancellations_leaves_it_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "QUEUE_SECONDS", 0.003)
    dice = random.Random(7)  # noqa: S311 - a seed, so that a failure can be repeated
    most = held = 0

    async def one(a: Admission) -> None:
        nonlocal most, held
        await a.enter()
        held += 1
        most = max(most, held)
        try:
            await asyncio.sleep(dice.random() / 500)
        finally:
            held -= 1
            a.leave()

    async def story() -> int:
        a = Admission(10)
        tasks = []
        for _ in range(2000):
            tasks.append(start(one(a)))
            if dice.random() < 0.3:
                dice.choice(tasks).cancel()
            if dice.random() < 0.5:
                await asyncio.sleep(dice.random() / 2000)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(10):
            await asyncio.wait_for(a.enter(), 0.001)
        return sum(isinstance(end, Overloaded) for end in ends)

    refused = uvloop.run(story())
    assert most == 10
    assert refused > 10
