"""Whether traces are recorded, and which: what OpenTelemetry's environment variables say.

Nothing here imports OpenTelemetry; `otlp.py` does, where it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from gateway.core.traces import Sampling, read_sampling

if TYPE_CHECKING:  # it imports the SDK
    from gateway.telemetry.otlp import Traces

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"


def read_tracing(environment: Mapping[str, str]) -> Sampling | None:
    """Which requests are traced; None where nobody asked for traces. Raises ValueError that says what is wrong."""
    endpoint = _first(environment, ENDPOINTS)
    off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if not endpoint or off or environment.get("OTEL_TRACES_EXPORTER", "otlp").strip() not in ("otlp", ""):
        return None
    protocol = _first(environment, PROTOCOLS) or PROTOCOL
    if protocol != PROTOCOL:
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is not spoken here; use {PROTOCOL}, on port 4318")
    if not endpoint.startswith(("http://", "https://")):
        raise ValueError(f"OTEL_EXPORTER_OTLP_ENDPOINT: {endpoint!r} is no URL like http://collector:4318")
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter.otlp.proto.http") is None:
        raise ValueError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed. "
            "Run `pip install 'open-model-gateway[otlp]'`, or unset the variable."
        )
    return read_sampling(environment)


def open_traces(environment: Mapping[str, str]) -> Traces | None:
    """Starts the batch thread of this process; None where nobody asked for traces."""
    if read_tracing(environment) is None:
        return None
    from gateway.telemetry.otlp import Traces  # noqa: PLC0415 - 0.2 s and 20 MB that only traces need

    return Traces(environment)


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((value for name in names if (value := environment.get(name, "").strip())), "")
