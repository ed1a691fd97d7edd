"""Content that has had its time is deleted, also while nobody asks anything. One process of a machine does it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from gateway.config.types import Config
from gateway.stores.content import prune

EVERY = 30.0  # seconds

log = logging.getLogger("gateway")


async def prune_content(config: Callable[[], Config]) -> None:
    """For ever. `config`: the one in force."""
    while True:
        try:
            await asyncio.to_thread(prune, Path(config().ledger.removeprefix("sqlite:///")), time.time())
        except sqlite3.Error as error:
            log.warning("content that has had its time could not be deleted yet: %s", error)
        await asyncio.sleep(EVERY)
