"""One structured line for each request and each reload, as text for people or as JSON. Never content; keys by name.

Lines are formatted and written by a thread, from a bounded queue: a full pipe or a slow disk behind stderr never holds
up a request. What finds no place is left out, counted, and said in the next line that does.

Strings that a client controls are cut, and everything that does not print (line ends, escape codes, characters that
change the direction of text) is escaped, so that nobody can write lines of his own into the log.
"""

from __future__ import annotations

import asyncio
import datetime
import io
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import BinaryIO, Literal

from gateway.core.pricing import NANO_PER_USD, dollars
from gateway.core.record import AttemptRecord, Record
from gateway.telemetry.events import ConfigReloaded, Event, RequestFinished
from gateway.wire import CODEC

Format = Literal["text", "json"]
Fields = Mapping[str, object]

LONGEST = 200  # characters of any one string
MOST_TAGS = 20
PLAIN = re.compile(r"[\w./:@*+,-]+", re.ASCII)
LEVELS = {"ok": "info", "client_error": "info", "cancelled": "info", "rejected": "info", "upstream_error": "warning"}


class Log:
    """Consumes events, and through `handler` the log records of everything else, into one stream."""

    flush_seconds = 0.1
    close_seconds = 2.0  # that `close` waits for a reader that does not read

    def __init__(self, stream: BinaryIO, format: Format, *, capacity: int = 10_000) -> None:
        """`stream`: unbuffered or not, it is flushed after each batch. `capacity`: lines that may wait."""
        self.dropped = 0
        self._stream = stream
        self._render = render_json if format == "json" else render_text
        self._capacity = capacity
        self._queue: deque[tuple[float, RequestFinished | ConfigReloaded | logging.LogRecord | int]] = deque()
        self._said = 0  # of `dropped`
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def observe(self, event: Event) -> None:
        """Never blocks and never raises."""
        if isinstance(event, RequestFinished):
            self._put(event.record.started + event.record.duration, event)
        elif isinstance(event, ConfigReloaded):
            self._put(time.time(), event)

    def handler(self) -> logging.Handler:
        """For `logging`: what the program itself reports goes the same way, in the same format."""
        return _Handler(self)

    async def close(self) -> None:
        """Writes what waits, for `close_seconds` at most."""
        self._closing.set()
        self._wake.set()
        await asyncio.to_thread(self._thread.join, self.close_seconds)

    def _put(self, at: float, entry: RequestFinished | ConfigReloaded | logging.LogRecord) -> None:
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
        lines = [self._render(_fields(*self._queue.popleft())) for _ in range(entries)]
        missing = self.dropped - self._said
        if missing:
            self._said += missing
            lines.append(self._render(_program(time.time(), "warning", f"{missing} log lines were left out")))
        try:
            self._stream.write(b"".join(lines))
            self._stream.flush()
        except (OSError, ValueError, io.UnsupportedOperation):  # nobody reads any more, or it was closed
            self.dropped += entries


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log._put(record.created, record)


def _fields(at: float, entry: object) -> Fields:
    match entry:
        case RequestFinished(record):
            return request_fields(at, record)
        case ConfigReloaded(result, hash):
            level = "info" if result == "ok" else "error"
            return {"time": stamp(at), "level": level, "event": "reload", "result": result, "config": hash}
        case logging.LogRecord():
            return _program(at, entry.levelname.lower(), _message(entry), entry.name)
    raise TypeError(entry)


def _program(at: float, level: str, message: str, logger: str = "gateway.log") -> Fields:
    return {"time": stamp(at), "level": level, "event": "message", "logger": logger, "message": clean(message, 4_000)}


def _message(record: logging.LogRecord) -> str:
    """With the traceback where there is one: a line that says only that something went wrong helps nobody."""
    try:
        message = record.getMessage()
    except (TypeError, ValueError) as error:  # arguments that do not fit the message: a mistake at the caller
        message = f"{record.msg} ({error})"
    return f"{message}\n{logging.Formatter().formatException(record.exc_info)}" if record.exc_info else message


def request_fields(at: float, r: Record) -> Fields:
    """What a JSON line says of a request; the values are safe to print. Left out: what is empty."""
    usage = r.usage
    fields: dict[str, object] = {
        "time": stamp(at),
        "level": LEVELS.get(r.outcome, "info"),
        "event": "request",
        "id": r.id,
        "client_request_id": clean(r.client_request_id),
        "status": r.status,
        "outcome": r.outcome,
        "rejection": r.rejection,
        "endpoint": r.endpoint,
        "requested_model": clean(r.requested_model),
        "route": clean(r.route),
        "task": clean(r.task),
        "model": clean(r.model),
        "provider": clean(r.provider),
        "fallback_reason": r.fallback_reason,
        "stream": r.stream,
        "key": clean(r.key),
        "team": clean(r.team),
        "user": clean(r.user),
        "tags": [clean(tag) for tag in r.tags[:MOST_TAGS]],
        "input_tokens": usage.total_input,
        "cached_input_tokens": usage.cached_input,
        "output_tokens": usage.total_output,
        "reasoning_tokens": usage.reasoning,
        "usage_estimated": usage.estimated,
        "cost_usd": r.cost_nano / NANO_PER_USD,
        "unpriced": r.unpriced,
        "duration_seconds": round(r.duration, 6),
        "first_token_seconds": None if r.first_token is None else round(r.first_token, 6),
        "overhead_seconds": round(r.overhead, 6),
        "lines_dropped": r.lines_dropped,
        "config": r.config_hash,
        "attempts": [_attempt_fields(attempt) for attempt in r.attempts],
    }
    if r.baseline_model:
        fields |= {"baseline_model": r.baseline_model, "baseline_usd": r.baseline_nano / NANO_PER_USD}
    return {name: value for name, value in fields.items() if value not in ("", None, [], False)}


def _attempt_fields(a: AttemptRecord) -> Fields:
    fields: dict[str, object] = {
        "model": clean(a.model),
        "provider": clean(a.provider),
        "reason": a.reason,
        "result": a.result,
        "status": a.status or None,
        "duration_seconds": round(a.duration, 6),
        "cost_usd": a.cost_nano / NANO_PER_USD,
        "upstream_request_id": clean(a.upstream_request_id),
        "detail": clean(a.detail),
    }
    return {name: value for name, value in fields.items() if value not in ("", None)}


def render_json(fields: Fields) -> bytes:
    return CODEC.dumps(fields) + b"\n"


def render_text(fields: Fields) -> bytes:
    """Columns for what every line has, then `name=value` for what is worth a word; a value with spaces is quoted."""
    head = f"{fields['time']} {str(fields['level']).upper():<7} "
    match fields["event"]:
        case "request":
            body = _request_text(fields)
        case "reload":
            body = f"reload  {fields['result']}  config={fields['config']}"
        case _:
            body = f"{fields['logger']}: {fields['message']}"
    return f"{head}{body}\n".encode("utf-8", "replace")


def _request_text(f: Fields) -> str:
    attempts = f.get("attempts", [])
    assert isinstance(attempts, list)  # noqa: S101 - for the type checker: request_fields made it
    cost = dollars(_nano(f["cost_usd"]))
    words = [
        f"{f['status']} {f['outcome']!s:<14}",
        f"{_word(f.get('route', '-')):<12} {_word(f.get('task', '-')):<10} {_word(f.get('model', '-')):<18}",
        f"{_seconds(f['duration_seconds']):>7} {f['input_tokens']!s:>6} in {f['output_tokens']!s:>6} out  ${cost:<12}",
    ]
    if "first_token_seconds" in f:
        words.append(f"ttft={_seconds(f['first_token_seconds'])}")
    if "baseline_usd" in f:
        words.append(f"baseline=${dollars(_nano(f['baseline_usd']))}")
    if len(attempts) > 1:
        words.append("tried=" + _word(",".join(f"{a['model']}:{a['result']}" for a in attempts)))
    named = (
        "rejection",
        "fallback_reason",
        "requested_model",
        "key",
        "team",
        "user",
        "unpriced",
        "id",
        "client_request_id",
    )
    words += [f"{name}={_word(f[name])}" for name in named if name in f]
    if "tags" in f:
        tags = f["tags"]
        words.append("tags=" + _word(",".join(tags) if isinstance(tags, list) else tags))
    return " ".join(words)


def _nano(usd: object) -> int:
    return round(float(str(usd)) * NANO_PER_USD)


def _seconds(value: object) -> str:
    """250us, 12ms, 1.25s"""
    seconds = float(str(value))
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f}us"
    return f"{seconds * 1e3:.0f}ms" if seconds < 1 else f"{seconds:.2f}s"


def _word(value: object) -> str:
    """As it is where it is one plain word; else in quotes, so that `a=b` inside a value cannot pass for a field."""
    text = str(value)
    return text if PLAIN.fullmatch(text) else '"' + text.replace('"', '\\"') + '"'


def clean(text: str, longest: int = LONGEST) -> str:
    """Cut to `longest` characters, with everything that does not print, and the backslash, escaped."""
    if len(text) > longest:
        text = text[:longest] + "..."
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(c if c.isprintable() and c != "\\" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if character in "\\\n\r\t":
        return {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}[character]
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def stamp(unix: float) -> str:
    """RFC 3339, UTC, milliseconds."""
    return datetime.datetime.fromtimestamp(unix, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
