"""The promise of contract section 3, checked after every step of random histories, on real SQLite.

Several processes reserve, settle, flush, die, are taken for dead, and come back, under nested budgets whose
limits change, while windows roll and clocks jump. Time is the test's own; each process's task is replaced by `flush`.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from gateway.core.budgets import Account, Action, Budget, Periods, Threshold, Touch, Window
from gateway.core.purse import Hold, Short
from gateway.spending import Crossing, Spending
from gateway.stores.counters import TTL, SqliteCounters, rows
from gateway.stores.schema import connect

HOUR = 3600.0
PROCESSES = 3
NAMES = ("company", "team", "hourly")
STEPS = (Threshold(50, Action.ALERT), Threshold(100, Action.REJECT))


class Process(Spending):
    """Talks to the store only when it is told to."""

    def _start(self) -> None:
        pass


class Call:
    def __init__(self, process: int, hold: Hold, accounts: tuple[Account, ...]) -> None:
        self.process = process
        self.hold = hold
        self.accounts = accounts


class Promise(RuleBasedStateMachine):
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "gateway.db"
        self.loop = asyncio.new_event_loop()
        self.now = 1_800_000_000.0
        self.limits = {"company": 100_000, "team": 40_000, "hourly": 3_000}
        self.periods = Periods()
        self.crossings: list[Crossing] = []
        self.cost: dict[Account, int] = defaultdict(int)  # what calls that were settled really cost
        self.open: dict[Account, int] = defaultdict(int)  # ceilings of calls under way, and of those that died
        self.overrun: dict[Account, int] = defaultdict(int)
        self.lost: dict[Account, int] = defaultdict(int)  # held by processes when they died
        self.alive: set[int] = set()
        self.all: list[Spending] = []

    @initialize()
    def start(self) -> None:
        self.processes = [self.started() for _ in range(PROCESSES)]

    def started(self) -> Process:
        dsn = f"sqlite:///{self.path}"
        process = Process(lambda: SqliteCounters(dsn), self.crossings.append, lambda: self.now)
        self.all.append(process)
        return process

    def touch(self, name: str) -> Touch:
        window = Window("hour" if name == "hourly" else "month")
        return self.periods.touch(Budget(name, self.limits[name], window, at=STEPS), "", self.now)

    def sync(self, process: Process) -> None:
        self.loop.run_until_complete(process._sync())
        if process._anew:  # it had been taken for dead
            self.loop.run_until_complete(process._sync())

    @rule(
        target=calls,
        number=st.integers(0, PROCESSES - 1),
        names=st.sets(st.sampled_from(NAMES), min_size=1),
        nano=st.sampled_from([1, 7, 50, 400, 2_500]),
    )
    def reserve(self, number: int, names: set[str], nano: int) -> Any:
        process = self.processes[number]
        touches = [self.touch(name) for name in sorted(names)]
        task = self.loop.create_task(process.reserve(touches, nano, seconds=0.0))
        self.loop.run_until_complete(asyncio.sleep(0))
        for _ in range(3):
            if not task.done():
                self.sync(process)
                self.loop.run_until_complete(asyncio.sleep(0))
        held = self.loop.run_until_complete(task)
        accounts = tuple(touch.account for touch in touches)
        fits = [
            self.cost[touch.account] + self.open[touch.account] + nano
            <= touch.budget.limit_nano + self.overrun[touch.account]
            for touch in touches
        ]
        if isinstance(held, Short):
            return multiple()
        assert all(fits), "admitted beyond a limit"
        for account in accounts:
            self.open[account] += nano
        return Call(number, held, accounts)

    @rule(call=consumes(calls), share=st.sampled_from([0.0, 0.1, 0.5, 1.0, 1.0, 3.0]))
    def settle(self, call: Call, share: float) -> None:
        cost = int(call.hold.nano * share)
        process = self.processes[call.process]
        if call.hold.purses and call.hold.purses[0] not in process._purses.values():
            return  # its process died
        process.settle(call.hold, cost)
        process.settle(call.hold, cost)  # the second counts nothing
        for account in call.accounts:
            self.open[account] -= call.hold.nano
            self.cost[account] += cost
            self.overrun[account] += max(0, cost - call.hold.nano)

    @rule(number=st.integers(0, PROCESSES - 1))
    def flush(self, number: int) -> None:
        self.sync(self.processes[number])

    @rule(number=st.integers(0, PROCESSES - 1))
    def die(self, number: int) -> None:
        """kill -9: nothing is told, and another process takes the place."""
        for purse in self.processes[number]._purses.values():
            self.lost[purse.account] += max(purse.held, purse.reserved) + purse.spent
        self.processes[number] = self.started()

    @rule(number=st.integers(0, PROCESSES - 1))
    def end(self, number: int) -> None:
        """SIGTERM: what calls are under way there is left to expire."""
        process = self.processes[number]
        for purse in process._purses.values():
            self.lost[purse.account] += max(purse.held, purse.reserved) if purse.reserved else 0
        self.loop.run_until_complete(process.close())
        self.processes[number] = self.started()

    @rule(seconds=st.sampled_from([0.2, TTL / 2, TTL + 1, HOUR, -TTL, -HOUR]))
    def clock(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=st.sampled_from(NAMES), factor=st.sampled_from([0.5, 0.9, 1.5]))
    def reload(self, name: str, factor: float) -> None:
        self.limits[name] = int(self.limits[name] * factor)

    @invariant()
    def the_store_adds_up(self) -> None:
        if not self.path.exists():
            return
        connection = connect(self.path, busy_seconds=1)
        try:
            for row in rows(connection, 0.0):
                assert row.settled >= 0
                assert row.held >= 0
                spent = self.cost[row.account]
                # What is settled is what calls cost, what the dead were charged, and nothing else.
                assert row.settled <= spent + self.lost[row.account] + self.untold_dead(row.account)
                # Nothing that was spent, or may yet be, is unaccounted for.
                untold = sum(p._purses[row.account].spent for p in self.processes if row.account in p._purses)
                assert row.settled + row.held + untold >= spent - self.overrun[row.account]
        finally:
            connection.close()

    def untold_dead(self, account: Account) -> int:
        """A process that lives but was taken for dead has been charged for what it holds, until it says so."""
        held = 0
        for process in self.processes:
            if account in process._purses:
                purse = process._purses[account]
                held += max(purse.held, purse.reserved) + purse.spent
        return held

    def teardown(self) -> None:
        if not hasattr(self, "processes"):
            self.loop.close()
            return
        for process in self.processes:
            self.sync(process)
        self.now += 10 * TTL
        for process in self.processes:
            self.sync(process)
        for process in self.processes:
            self.sync(process)
        connection = connect(self.path, busy_seconds=1)
        try:
            for row in rows(connection, 0.0):
                cost, lost = self.cost[row.account], self.lost[row.account]
                assert cost - self.overrun[row.account] <= row.settled <= cost + lost, (
                    "every call is settled once, and the dead at most in full"
                )
        finally:
            connection.close()
        told = [(crossing.account, crossing.percent) for crossing in self.crossings]
        assert len(told) == len(set(told)), "a threshold is told once in a window"
        for spending in self.all:
            spending._thread.shutdown()
        self.loop.close()
        shutil.rmtree(self.folder)


TestPromise = Promise.TestCase
TestPromise.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
