"""The default ledger: one SQLite file in WAL mode, written in batches by one thread of each process."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_exponential,
)

from gateway.core.record import Record
from gateway.errors import StoreUnavailable
from gateway.stores import content
from gateway.stores.columns import ATTEMPTS, REQUESTS, SqlValue, insert_attempt, insert_request
from gateway.stores.schema import connect, transaction

log = logging.getLogger(__name__)

INSERT_REQUEST = insert_request()
INSERT_ATTEMPT = insert_attempt()
BAD_ROW = (
    ArithmeticError,
    TypeError,
    ValueError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
INT64 = 1 << 63


class SqliteLedger:
    """Implements `gateway.stores.base.Ledger`. Any number of processes may write the same file.

    **What can be lost.** `kill -9` of the process: what was put in the last `batch_seconds`, and what was put while the
    transaction under way then was being written (under 20 ms for a full batch on an idle disk); never part of a batch.
    A power cut: the transactions since the last checkpoint of the write-ahead log (1,000 pages, about 1,500 requests),
    because `synchronous = NORMAL` does not sync each commit; the file itself stays sound (sqlite.org/pragma.html).
    While the disk refuses writes, rows wait in memory, `capacity` of them at most and those of what is under way.

    **When the queue is full.** `reject`: `room` waits up to `room_seconds`, then raises StoreUnavailable; what was let
    in before is kept, and a request that was refused, and cost nothing, gets no row. `drop`: the row is left out and
    counted in `dropped`.

    A ledger belongs to one process and one event loop: make it after a fork, and call everything from that loop.
    """

    room_seconds = 2.0
    busy_seconds = 5.0  # that a batch waits for another process's batch before it counts as failed
    close_seconds = 10.0  # that `close` waits for a disk that refuses writes

    def __init__(
        self,
        path: str | Path,
        *,
        capacity: int = 10_000,
        batch_seconds: float = 0.1,
        batch_rows: int = 500,
        on_full: Literal["reject", "drop"] = "reject",
    ) -> None:
        """Opens the file, or makes it. `path`: a path, or a DSN like `sqlite:////var/lib/gateway/gateway.db`.

        Raises StoreUnavailable where that fails.
        """
        self.path = Path(str(path).removeprefix("sqlite:///"))
        self.failures = 0
        self.dropped = 0
        self.duplicates = 0  # requests that were put again under the same id, and ignored
        self._capacity = capacity
        self._batch_seconds = batch_seconds
        self._batch_rows = batch_rows
        self._drops = on_full == "drop"
        self._queue: deque[Record] = deque()
        self._put = 0  # written by the event loop only
        self._done = 0  # written by the writer only
        self._idle = False  # the writer waits for a first row
        self._wake = threading.Event()  # a row is there
        self._hurry = threading.Event()  # somebody waits: do not fill up the batch
        self._give_up = threading.Event()
        self._closing = False
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        self._lock = threading.Lock()  # guards _waiters
        try:
            self._connection: sqlite3.Connection | None = connect(self.path, busy_seconds=self.busy_seconds)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"cannot open the ledger {self.path}: {error}") from error
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        return self._put - self._done

    async def room(self) -> None:
        if self._drops or self._put - self._done < self._capacity:
            return
        try:
            async with asyncio.timeout(self.room_seconds):
                await self._until(lambda: self.depth < self._capacity)
        except TimeoutError:
            raise StoreUnavailable("the ledger cannot be written at the moment, and its queue is full") from None

    def put(self, record: Record) -> None:
        if self._put - self._done >= self._capacity:
            if self._drops:
                self.dropped += 1
                return
            if record.outcome == "rejected" and not record.attempts:
                return  # for want of room, mostly: while a disk is full, its clients come again and again
        self._queue.append(record)
        self._put += 1
        if self._idle:
            self._wake.set()

    async def flush(self) -> None:
        target = self._put
        await self._until(lambda: self._done >= target)

    async def close(self) -> None:
        """Waits `close_seconds` for a disk that refuses writes, then gives up on the rest and says how much it was."""
        self._closing = True
        self._wake.set()
        try:
            async with asyncio.timeout(self.close_seconds):
                await self.flush()
        except TimeoutError:
            self._give_up.set()
        await asyncio.to_thread(self._thread.join)

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Returns once `reached()` holds; it is asked again after each batch."""
        loop = asyncio.get_running_loop()
        while True:
            waiter = (loop, loop.create_future())
            with self._lock:
                self._waiters.add(waiter)  # before asking, or a batch could end in between unnoticed
            try:
                if reached():
                    return
                self._hurry.set()
                await waiter[1]
            finally:
                with self._lock:
                    self._waiters.discard(waiter)

    # The rest runs in the writer's thread.

    def _run(self) -> None:
        try:
            while not (self._closing and not self._queue):
                self._wait_for_rows()
                while self._queue:
                    self._write([self._queue.popleft() for _ in range(min(len(self._queue), self._batch_rows))])
        except RetryError:
            lost = self.depth
            self.dropped += lost
            self._finished(lost)
            log.error("the ledger was closed with %d requests unwritten: %s", lost, self.path)
        finally:
            if self._connection:
                self._connection.close()

    def _wait_for_rows(self) -> None:
        self._wake.clear()
        self._idle = True
        if not self._queue and not self._closing:
            self._wake.wait()
        self._idle = False
        if not self._closing:
            self._hurry.wait(self._batch_seconds)
        self._hurry.clear()

    def _write(self, batch: list[Record]) -> None:
        """Returns when the batch is on disk, however long that takes; raises RetryError when told to give up."""
        retrying = Retrying(
            retry=retry_if_exception_type((sqlite3.Error, OSError)),
            wait=wait_exponential(multiplier=0.05, max=2),
            sleep=sleep_using_event(self._give_up),
            after=self._failed,
            stop=stop_when_event_set(self._give_up),
        )
        rows = len(batch)
        retrying(self._try, batch)
        self._finished(rows)

    def _try(self, batch: list[Record]) -> None:
        if self._connection is None:
            self._connection = connect(self.path, busy_seconds=self.busy_seconds)
        try:
            self._write_somehow(self._connection, batch)
        except sqlite3.Error:
            self._connection.close()  # a fresh one sees a disk that was mounted again, or a file that was put back
            self._connection = None
            raise

    def _write_somehow(self, connection: sqlite3.Connection, batch: list[Record]) -> None:
        """One odd value (a lone surrogate, a number above 64 bits) must cost neither its own row nor the others."""
        for tidy in (list, storable):
            try:
                return self._report(write(connection, batch, tidy))
            except BAD_ROW:
                continue
        while batch:  # what is done leaves the batch, so that a retry goes on from there
            try:
                self._report(write(connection, batch[:1], storable))
            except BAD_ROW:
                self.dropped += 1
                log.exception("request %s cannot be kept in the ledger", batch[0].id)
            del batch[0]
        return None

    def _report(self, repeated: list[str]) -> None:
        for request_id in repeated:
            self.duplicates += 1
            log.error("request %s was put into the ledger twice; the second was ignored", request_id)

    def _failed(self, state: RetryCallState) -> None:
        self.failures += 1
        error = state.outcome.exception() if state.outcome else None
        log.error("cannot write the ledger %s (try %d): %s", self.path, state.attempt_number, error)

    def _finished(self, rows: int) -> None:
        self._done += rows
        with self._lock:
            waiters, self._waiters = self._waiters, set()
        for loop, future in waiters:
            try:
                loop.call_soon_threadsafe(_resolve, future)
            except RuntimeError:  # that loop is closed: nobody waits there any more
                continue


def write(
    connection: sqlite3.Connection,
    batch: Sequence[Record],
    tidy: Callable[[Iterable[Any]], list[SqlValue]] = list,
) -> list[str]:
    """Writes requests and attempts in one transaction; returns the ids that were there already: these it ignores."""
    with transaction(connection):
        known = _known(connection, batch)
        fresh: list[Record] = []
        repeated: list[str] = []
        for record in batch:
            if record.id in known:
                repeated.append(record.id)
            else:
                known.add(record.id)
                fresh.append(record)
        connection.executemany(INSERT_REQUEST, [tidy(REQUESTS.row(record)) for record in fresh])
        connection.executemany(
            INSERT_ATTEMPT,
            [
                tidy([record.id, number, *ATTEMPTS.row(attempt)])
                for record in fresh
                for number, attempt in enumerate(record.attempts)
            ],
        )
        said = [tidy(content.row(record)) for record in fresh if record.content is not None]
        if said:
            connection.executemany(content.INSERT, said)
    return repeated


def _known(connection: sqlite3.Connection, batch: Sequence[Record]) -> set[str]:
    marks = ",".join("?" * len(batch))
    rows = connection.execute(f"SELECT id FROM requests WHERE id IN ({marks})", [record.id for record in batch])  # noqa: S608 - marks
    return {row[0] for row in rows}


def storable(values: Iterable[Any]) -> list[SqlValue]:
    """The nearest values that SQLite can hold."""
    tidied: list[SqlValue] = []
    for value in values:
        if isinstance(value, str):
            tidied.append(value.encode("utf-8", "replace").decode())
        elif isinstance(value, int):
            tidied.append(max(-INT64, min(INT64 - 1, value)))
        else:
            tidied.append(value)
    return tidied


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
