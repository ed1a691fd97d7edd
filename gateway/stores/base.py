"""What a store must do."""

from __future__ import annotations

from typing import Protocol

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
