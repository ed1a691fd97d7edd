"""Traces over OTLP/HTTP: made and sent by the SDK's batch thread, from the one event of a request.

The request itself pays for its ids and for a place in a bounded queue. What finds no place there, or cannot be
delivered, is counted. All settings are OpenTelemetry's environment variables; OTEL_BSP_MAX_QUEUE_SIZE and
OTEL_BSP_MAX_EXPORT_BATCH_SIZE count requests here, each of which has two spans or more.

Only imported where traces are switched on: it needs the extra `otlp`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from gateway import __version__
from gateway.config.types import Config
from gateway.core.record import Record
from gateway.telemetry.events import Event, RequestFinished
from gateway.telemetry.spans import Server, servers, spans

SERVICE = "open-model-gateway"
QUEUE = 2048  # requests, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise
CLOSE_SECONDS = 3.0  # that `close` waits for a collector that does not answer

log = logging.getLogger("gateway")


class Traces:
    """One per process, used by one thread."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._resource = resource(environment)
        self._sender = _Sender(OTLPSpanExporter())
        given = environment.get("OTEL_BSP_MAX_QUEUE_SIZE", "")
        self._capacity = int(given) if given.isdigit() and int(given) else QUEUE
        self._processor = BatchSpanProcessor(self._sender, max_queue_size=self._capacity)
        self._servers: dict[str, Server] = {}
        self._put = 0
        self._refused = 0
        self._told = 0  # of what was lost

    def configure(self, config: Config) -> None:
        """Providers of an older configuration stay known: calls in flight finish on it."""
        self._servers = {**self._servers, **servers(config)}

    def observe(self, event: Event) -> None:
        """Never blocks and never raises."""
        if not isinstance(event, RequestFinished) or event.record.span is None or not event.record.span.sampled:
            return
        if self._put - self._sender.taken >= self._capacity:
            self._refused += 1
            return
        self._put += 1
        self._processor.on_end(_Waiting(event.record, self._resource, self._servers))

    def take_lost(self) -> int:
        """Requests whose spans were left out since the last time."""
        lost = self._refused + self._sender.failed
        fresh, self._told = lost - self._told, lost
        return fresh

    async def close(self) -> None:
        """Sends what waits, for CLOSE_SECONDS at most."""
        ending = threading.Thread(target=self._processor.shutdown, name="traces-end", daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, CLOSE_SECONDS)
        if ending.is_alive():
            self._sender.give_up()
            await asyncio.to_thread(ending.join, 1.0)
        left = self._put - self._sender.taken + self._sender.failed + self._refused
        if left:
            log.warning("the spans of %d requests were not delivered", left)


def resource(environment: Mapping[str, str]) -> Resource:
    """Who sends. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over our own name."""
    own: dict[str, str | int] = {"service.version": __version__, "process.pid": os.getpid()}
    named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create(own if named else {**own, "service.name": SERVICE})


class _Waiting(ReadableSpan):
    """A finished request in the SDK's queue: its spans are made when it leaves it."""

    def __init__(self, record: Record, resource: Resource, at: Mapping[str, Server]) -> None:
        super().__init__("request", context=_TAKEN, resource=resource)
        self._record = record
        self._at = at

    def spans(self) -> list[ReadableSpan]:
        return list(spans(self._record, self.resource, self._at))


_TAKEN = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
"""What makes the SDK's processor take it; the spans that are sent have contexts of their own."""


class _Sender(SpanExporter):
    """Makes the spans of a batch and sends them. Runs in the SDK's thread; its counts are written by that alone."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self._exporter = exporter
        self._over = False
        self.taken = 0  # requests that have left the queue
        self.failed = 0  # of these, not delivered

    def export(self, batch: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(batch)
        result = SpanExportResult.FAILURE
        try:
            if not self._over:
                made = [span for each in batch if isinstance(each, _Waiting) for span in each.spans()]
                result = self._exporter.export(made)
        finally:
            if result is not SpanExportResult.SUCCESS:
                self.failed += len(batch)
        return result

    def give_up(self) -> None:
        """Whatever is under way ends, and nothing more is sent."""
        self._over = True
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the exporter types it not

    def shutdown(self) -> None:
        if not self._over:
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the exporter types it not

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)
