"""DSN scheme -> ledger. Apart from `base`, so that who knows only the seam does not load the implementations."""

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
