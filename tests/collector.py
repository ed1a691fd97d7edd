"""A real OTLP/HTTP receiver on loopback: what a collector takes in, decoded with OTLP's own types."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.servers import until


class Span(NamedTuple):
    name: str
    kind: str  # "SERVER" | "CLIENT"
    trace_id: str
    span_id: str
    parent_id: str  # empty: a root
    state: str
    start: int  # unix nanoseconds
    end: int
    failed: bool
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


class Collector:
    """Use as a context manager. `status` is what it answers with; `gate`, when closed, makes it answer nothing."""

    def __init__(self) -> None:
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0
        self.paths: set[str] = set()
        self.headers: list[Mapping[str, str]] = []
        self._spans: list[Span] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def env(self) -> dict[str, str]:
        """What makes a gateway send here, without much waiting."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    @property
    def spans(self) -> list[Span]:
        return list(self._spans)

    def trace(self, trace_id: str, count: int) -> tuple[Span, list[Span]]:
        """The request's span of a trace and its attempts' in order, once `count` of them are there."""

        def whole() -> list[Span]:
            found = [span for span in self.spans if span.trace_id == trace_id]
            return found if len(found) >= count else []

        found = until(f"{count} spans of {trace_id}", whole)
        assert len(found) == count
        [request] = [span for span in found if span.kind == "SERVER"]
        return request, sorted((span for span in found if span.kind == "CLIENT"), key=lambda span: span.start)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector._take(self, body)

            def log_message(self, format: str, *args: object) -> None:
                pass  # the test says what went wrong

        return Handler

    def _take(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        self.asked += 1
        self.paths.add(request.path)
        self.headers.append(dict(request.headers))
        self.gate.wait(30)
        if self.status == 200:
            packed = request.headers.get("content-encoding") == "gzip"
            sent = ExportTraceServiceRequest.FromString(gzip.decompress(body) if packed else body)
            for group in sent.resource_spans:
                about = _values(group.resource.attributes)
                self._spans += [_span(span, about) for scope in group.scope_spans for span in scope.spans]
        request.send_response(self.status)
        request.send_header("content-length", "0")
        request.end_headers()


def _span(span: Sent, about: Mapping[str, Any]) -> Span:
    return Span(
        span.name,
        Sent.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.trace_state,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == Status.STATUS_CODE_ERROR,
        _values(span.attributes),
        about,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes if isinstance(each, KeyValue)}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None
