"""Stores: what outlives a request, and how it is kept.

Vocabulary:

- **Ledger**: one row for every finished request and one for every attempt; what bills and reports are made of. Never
  holds prompts or answers (`base.py`).
- **DSN**: where a store is, as routes.yaml names it: `sqlite:////var/lib/gateway/gateway.db` (four slashes: the path is
  absolute). Its scheme picks the implementation.
- **Queue**: rows wait in memory to be written in **batches**, each one transaction. `depth` is how many wait.
- **on_full**: what happens when the queue is full: `reject` new requests, or `drop` rows and count them.
- **Schema version**: PRAGMA user_version; older files are migrated forward when they are opened (`schema.py`).

To add a store: implement the Protocol in `base.py` in a file of its own and register its DSN scheme here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from gateway.errors import StoreUnavailable
from gateway.stores.base import Ledger
from gateway.stores.sqlite import SqliteLedger

OnFull = Literal["reject", "drop"]


def _sqlite(dsn: str, on_full: OnFull) -> Ledger:
    return SqliteLedger(dsn, on_full=on_full)


LEDGERS: Mapping[str, Callable[[str, OnFull], Ledger]] = {"sqlite": _sqlite}


def open_ledger(dsn: str, on_full: str) -> Ledger:
    """Raises StoreUnavailable where the store cannot be opened, or nobody knows its scheme."""
    scheme = dsn.partition(":")[0]
    if scheme not in LEDGERS:
        raise StoreUnavailable(f"no ledger is called {scheme!r}; there are: {', '.join(LEDGERS)}")
    return LEDGERS[scheme](dsn, "drop" if on_full == "drop" else "reject")
