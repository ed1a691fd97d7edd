"""kill -9, of one worker and of all processes, with calls under way: what the promise says and what death may cost.

.venv/bin/python -m pytest tests/full/test_kill_budgets.py -m full -s      50 times; prints its figures

While clients ask and processes die, the file is read all the time, as another program would (a statement is a moment):

    billed <= settled + held <= limit        for each account, at every moment

`billed` is what the upstream's own log says: every call that it received, whoever lived to hear the answer. What the
dead held is charged when it expires (decision 0010). Beyond what was billed that is at most what their calls under way
held and one lease for each process:

    lost = settled + held - billed <= sum over kills of (calls under way x ceiling + processes x limit / 100)
"""

# ruff: noqa: S311 - death needs no cryptography
from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from gateway.core.purse import FEW
from gateway.stores.counters import TTL
from tests import replies
from tests.full.load import Ask, Client
from tests.replies import Tokens
from tests.servers import Gateway, until
from tests.upstream import Received, Step, Upstream

WORKERS, CLIENTS = 4, 24
MODELS = ("a", "b", "c")  # each has an account of its own inside the company's
COMPANY, EACH = 1200, 450  # USD; a call's ceiling is one
CEILING = 10**9  # nano-USD: ten tokens of output at 0.1 USD; input is for nothing
TOKEN = CEILING // 10
ROUTES = """
version: 1
providers: {up: {base_url: "@BASE@"}}
models:
  a: {provider: up, model: a, price: {input: 0, output: 100000}, max_output_tokens: 10}
  b: {provider: up, model: b, price: {input: 0, output: 100000}, max_output_tokens: 10}
  c: {provider: up, model: c, price: {input: 0, output: 100000}, max_output_tokens: 10}
budgets:
  - {name: company, limit_usd: @COMPANY@, window: total}
  - {name: each, per: model, limit_usd: @EACH@, window: total}
"""
LIMITS = {"all": COMPANY * 10**9, **{f"model {model}": EACH * 10**9 for model in MODELS}}  # by scope
BALANCES = """
SELECT a.scope, a.settled_nano, coalesce((SELECT sum(h.nano) FROM budget_holds AS h
  WHERE (h.budget, h.scope, h.period) = (a.budget, a.scope, a.period)), 0) FROM budget_accounts AS a"""


def by_chance(received: Received) -> Iterator[Step]:
    """Billed as soon as it is received, one to ten tokens; the answer takes its time, streamed or not."""
    steps = iter(replies.ok("Well now.", tokens=Tokens(output=random.randint(1, 10)), pause=0.05)(received))
    yield next(steps)
    yield random.uniform(0.05, 0.25)
    yield from steps


class Account(NamedTuple):
    settled: int  # nano-USD
    held: int


def accounts(connection: sqlite3.Connection) -> dict[str, Account]:
    """By scope."""
    return {scope: Account(*row) for scope, *row in connection.execute(BALANCES)}


class Bills:
    """What the upstream's own log says, nano-USD by scope."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._counted = 0
        self._billed = Counter[str]()

    def now(self) -> Counter[str]:
        new = self._upstream.billed[self._counted :]
        self._counted += len(new)
        for bill in new:
            self._billed["all"] += bill.output * TOKEN
            self._billed[f"model {bill.model}"] += bill.output * TOKEN
        return self._billed


class Watch(threading.Thread):
    """Reads the file all the time, as another program would, and notes every moment that breaks the promise."""

    def __init__(self, path: Path, upstream: Upstream) -> None:
        super().__init__(name="watch", daemon=True)
        self.looks = 0
        self.broken: list[str] = []
        self._path = path
        self._bills = Bills(upstream)
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        with contextlib.closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=10)) as connection:
            while not self._ended.is_set():
                billed = self._bills.now()  # first: what was billed by then had been held before
                found = accounts(connection)
                self.looks += 1
                for scope, limit in LIMITS.items():
                    settled, held = found.get(scope, Account(0, 0))
                    if not billed[scope] <= settled + held <= limit:
                        self.broken.append(f"{scope}: billed {billed[scope]}, settled {settled}, held {held}")
                time.sleep(0.005)


class Crowd(threading.Thread):
    """Clients that ask again and again, each over one connection until it breaks, until there is no money left."""

    def __init__(self, port: int) -> None:
        super().__init__(name="crowd", daemon=True)
        self.port = port
        self.count = Counter[str]()
        self.strange: list[str] = []
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        async def everybody() -> None:
            await asyncio.gather(*(self._caller(number) for number in range(CLIENTS)))

        asyncio.run(everybody())

    async def _caller(self, number: int) -> None:
        client = Client(self.port)
        while not self._ended.is_set():
            # Clients use an id again and again; holds are kept by one of the gateway's own.
            got = await client.ask(Ask("the-same", MODELS[number % len(MODELS)], stream=random.random() < 0.5))
            if got.broken:
                self.count["refused connections" if "ConnectionRefused" in got.broken else "broken off"] += 1
                client.close()
                await asyncio.sleep(0.05)
            elif got.whole:
                self.count["served"] += 1
            elif got.status == 429 and b'"insufficient_quota"' in got.body:
                self.count["told that it is spent"] += 1
                break
            elif got.status == 429 and b'"rate_limit_exceeded"' in got.body:
                self.count["told to try again"] += 1
                await asyncio.sleep(0.05)
            else:
                self.strange.append(f"{got.status} {got.body[-300:]!r}")
        client.close()


def workers(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def connections(pid: int, port: int) -> int:
    """How many clients a worker has: established connections to `port` among its descriptors."""
    established = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *rest = line.split()
        if state == "01" and local.endswith(f":{port:04X}"):
            established.add(f"socket:[{rest[5]}]")
    found = 0
    with contextlib.suppress(FileNotFoundError, PermissionError):  # it has ended
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found += str(descriptor.readlink()) in established
    return found


class Life:
    """A gateway and its clients on one file, from the first call to the last dollar. Each kill adds to `bounds`."""

    def __init__(self, directory: Path, upstream: Upstream) -> None:
        self.upstream = upstream
        text = ROUTES.replace("@BASE@", upstream.base_url)
        text = text.replace("@COMPANY@", str(COMPANY)).replace("@EACH@", str(EACH))
        self.path = directory / "gateway.db"
        self.gateway = Gateway(directory, text, args=["--workers", str(WORKERS)])
        self.bounds = Counter[str]()

    def under_way(self) -> int:
        return sum(not request.done.is_set() for request in self.upstream.calls[-2 * CLIENTS :])

    def wait_mid_flight(self, crowd: Crowd) -> bool:
        """Waits until calls are under way and workers have clients; False when all clients have ended."""
        until("calls under way", lambda: self.under_way() >= CLIENTS // 4 or not crowd.is_alive(), 30 + TTL)
        return crowd.is_alive()

    def kill_one(self) -> None:
        """The worker with the most clients."""
        clients, pid = max((connections(pid, self.gateway.port), pid) for pid in workers(self.gateway.pid))
        os.kill(pid, 9)
        self._may_lose(clients, 1)

    def kill_all(self) -> None:
        """The parent first, so that it starts no other."""
        pids = workers(self.gateway.pid)
        self.gateway.kill()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it may have noticed
                os.kill(pid, 9)
        self._may_lose(CLIENTS, len(pids))
        until("the upstream to have heard the last of them", lambda: self.upstream.open_connections == 0)

    def restart(self) -> None:
        """On the same file."""
        self.gateway.start()
        self.gateway.wait_ready(60)

    def lost(self) -> int:
        """What death has cost the company so far, nano-USD: charged, or held and to be charged. Nobody may be alive,
        or nothing may be held: what is held for the living is not lost.
        """
        billed = Bills(self.upstream).now()
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            found = accounts(connection)
        for scope, limit in LIMITS.items():
            gone = sum(found[scope])
            assert billed[scope] <= gone <= limit
            assert gone - billed[scope] <= self.bounds[scope], scope
        return sum(found["all"]) - billed["all"]

    def nothing_held(self) -> bool:
        """The dead have been charged, and the living have given back what they had leased."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return bool(connection.execute("SELECT count(*) FROM budget_holds").fetchone() == (0,))

    def _may_lose(self, calls: int, processes: int) -> None:
        for scope, limit in LIMITS.items():
            mine = calls if scope == "all" else min(calls, CLIENTS // len(MODELS))
            self.bounds[scope] += mine * CEILING + processes * limit // FEW


class Figures(NamedTuple):
    ones: int = 0
    alls: int = 0
    lives: int = 0
    looks: int = 0
    billed: int = 0  # requests
    lost: int = 0  # nano-USD of the company's
    bound: int = 0
    answers: Counter[str] = Counter()  # noqa: RUF012 - a NamedTuple's default; never added to in place

    def plus(self, other: Figures) -> Figures:
        pairs: Iterator[tuple[Any, Any]] = zip(self, other, strict=True)
        return Figures(*(mine + theirs for mine, theirs in pairs))


def live(directory: Path, upstream: Upstream, kills: list[str]) -> Figures:
    """Takes kills from the list until it is empty or the money is spent."""
    life = Life(directory, upstream)
    done = Counter[str]()
    with life.gateway as gateway, Watch(life.path, upstream) as watch:
        with Crowd(gateway.port) as crowd:
            while kills and life.wait_mid_flight(crowd):
                time.sleep(random.uniform(0, 1))  # not a wait for anything: death comes at any time
                done[kind := kills.pop()] += 1
                if kind == "one":
                    life.kill_one()
                else:
                    life.kill_all()
                    lost = life.lost()
                    if kind == "all":
                        life.restart()
                assert watch.broken == []
        if kind != "last":
            until("nothing is held any more", life.nothing_held, 30 + TTL)
            lost = life.lost()
    assert watch.broken == []
    assert crowd.strange == []
    alls = done["all"] + done["last"]
    bound = life.bounds["all"]
    return Figures(done["one"], alls, 1, watch.looks, len(upstream.billed), lost, bound, crowd.count)


def kill(directory: Path, kills: list[str]) -> Figures:
    """`kills`, the first last: `one` worker, `all` and a start on the same file, or all for the `last` time."""
    random.seed(20261125)
    began = time.monotonic()
    total = Figures()
    while kills:
        folder = directory / str(total.lives)
        folder.mkdir()
        with Upstream(by_chance) as upstream:
            total = total.plus(live(folder, upstream, kills))
    usd = [nano / 1e9 for nano in (total.lost, total.bound)]
    counts = ", ".join(f"{count} {what}" for what, count in sorted(total.answers.items()))
    print(
        f"\nkills: {total.ones} of one worker, {total.alls} of all, over {total.lives} budgets in "
        f"{time.monotonic() - began:.0f} s; {total.billed} calls billed; {counts}; the file looked at {total.looks} "
        f"times; lost {usd[0]:.1f} USD where at most {usd[1]:.1f} may be, a ceiling being 1 USD"
    )
    assert total.answers["broken off"] > total.ones + total.alls  # they were mid-flight
    return total


def test_three_kills(tmp_path: Path) -> None:
    """Nobody lives to charge what the dead held; `tests/stores` has that."""
    assert kill(tmp_path, ["last", "one", "one"])[:2] == (2, 1)


@pytest.mark.full
def test_fifty_kills(tmp_path: Path) -> None:
    kills = ["all" if number % 3 == 0 else "one" for number in range(50)]
    assert kill(tmp_path, kills)[:2] == (33, 17)
