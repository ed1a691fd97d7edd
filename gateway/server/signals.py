"""SIGTERM and SIGINT ask for a drain, a second one for an end now; SIGHUP asks for a reload.

A terminal sends SIGINT and SIGHUP to all processes of a gateway. Its workers pass over them: their parent decides.
"""

from __future__ import annotations

import asyncio
import signal


class Signals:
    """Install once, in the running loop of the process. `worker`: of one that follows its parent."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, worker: bool = False) -> None:
        self.stop = asyncio.Event()
        self.now = asyncio.Event()
        self.hangup = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, self.ask)
        loop.add_signal_handler(signal.SIGINT, _pass if worker else self.ask)
        loop.add_signal_handler(signal.SIGHUP, _pass if worker else self.hangup.set)

    def ask(self) -> None:
        """What SIGTERM does."""
        if self.stop.is_set():
            self.now.set()
        self.stop.set()

    async def pause(self, seconds: float) -> None:
        """Sleeps, unless an end now is asked for."""
        try:
            async with asyncio.timeout(seconds):
                await self.now.wait()
        except TimeoutError:
            pass


def _pass() -> None:
    """A signal that is somebody else's."""
