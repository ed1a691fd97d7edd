"""What a store must do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.core.caching import Kept
from gateway.core.purse import Report, Update, Want
from gateway.core.record import Record


class Ledger(Protocol):
    """One row a request, one row an attempt. Rows are written in batches off the caller's thread."""

    @property
    def depth(self) -> int:
        """Requests waiting to be written."""

    @property
    def failures(self) -> int:
        """Tries to write a batch that failed so far."""

    @property
    def dropped(self) -> int:
        """Requests that were not written and never will be: the queue was full and `on_full` is `drop`."""

    async def room(self) -> None:
        """Returns when a row may be put: at once unless the queue is full. Raises StoreUnavailable after a while."""

    def put(self, record: Record) -> None:
        """Queues a finished call. Never blocks and never raises; call `room` before the call is admitted."""

    async def flush(self) -> None:
        """Returns when everything put so far is on disk."""

    async def close(self) -> None:
        """Flushes and closes."""


class LostOwnerError(Exception):
    """The store does not know this process, or no longer: it has to be told everything, with `anew`."""


class Counters(Protocol):
    """The budgets' accounts, shared by all processes. Used from one thread. Raises StoreUnavailable."""

    def sync(self, owner: str, now: float, told: tuple[Sequence[Update], Sequence[Want]], *, anew: bool) -> Report:
        """Settles and re-holds what `told` says, then grants what it wants, all at once or nothing of it.

        `owner`: this process; `now`: unix seconds; `anew`: the updates are all that this process has. Raises
        LostOwnerError where that is needed and was not said.
        """

    def leave(self, owner: str) -> None:
        """Gives back all that a process holds, which has settled everything before."""

    def prune(self, now: float) -> None:
        """Forgets windows that ended long ago."""

    def close(self) -> None: ...


class AnswerCache(Protocol):
    """Answers that may be given again. Everything raises StoreUnavailable."""

    def get(self, key: bytes, now: float) -> Kept | None:
        """`now`: unix seconds."""

    def put(self, key: bytes, kept: Kept, now: float, ttl: float) -> None:
        """`ttl`: seconds."""

    def close(self) -> None: ...
