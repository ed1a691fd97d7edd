"""SIGTERM and SIGINT ask for a drain, a second one for an end now; SIGHUP asks for a reload."""

from __future__ import annotations

import asyncio
import signal


class Signals:
    """Install once, in the running loop of the process that owns the terminal."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stop = asyncio.Event()
        self.now = asyncio.Event()
        self.hangup = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self.hangup.set)

    def _on_stop(self) -> None:
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
