"""Stores: what outlives a request, and how it is kept.

Vocabulary:

- **Ledger**: one row for every finished request and one for every attempt; what bills and reports are made of. Never
  holds prompts or answers (`base.py`).
- **DSN**: where a store is, as routes.yaml names it: `sqlite:////var/lib/gateway/gateway.db` (four slashes: the path is
  absolute). Its scheme picks the implementation.
- **Queue**: rows wait in memory to be written in **batches**, each one transaction. `depth` is how many wait.
- **on_full**: what happens when the queue is full: `reject` new requests, or `drop` rows and count them.
- **Schema version**: PRAGMA user_version; older files are migrated forward when they are opened (`schema.py`).

To add a store: implement the Protocol in `base.py` in a file of its own and register its DSN scheme in `LEDGERS`
(`registry.py`).
"""

from gateway.stores.registry import LEDGERS, open_ledger

__all__ = ["LEDGERS", "open_ledger"]
