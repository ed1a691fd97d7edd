"""One structured line for each request, reload and change of a breaker, as text or JSON. Never content; keys by name.

Lines are formatted (`lines.py`) and written by a thread, from a bounded queue: a full pipe or a slow disk behind stderr
never holds up a request. What finds no place is left out, counted, and said in the next line that does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from typing import BinaryIO, Literal

from gateway.telemetry.events import BreakerChanged, BudgetCrossed, ConfigReloaded, Event, RequestFinished
from gateway.telemetry.lines import JsonLines, TextLines

Format = Literal["text", "json"]
Entry = RequestFinished | ConfigReloaded | BreakerChanged | BudgetCrossed | logging.LogRecord


class Log:
    """Consumes events, and through `handler` the log records of everything else, into one stream."""

    flush_seconds = 0.1
    close_seconds = 2.0  # that `close` waits for a reader that does not read

    def __init__(self, stream: BinaryIO, format: Format, *, capacity: int = 10_000) -> None:
        """`stream`: unbuffered or not, it is flushed after each batch. `capacity`: lines that may wait."""
        self.dropped = 0
        self._stream = stream
        self._lines: JsonLines | TextLines = JsonLines() if format == "json" else TextLines()
        self._capacity = capacity
        self._queue: deque[tuple[float, Entry]] = deque()
        self._said = 0  # of `dropped`
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def observe(self, event: Event) -> None:
        """Never blocks and never raises."""
        if isinstance(event, RequestFinished):
            self._put(event.record.started + event.record.duration, event)
        elif isinstance(event, ConfigReloaded | BreakerChanged | BudgetCrossed):
            self._put(time.time(), event)

    def handler(self) -> logging.Handler:
        """For `logging`: what the program itself reports goes the same way, in the same format."""
        return _Handler(self)

    async def close(self) -> None:
        """Writes what waits, for `close_seconds` at most."""
        self._closing.set()
        self._wake.set()
        await asyncio.to_thread(self._thread.join, self.close_seconds)

    def _put(self, at: float, entry: Entry) -> None:
        if len(self._queue) >= self._capacity:
            self.dropped += 1
            return
        self._queue.append((at, entry))
        if not self._wake.is_set():
            self._wake.set()

    def _run(self) -> None:
        """The writer's thread."""
        while not self._closing.is_set() or self._queue:
            self._wake.wait()
            self._closing.wait(self.flush_seconds)
            self._wake.clear()
            self._write(len(self._queue))

    def _write(self, entries: int) -> None:
        lines = [self._line(*self._queue.popleft()) for _ in range(entries)]
        missing = self.dropped - self._said
        if missing:
            self._said += missing
            lines.append(
                self._lines.message(time.time(), "warning", "gateway.log", f"{missing} log lines were left out")
            )
        try:
            left = memoryview("".join(lines).encode())
            while left:  # an unbuffered stream (python -u) may take a part only
                left = left[self._stream.write(left) :]
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads any more, or it was closed
            self.dropped += entries

    def _line(self, at: float, entry: Entry) -> str:
        match entry:
            case RequestFinished(record):
                return self._lines.request(at, record)
            case ConfigReloaded():
                return self._lines.reload(at, entry)
            case BreakerChanged():
                return self._lines.breaker(at, entry)
            case BudgetCrossed():
                return self._lines.crossed(at, entry)
            case logging.LogRecord():
                return self._lines.message(at, entry.levelname.lower(), entry.name, _message(entry))


def _message(record: logging.LogRecord) -> str:
    """With the traceback where there is one: a line that says only that something went wrong helps nobody."""
    try:
        message = record.getMessage()
    except (TypeError, ValueError) as error:  # arguments that do not fit the message: a mistake at the caller
        message = f"{record.msg} ({error})"
    return f"{message}\n{logging.Formatter().formatException(record.exc_info)}" if record.exc_info else message


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log._put(record.created, record)
