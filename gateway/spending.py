"""Money under way: every attempt's ceiling is held in the budgets it touches before it is made (contract section 3).

`Spending` belongs to one event loop. Most reservations find what they need in a lease and cost a few comparisons; the
others queue up for the store, which one thread asks for many of them in one transaction. What has been spent is told to
the store every `FLUSH` seconds. Nothing that is told is lost when the store fails: it is told again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from gateway.core import purse as arithmetic
from gateway.core.budgets import Account, Action, Budget, Touch
from gateway.core.purse import Granted, Hold, Purse, Report, Short, Shortage, Update, Want
from gateway.core.scopes import MOST_CALLERS
from gateway.errors import StoreUnavailable
from gateway.stores.base import Counters, LostOwnerError

FLUSH = 0.1  # seconds until what was spent is told
LOOK = 0.5  # seconds until all accounts in use are looked at again, whoever spends meanwhile; its sign of life
MANY, LONGEST_LOOK = 1_000, 2.5  # accounts in use, from which on it is that much later, but never so many seconds
RETRY = 0.05  # seconds between two tries of a call that waits for others to give back
FORGET = 60.0  # seconds without use until an account is forgotten here
PRUNE = 3600.0  # seconds between two looks for what is old
MOST_ALIASES = 20_000  # users that are remembered to share an account; of others the store is asked again
MOST_FOUND = MOST_CALLERS  # sets of accounts that are remembered: of as many as their touches are
CLOSE = 5.0  # seconds that `close` waits for a store that cannot be written

T = TypeVar("T")

log = logging.getLogger("gateway")


class Crossing(NamedTuple):
    """A threshold that was passed; told once in a window, by one process."""

    budget: Budget
    account: Account
    percent: int
    action: Action
    settled: int  # nano-USD


class _Waiter(NamedTuple):
    touches: Sequence[Touch]
    purses: Sequence[Purse]
    nano: int
    until: float
    answer: asyncio.Future[Hold | Short | None]  # None: an account has another name now, to be asked by


class Spending:
    """One process's dealings with the budgets. `open_store` is called in the thread that uses what it returns."""

    def __init__(
        self,
        open_store: Callable[[], Counters],
        on_crossing: Callable[[Crossing], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._open_store = open_store
        self._on_crossing = on_crossing
        self._clock = clock
        self._owner = secrets.token_hex(8)
        self._store: Counters | None = None
        self._thread = ThreadPoolExecutor(1, "budgets")
        self._purses: dict[Account, Purse] = {}
        self._aliases: dict[Account, Account] = {}
        self._found: dict[int, tuple[Sequence[Touch], Sequence[Purse]]] = {}  # by identity
        self._queue: deque[_Waiter] = deque()
        self._looks: list[tuple[list[Purse], asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._anew = True  # the store has not heard of this process, or no longer
        self._look_at = 0.0  # when all accounts in use are to be looked at
        self._dirty = False
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        self._closing = False
        self._pruned_at = -PRUNE

    def settled(self, account: Account) -> int:
        """Nano-USD, as far as this process knows; 0 of an account that was not `asked` for."""
        purse = self._purses.get(self._aliases.get(account, account) if self._aliases else account)
        return 0 if purse is None else purse.settled

    def purses(self, touches: Sequence[Touch]) -> Sequence[Purse]:
        """To reserve from, or to look at. Remembered: calls of a key touch the very same while their windows last."""
        known = self._found.get(id(touches))
        if known is not None and known[0] is touches:
            return known[1]
        if len(self._found) >= MOST_FOUND:
            self._found.clear()
        found = list(map(self._purse, touches))
        self._found[id(touches)] = touches, found
        return found

    def asked(self, purses: Sequence[Purse]) -> asyncio.Future[None] | None:
        """What to wait for until the balances are known, at most `LOOK` seconds old; None where they are: mostly.

        It raises StoreUnavailable. Which purses it are may have changed then.
        """
        now, unknown = time.monotonic(), []
        for purse in purses:
            purse.used = now
            if not purse.known:
                unknown.append(purse)
        if not unknown:
            return None
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._looks.append((unknown, done))
        self._hurry()
        return done

    async def reserve(self, touches: Sequence[Touch], nano: int, *, seconds: float) -> Hold | Short:
        """Holds `nano` in all accounts or in none. Waits `seconds` where others' holds are in the way.

        Raises StoreUnavailable where the store has to be asked and cannot be.
        """
        purses = self.purses(touches)
        if arithmetic.take(purses, nano):
            return Hold(touches, nano, purses)
        loop = asyncio.get_running_loop()
        waiter = _Waiter(touches, purses, nano, loop.time() + seconds, loop.create_future())
        for purse in purses:
            purse.waiting += 1
            purse.ceiling = max(purse.ceiling, nano)  # while it waits, nobody overtakes it
        self._queue.append(waiter)
        self._hurry()
        try:
            answer = await waiter.answer
        except asyncio.CancelledError:
            if waiter.answer.done() and not waiter.answer.cancelled() and waiter.answer.exception() is None:
                held = waiter.answer.result()
                if isinstance(held, Hold):  # it came in the same moment
                    self.settle(held, 0)
            raise
        finally:
            for purse in purses:
                purse.waiting -= 1
        return answer if answer is not None else await self.reserve(touches, nano, seconds=seconds)

    def settle(self, hold: Hold, cost_nano: int) -> None:
        """Books what an attempt has cost, in full, once."""
        if not hold.open:
            return
        hold.open = False
        for purse in hold.purses:
            purse.reserved -= hold.nano
            if cost_nano:  # in full, also above what was held
                (self._kept(purse) if purse.forgotten else purse).spent += cost_nano
        self._dirty = True
        if self._queue:
            self._hurry()
        elif self._task is None:
            self._start()

    async def close(self) -> None:
        """Tells the store what is left to tell and gives the rest back; waits a while for a store that fails."""
        self._closing = True
        if self._task is not None:  # not cancelled: it may be telling the store something just now
            self._wake.set()
            await self._task
        try:
            async with asyncio.timeout(CLOSE):
                # At least once, with all that is free: also a process that was taken for dead has to say that it lives.
                while self._purses:
                    if await self._sync(ending=True) and not self._untold():
                        break
                    await asyncio.sleep(FLUSH)
                # What is still reserved is left to expire: nobody has said what those calls have cost.
                if not any(purse.reserved for purse in self._purses.values()):
                    await self._in_thread(self._leave)
        except TimeoutError:
            log.error("budgets: ended before the store could be told of %d nano-USD", self._untold())
        except StoreUnavailable as error:
            log.error("budgets: what is held could not be given back and will be charged: %s", error)
        self._thread.shutdown(wait=False)

    def _untold(self) -> int:
        return sum(purse.spent for purse in self._purses.values())

    # Accounts.

    def _purse(self, touch: Touch) -> Purse:
        account = self._aliases.get(touch.account, touch.account) if self._aliases else touch.account
        purse = self._purses.get(account)
        if purse is None:
            purse = self._purses[account] = Purse(account, touch.budget, touch.ends)
            purse.used = time.monotonic()
        elif purse.budget is not touch.budget:
            if purse.budget != touch.budget:  # a reload's new limit holds from now on
                purse.known = False
                self._found.clear()  # calls under the old limit, which are still in flight, must not have the last word
            purse.under(touch.budget)
        return purse

    def _kept(self, purse: Purse) -> Purse:
        """The purse of a forgotten one's account: what came after all is booked to it."""
        kept = self._purses.setdefault(purse.account, purse)
        kept.forgotten = False
        return kept

    # The conversation with the store: one task, which starts with the first need of it.

    def _hurry(self) -> None:
        self._wake.set()
        self._start()

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        pause = FLUSH
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()
            look = self._purses and asyncio.get_running_loop().time() >= self._look_at
            if self._queue or self._looks or self._dirty or look:
                pause = FLUSH if await self._sync() and not self._queue else RETRY

    async def _sync(self, *, ending: bool = False) -> bool:
        """One transaction. False where it failed; then nothing has changed."""
        loop = asyncio.get_running_loop()
        looks, self._looks = self._looks, []
        self._serve_locally()
        waiters = list(self._queue)
        everything = ending or self._anew
        due = everything or loop.time() >= self._look_at
        before = {purse: purse.held for purse in self._concerned(looks, everybody=due)}
        self._dirty = False
        now = time.monotonic()
        updates = {purse: purse.tell(purse.surplus(now, all_of_it=everything)) for purse in before}
        left: dict[Purse, int] = {}
        wants = [arithmetic.want(waiter.purses, waiter.nano, left) for waiter in waiters]
        try:
            report = await self._in_thread(lambda: self._ask(list(updates.values()), wants))
        except Exception as error:  # noqa: BLE001 - the boundary: callers are told, and nothing that was spent is lost
            for purse, update in updates.items():
                purse.untell(update, before[purse])
            self._dirty = True
            self._looks += looks
            self._failed(error)
            return False
        self._failing = self._anew = False
        if due:
            self._look_at = loop.time() + min(LOOK * max(1.0, len(updates) / MANY), LONGEST_LOOK)
        self._heard(report, updates, waiters)
        for _, done in looks:
            if not done.done():
                done.set_result(None)
        return True

    def _concerned(self, looks: Iterable[tuple[list[Purse], object]], *, everybody: bool) -> list[Purse]:
        """The accounts that the store is told of, or asked about."""
        now = time.monotonic()
        asked = {purse: None for purses, _ in looks for purse in purses if not purse.forgotten}
        if not everybody:
            for purse in self._purses.values():
                if purse.spent or (purse.held and purse.surplus(now)):
                    asked[purse] = None
            return list(asked)
        for purse in [purse for purse in self._purses.values() if purse.empty and now - purse.used > FORGET]:
            del self._purses[purse.account]
            purse.forgotten = True
            self._found.clear()
        return list(asked | {purse: None for purse in self._purses.values() if self._in_use(purse, now)})

    def _in_use(self, purse: Purse, now: float) -> bool:
        """Others need not be looked at again and again; whoever asks for one looks anew."""
        if purse.empty and now - purse.used > 2 * LOOK:
            purse.known = False
            return False
        return True

    def _serve_locally(self) -> None:
        """Gives the first in the queue what calls that ended have left free here."""
        for waiter in list(self._queue):
            if waiter.answer.done():
                self._queue.remove(waiter)
            elif all(purse.known and purse.free >= waiter.nano for purse in waiter.purses):
                self._queue.remove(waiter)
                self._give(waiter)
            else:
                break

    def _give(self, waiter: _Waiter) -> None:
        arithmetic.reserve(waiter.purses, waiter.nano)
        waiter.answer.set_result(Hold(waiter.touches, waiter.nano, waiter.purses))

    def _heard(self, report: Report, updates: dict[Purse, Update], waiters: Sequence[_Waiter]) -> None:
        self._remember(report.aliases)
        for purse, update in updates.items():
            purse.told(update, report.seen[update.account])
        for account, seen in report.seen.items():
            if account in self._purses:
                self._purses[account].saw(seen)
        for account, percent in report.known_crossed:
            if account in self._purses:
                self._purses[account].crossed |= {percent}
        for waiter, answer in zip(waiters, report.answers, strict=True):
            self._answer(waiter, answer)
        for account, percent in report.crossed:
            self._tell_crossing(account, percent)

    def _answer(self, waiter: _Waiter, answer: Granted | Shortage) -> None:
        if isinstance(answer, Granted):
            for purse, nano in zip(waiter.purses, answer.nano, strict=True):
                purse.held += nano
            if waiter.answer.done():  # cancelled meanwhile: what was granted is free
                self._queue.remove(waiter)
            elif all(purse.free >= waiter.nano for purse in waiter.purses):
                self._queue.remove(waiter)
                self._give(waiter)
            return  # otherwise an overrun has eaten it: it asks again
        if any(purse.account in self._aliases for purse in waiter.purses):
            self._queue.remove(waiter)
            if not waiter.answer.done():
                waiter.answer.set_result(None)
            return
        late = asyncio.get_running_loop().time() >= waiter.until
        if waiter.answer.done() or answer.spent or late:
            self._queue.remove(waiter)
            if not waiter.answer.done():
                at = [purse.account for purse in waiter.purses].index(answer.account)
                waiter.answer.set_result(Short(waiter.touches[at], answer.spent))

    def _remember(self, aliases: Mapping[Account, Account]) -> None:
        """A user may be any word of a client's: only so many are kept."""
        if aliases:
            self._found.clear()
        self._aliases |= aliases
        while len(self._aliases) > MOST_ALIASES:
            del self._aliases[next(iter(self._aliases))]

    def _tell_crossing(self, account: Account, percent: int) -> None:
        purse = self._purses.get(account)
        actions = {} if purse is None else dict(purse.budget.at)
        if purse is not None and percent in actions:  # a reload may have taken the threshold away meanwhile
            self._on_crossing(Crossing(purse.budget, account, percent, actions[percent], purse.settled))

    def _failed(self, error: Exception) -> None:
        if isinstance(error, LostOwnerError):  # it took us for dead: at once again, with all that there is
            self._anew = True
            self._wake.set()
            return
        if not self._failing:
            log.error("%s; what was spent is told again and again", error, exc_info=_if_defect(error))
        self._failing = True
        # Also those that came while the store was being asked: who is taken out of the queue has to be told.
        refused = [waiter.answer for waiter in self._queue] + [done for _, done in self._looks]
        self._queue.clear()
        self._looks = []
        for future in refused:
            if not future.done():
                future.set_exception(StoreUnavailable("the budgets cannot be read or written at the moment"))

    # In the thread.

    def _ask(self, updates: Sequence[Update], wants: Sequence[Want]) -> Report:
        if self._store is None:
            self._store = self._open_store()
        try:
            if time.monotonic() - self._pruned_at >= PRUNE:
                self._store.prune(self._clock())
                self._pruned_at = time.monotonic()
            return self._store.sync(self._owner, self._clock(), (updates, wants), anew=self._anew)
        except StoreUnavailable:
            self._store.close()  # a fresh one sees a disk that was mounted again
            self._store = None
            raise

    def _leave(self) -> None:
        if self._store is not None:
            self._store.leave(self._owner)
            self._store.close()
            self._store = None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _if_defect(error: Exception) -> Exception | None:
    """A store that fails is news, and not a reason for a traceback."""
    return None if isinstance(error, StoreUnavailable) else error
