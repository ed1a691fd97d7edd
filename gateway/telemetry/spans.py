"""Record -> OpenTelemetry spans: one for the request (SERVER), one for each attempt (CLIENT, its children).

Names are those of OpenTelemetry's conventions for generative AI (github.com/open-telemetry/semantic-conventions-genai,
client inference and embeddings, as of November 2026) and for HTTP; what they have no name for is `gateway.*`. Token
counts under `gen_ai.usage.*` stand in attempts alone, so that a sum over all spans is what was billed.

Only imported where traces are switched on: it needs the extra `otlp`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from gateway import __version__
from gateway.config.types import Config
from gateway.core.pricing import NANO_PER_USD
from gateway.core.record import AttemptRecord, Record
from gateway.core.traces import Span
from gateway.telemetry.lines import MOST_TAGS, clean

OPERATIONS = {
    "/chat/completions": "chat",
    "/messages": "chat",
    "/responses": "chat",
    "/completions": "text_completion",
    "/embeddings": "embeddings",
}
FINE = frozenset({"ok", "cancelled"})  # results of attempts that are no errors

# gen_ai.provider.name has well-known values; whoever is not here goes by the name under `providers:`.
WELL_KNOWN = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "api.anthropic.com": "anthropic",
    "api.deepseek.com": "deepseek",
    "api.mistral.ai": "mistral_ai",
    "api.groq.com": "groq",
    "api.x.ai": "x_ai",
    "api.perplexity.ai": "perplexity",
    "api.cohere.com": "cohere",
    "generativelanguage.googleapis.com": "gcp.gemini",
}

Value = str | bool | int | float | tuple[str, ...]
SCOPE = InstrumentationScope("open-model-gateway", __version__)


class Server(NamedTuple):
    """Where a provider is."""

    host: str
    port: int
    known_as: str  # gen_ai.provider.name


def servers(config: Config) -> dict[str, Server]:
    """By provider. Never more of a base URL than host and port."""
    found: dict[str, Server] = {}
    for name, provider in config.providers.items():
        url = urlsplit(provider.base_url)
        host = url.hostname or ""
        known = next((k for suffix, k in WELL_KNOWN.items() if host == suffix or host.endswith(f".{suffix}")), name)
        found[name] = Server(host, url.port or (80 if url.scheme == "http" else 443), known)
    return found


def spans(record: Record, resource: Resource, at: Mapping[str, Server]) -> Iterator[ReadableSpan]:
    """The request's span and its attempts'. `record.span` is there."""
    span = record.span
    assert span is not None
    began = round(record.started * 1e9)
    ended = began + round(record.duration * 1e9)
    state = TraceState.from_header([span.state]) if span.state else TraceState()
    own = _context(span, span.span_id, state)
    parent = _context(span, span.parent_id, state, remote=True) if span.parent_id else None
    yield ReadableSpan(
        name=f"POST /v1{record.endpoint}" if record.endpoint in OPERATIONS else "other",
        context=own,
        parent=parent,
        resource=resource,
        attributes=_request(record),
        kind=SpanKind.SERVER,
        status=Status(StatusCode.ERROR) if record.status >= 500 or record.outcome == "upstream_error" else Status(),
        start_time=began,
        end_time=ended,
        instrumentation_scope=SCOPE,
    )
    for attempt in record.attempts:
        start = began + max(0, round(attempt.started * 1e9))
        yield ReadableSpan(
            name=f"{_operation(record)} {clean(attempt.upstream_model or attempt.model)}",
            context=_context(span, attempt.span_id, state),
            parent=own,
            resource=resource,
            attributes=_attempt(record, attempt, at.get(attempt.provider)),
            kind=SpanKind.CLIENT,
            status=Status() if attempt.result in FINE else Status(StatusCode.ERROR),
            start_time=start,
            end_time=min(ended, start + round(attempt.duration * 1e9)),
            instrumentation_scope=SCOPE,
        )


def _context(span: Span, span_id: str, state: TraceState, *, remote: bool = False) -> SpanContext:
    return SpanContext(int(span.trace_id, 16), int(span_id, 16), remote, TraceFlags(span.flags), state)


def _operation(record: Record) -> str:
    return OPERATIONS.get(record.endpoint, "other")


def _request(r: Record) -> dict[str, Value]:
    found: dict[str, Value] = {
        "http.request.method": "POST",
        "http.response.status_code": r.status,
        "gen_ai.operation.name": _operation(r),
        "gen_ai.request.stream": r.stream,
        "gateway.request.id": r.id,
        "gateway.outcome": r.outcome,
        "gateway.attempts": len(r.attempts),
        "gateway.input_tokens": r.usage.total_input,
        "gateway.output_tokens": r.usage.total_output,
        "gateway.cost_usd": r.cost_nano / NANO_PER_USD,
        "gateway.overhead_seconds": r.overhead,
        "gateway.config": r.config_hash,
    }
    if r.endpoint in OPERATIONS:
        found["http.route"] = f"/v1{r.endpoint}"
    named = {
        "gen_ai.request.model": r.requested_model,
        "gateway.request.client_id": r.client_request_id,
        "gateway.route": r.route,
        "gateway.task": r.task,
        "gateway.key": r.key,
        "gateway.team": r.team,
        "gateway.model": r.model,
        "gateway.provider": r.provider,
        "gateway.hosting": r.hosting,
        "gateway.rejection": r.rejection,
        "gateway.fallback.reason": r.fallback_reason,
        "error.type": _error(r),
    }
    found.update((name, clean(value)) for name, value in named.items() if value)
    if r.tags:
        found["gateway.tags"] = tuple(clean(tag) for tag in r.tags[:MOST_TAGS])
    if r.baseline_model:
        found["gateway.baseline.model"] = clean(r.baseline_model)
        found["gateway.baseline_usd"] = r.baseline_nano / NANO_PER_USD
    _seconds(found, "gateway.time_to_first_token_seconds", r.first_token)
    for stage, seconds in r.stages._asdict().items():
        _seconds(found, f"gateway.stage.{stage}_seconds", seconds)
    return found


def _error(r: Record) -> str:
    """Empty where it ended well, or its client left."""
    if r.rejection:
        return r.rejection
    if r.outcome == "upstream_error":
        return r.attempts[-1].result if r.attempts else "upstream_error"
    return str(r.status) if r.outcome == "client_error" else ""


def _attempt(r: Record, a: AttemptRecord, server: Server | None) -> dict[str, Value]:
    found: dict[str, Value] = {
        "gen_ai.operation.name": _operation(r),
        "gen_ai.provider.name": server.known_as if server is not None else a.provider,
        "gen_ai.request.model": clean(a.upstream_model or a.model),
        "gen_ai.request.stream": r.stream,
        "gateway.model": a.model,
        "gateway.provider": a.provider,
        "gateway.hosting": a.hosting,
        "gateway.attempt.reason": a.reason,
        "gateway.attempt.purpose": a.purpose,
        "gateway.attempt.result": a.result,
        "gateway.cost_usd": a.cost_nano / NANO_PER_USD,
    }
    host, port = (server.host, server.port) if server is not None else ("", 0)
    if a.replica:  # host:port, with the path where it is needed to tell two apart
        split = urlsplit(f"//{a.replica}")
        host, port = split.hostname or host, split.port or 443
    if host:
        found["server.address"], found["server.port"] = host, port
    _asked(found, r)
    if a.status:
        found["http.response.status_code"] = a.status
    if a.response_model:
        found["gen_ai.response.model"] = clean(a.response_model)
    if a.finish:
        found["gen_ai.response.finish_reasons"] = (clean(a.finish),)
    if a.result not in FINE:
        found["error.type"] = str(a.status) if a.result == "relayed" else a.result
    if a.upstream_request_id:
        found["gateway.upstream.request_id"] = clean(a.upstream_request_id)
    _usage(found, a)
    _seconds(found, "gateway.time_to_first_token_seconds", a.first_token)
    for stage, seconds in a.stages._asdict().items():
        _seconds(found, f"gateway.stage.{stage}_seconds", seconds)
    return found


def _asked(found: dict[str, Value], r: Record) -> None:
    if r.n != 1:
        found["gen_ai.request.choice.count"] = r.n
    if r.max_output is not None:
        found["gen_ai.request.max_tokens"] = r.max_output


def _usage(found: dict[str, Value], a: AttemptRecord) -> None:
    """The convention's input holds cached tokens, and its output reasoning; the parts are there where there are any."""
    usage = a.usage
    found["gen_ai.usage.input_tokens"] = usage.total_input
    found["gen_ai.usage.output_tokens"] = usage.total_output
    parts = {
        "gen_ai.usage.cache_read.input_tokens": usage.cached_input,
        "gen_ai.usage.cache_write.input_tokens": usage.cache_write,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning,
    }
    found.update((name, count) for name, count in parts.items() if count)
    if usage.estimated:
        found["gateway.usage_estimated"] = True


def _seconds(found: dict[str, Value], name: str, seconds: float | None) -> None:
    if seconds is not None:
        found[name] = max(0.0, seconds)
