"""A wall clock that a test sets, for whole processes: libfaketime (Debian: faketime) shifts what they are told.

Only the time of day is shifted. Timers run on the monotonic clock, which is left alone, as it is when an administrator
or NTP sets a machine's clock.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest


class Clock:
    """Processes that were started with its `env` see a change at once."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("faketime") is None:
            assert not os.environ.get("CI"), "CI needs faketime"
            pytest.skip("no faketime (Debian: apt-get install faketime): it sets the clock of a gateway")
        asked = ["faketime", "-f", "+0s", "printenv", "LD_PRELOAD"]
        library = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        self._file = directory / "clock"
        self._ahead = 0.0
        self.ahead(0.0)
        self.env = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def ahead(self, seconds: float) -> None:
        """Sets it to so many seconds after the real time."""
        self._ahead = seconds
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+.0f}")
        new.replace(self._file)

    @property
    def now(self) -> float:
        """Unix seconds."""
        return time.time() + self._ahead

    def into_an_hour(self, minutes: float) -> None:
        """Sets it to a time before which the next hour does not begin for as long as a test may take."""
        self.ahead(self._ahead + minutes * 60 - self.now % 3600)

    def hours_later(self, hours: int) -> None:
        self.ahead(self._ahead + hours * 3600)
