"""How a log line looks, as text for people and as JSON.

Strings that a client controls are cut, and everything that does not print (line ends, escape codes, characters that
change the direction of text) is escaped, so that nobody can write lines of his own into the log.
"""

from __future__ import annotations

import datetime
import re

from gateway.core.pricing import NANO_PER_USD, dollars
from gateway.core.record import AttemptRecord, Record
from gateway.telemetry.events import BreakerChanged, BudgetCrossed, ConfigReloaded
from gateway.wire import CODEC

LONGEST = 200  # characters of any one string of a request
LONGEST_MESSAGE = 4_000
MOST_TAGS = 20
INDENT = "\n    "
PLAIN = re.compile(r"[\w./:@*+,-]+", re.ASCII)
LEVELS = {"upstream_error": "warning"}  # by outcome; all others are the normal course of things


class JsonLines:
    """One object a line. Empty strings, lists and flags that are off are left out."""

    def request(self, at: float, r: Record) -> str:
        usage = r.usage
        fields: dict[str, object] = {
            "time": stamp(at),
            "level": LEVELS.get(r.outcome, "info"),
            "event": "request",
            "id": r.id,
            "status": r.status,
            "outcome": r.outcome,
            "endpoint": clean(r.endpoint),
            "stream": r.stream,
            "input_tokens": usage.total_input,
            "cached_input_tokens": usage.cached_input,
            "output_tokens": usage.total_output,
            "reasoning_tokens": usage.reasoning,
            "cost_usd": r.cost_nano / NANO_PER_USD,
            "duration_seconds": round(r.duration, 6),
            "overhead_seconds": round(r.overhead, 6),
            "config": r.config_hash,
            "attempts": [_attempt(attempt) for attempt in r.attempts],
        }
        fields.update((name, clean(value)) for name, value in (*_placed(r), *_named(r)) if value)
        if r.tags:
            fields["tags"] = [clean(tag) for tag in r.tags[:MOST_TAGS]]
        if r.first_token is not None:
            fields["first_token_seconds"] = round(r.first_token, 6)
        if r.baseline_model:
            fields["baseline_model"] = clean(r.baseline_model)
            fields["baseline_usd"] = r.baseline_nano / NANO_PER_USD
        if usage.estimated:
            fields["usage_estimated"] = True
        if r.unpriced:
            fields["unpriced"] = True
        if r.lines_dropped:
            fields["lines_dropped"] = r.lines_dropped
        return _json(fields)

    def reload(self, at: float, reloaded: ConfigReloaded) -> str:
        result, config, problems = reloaded
        said = {"problems": clean(problems, LONGEST_MESSAGE)} if problems else {}
        level = _reload_level(reloaded)
        return _json({"time": stamp(at), "level": level, "event": "reload", "result": result, "config": config, **said})

    def breaker(self, at: float, change: BreakerChanged) -> str:
        fields = {"time": stamp(at), "level": _breaker_level(change), "event": "breaker", **change._asdict()}
        return _json({**fields, "reason": clean(change.reason)})

    def crossed(self, at: float, crossed: BudgetCrossed) -> str:
        fields = {
            "time": stamp(at),
            "level": "warning",
            "event": "budget_threshold",
            "budget": clean(crossed.budget),
            "scope": clean(crossed.scope),
            "window": crossed.window,
            "percent": crossed.percent,
            "action": crossed.action,
            "settled_usd": crossed.settled_nano / NANO_PER_USD,
            "limit_usd": crossed.limit_nano / NANO_PER_USD,
        }
        return _json(fields)

    def message(self, at: float, level: str, logger: str, message: str) -> str:
        text = clean(message, LONGEST_MESSAGE)
        return _json({"time": stamp(at), "level": level, "event": "message", "logger": logger, "message": text})


class TextLines:
    """Columns for what every line has, then `name=value` for what is worth a word."""

    def request(self, at: float, r: Record) -> str:
        usage = r.usage
        words = [
            f"{_head(at, LEVELS.get(r.outcome, 'info'))}{r.status} {r.outcome:<14} "
            f"{_column(r.route, 12)} {_column(r.task, 10)} {_column(r.model, 18)} {_seconds(r.duration):>7} "
            f"{usage.total_input:>6} in {usage.total_output:>6} out  ${dollars(r.cost_nano):<12}"
        ]
        if r.first_token is not None:
            words.append(f"ttft={_seconds(r.first_token)}")
        if r.baseline_model:
            words.append(f"baseline=${dollars(r.baseline_nano)}")
        if len(r.attempts) > 1:
            words.append(f"tried={_word(','.join(f'{a.model}:{a.result}' for a in r.attempts))}")
        if r.unpriced:
            words.append("unpriced")
        words.append(f"id={r.id}")
        words += [f"{name}={_word(value)}" for name, value in _named(r) if value]
        if r.tags:
            words.append(f"tags={_word(','.join(r.tags[:MOST_TAGS]))}")
        return f"{' '.join(words)}\n"

    def reload(self, at: float, reloaded: ConfigReloaded) -> str:
        result, config, problems = reloaded
        stays = " stays in force" if problems else ""
        return f"{_head(at, _reload_level(reloaded))}reload {result} config={config}{stays}{_below(problems)}\n"

    def breaker(self, at: float, change: BreakerChanged) -> str:
        model, endpoint, state, reason = change
        where = f"model={_word(model)} endpoint={_word(endpoint)}"
        return f"{_head(at, _breaker_level(change))}breaker {state} {where} reason={_word(reason)}\n"

    def crossed(self, at: float, crossed: BudgetCrossed) -> str:
        spent = f"${dollars(crossed.settled_nano)} of ${dollars(crossed.limit_nano)}"
        where = f"budget={_word(crossed.budget)} scope={_word(crossed.scope)} window={_word(crossed.window)}"
        return f"{_head(at, 'warning')}budget {crossed.percent}% spent: {crossed.action} {where} {spent}\n"

    def message(self, at: float, level: str, logger: str, message: str) -> str:
        first, _, rest = message[:LONGEST_MESSAGE].partition("\n")
        return f"{_head(at, level)}{logger}: {clean(first)}{_below(rest)}\n"


def _below(lines: str) -> str:
    """Further lines of an entry are indented: none can pass for an entry of its own."""
    return "".join(INDENT + clean(line) for line in lines[:LONGEST_MESSAGE].split("\n")) if lines else ""


def _reload_level(reloaded: ConfigReloaded) -> str:
    return "info" if reloaded.result == "ok" else "error"


def _breaker_level(change: BreakerChanged) -> str:
    return "warning" if change.state == "open" else "info"


def _placed(r: Record) -> tuple[tuple[str, str], ...]:
    """The strings that have a column of their own in a text line."""
    return (("route", r.route), ("task", r.task), ("model", r.model))


def _named(r: Record) -> tuple[tuple[str, str], ...]:
    """The others, under their names."""
    return (
        ("rejection", r.rejection),
        ("fallback_reason", r.fallback_reason),
        ("cache", r.cache),
        ("requested_model", r.requested_model),
        ("provider", r.provider),
        ("key", r.key),
        ("team", r.team),
        ("user", r.user),
        ("client_request_id", r.client_request_id),
        ("trace_id", r.trace_id),
    )


def _attempt(a: AttemptRecord) -> dict[str, object]:
    fields: dict[str, object] = {
        "model": clean(a.model),
        "provider": clean(a.provider),
        "reason": a.reason,
        "result": a.result,
        "duration_seconds": round(a.duration, 6),
        "cost_usd": a.cost_nano / NANO_PER_USD,
    }
    if a.status:
        fields["status"] = a.status
    if a.upstream_request_id:
        fields["upstream_request_id"] = clean(a.upstream_request_id)
    if a.detail:
        fields["detail"] = clean(a.detail)
    return fields


def _json(fields: dict[str, object]) -> str:
    return CODEC.dumps(fields).decode() + "\n"


def _head(at: float, level: str) -> str:
    return f"{stamp(at)} {level.upper():<7} "


def _column(text: str, width: int) -> str:
    return f"{_word(text) if text else '-':<{width}}"


def _seconds(seconds: float) -> str:
    """250us, 12ms, 1.25s"""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f}us"
    return f"{seconds * 1e3:.0f}ms" if seconds < 1 else f"{seconds:.2f}s"


def _word(text: str) -> str:
    """As it is where it is one plain word; else in quotes, so that `a=b` inside a value cannot pass for a field."""
    if len(text) <= LONGEST and PLAIN.fullmatch(text):
        return text
    quoted = clean(text).replace('"', '\\"')
    return f'"{quoted}"'


def clean(text: str, longest: int = LONGEST) -> str:
    """Cut to `longest` characters, with everything that does not print, and the backslash, escaped."""
    if len(text) > longest:
        text = f"{text[:longest]}..."
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
