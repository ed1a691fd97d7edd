"""How a process that serves calls comes to its end (contract section 1; decision 0008).

First the listener goes on as ever, but its answers say `connection: close`, so that clients connect anew, and elsewhere
as soon as the load balancer has seen `/readyz`. Then it closes, answers under way finish, and what is left is ended.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.runtime import Gateway
from gateway.server.listener import Listener
from gateway.server.signals import Signals

DRAINING = "draining: serving on for %g s, then up to %g s for answers under way"
FLUSH = 1.0  # seconds for the ledger after a second SIGTERM

log = logging.getLogger("gateway")


async def drain(front: Listener, serving: asyncio.Task[None], signals: Signals, delay: float) -> None:
    """Call it at the first SIGTERM; returns when the last answer has ended. A second SIGTERM cuts each step short."""
    front.announce()
    await signals.pause(delay)
    front.should_exit = True
    await _either(serving, signals)
    front.force_exit = signals.now.is_set()
    await serving


async def close(gateway: Gateway, signals: Signals) -> None:
    """Writes the ledger out; after a second SIGTERM for at most `FLUSH` seconds."""
    closing = asyncio.create_task(gateway.close())
    await _either(closing, signals)
    await asyncio.wait([closing], timeout=None if closing.done() else FLUSH)
    if not closing.done():
        log.error("ended at once: %d requests did not get into the ledger", gateway.ledger.depth)
        closing.cancel()
    await asyncio.wait([closing])
    if not closing.cancelled():
        closing.result()


async def _either(task: asyncio.Task[None], signals: Signals) -> None:
    """Returns when the task is done or an end now is asked for."""
    now = asyncio.create_task(signals.now.wait())
    await asyncio.wait([task, now], return_when=asyncio.FIRST_COMPLETED)
    now.cancel()
