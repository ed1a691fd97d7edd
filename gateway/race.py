"""Attempts of one call, side by side: the first to have something for the client wins, and only it may speak."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Racer(Protocol):
    reason: str  # why the attempt was made


class Race:
    def __init__(self) -> None:
        self.decided = asyncio.Event()
        self.first_over = asyncio.Event()  # the first attempt has ended
        self.winner: Racer | None = None

    def claim(self, racer: Racer) -> None:
        """Raises CancelledError where another attempt has won."""
        if self.winner is None:
            self.winner = racer
            self.decided.set()
        elif self.winner is not racer:
            raise asyncio.CancelledError
