"""Sends spans and durations by OpenTelemetry over OTLP; imported only if it is enabled.

The SDK reads endpoint, intervals and sampling from the OTEL_* variables itself.

Source: OpenTelemetry semantic conventions for MCP; W3C Trace Context.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mcpbridge import __version__
from mcpbridge.telemetry.tracer import CURRENT, TracedCall

BUCKETS_S: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
"""The buckets that the semantic conventions advise."""
_MAX_NAME = 64
_OTHER = "_OTHER"
_CODES = frozenset(
    ("-32700", "-32600", "-32601", "-32602", "-32603", "-32001", "-32002", "-32042", "-32800")
)
"""JSON-RPC errors with separate series; a server may invent any number of others."""
_TRANSPORTS = {SpanKind.SERVER: "tcp", SpanKind.CLIENT: "pipe"}
_TARGETS = {"tools/call": "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}

_propagator = TraceContextTextMapPropagator()


class OtelTracer:
    """A tracer that makes spans and records durations; see `tracer.Tracer`."""

    def __init__(self, *, metrics: bool = True) -> None:
        """Start the SDK's threads.

        Args:
            metrics: Send durations as metrics too.
        """
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "mcpbridge"}))
        self._spans = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        readers = [PeriodicExportingMetricReader(OTLPMetricExporter())] if metrics else []
        self._metrics = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        self._tracer = self._spans.get_tracer("mcpbridge", __version__)
        self._durations = {
            SpanKind.SERVER: self._histogram("mcp.server.operation.duration", "Calls of clients."),
            SpanKind.CLIENT: self._histogram("mcp.client.operation.duration", "Calls of children."),
        }
        self._session = self._histogram("mcp.server.session.duration", "Sessions of clients.")

    def server(self, call: TracedCall) -> OtelSpan:
        """Begin the span of a client's call and make it the current one of the task."""
        span = self._start(call, SpanKind.SERVER)
        CURRENT.set(span.ids)
        return span

    def client(self, call: TracedCall) -> OtelSpan:
        """Begin the span of the bridge's call to the child."""
        return self._start(call, SpanKind.CLIENT)

    def session_ended(self, seconds: float, error_type: str | None) -> None:
        """Record the duration of a session."""
        attributes = {"network.transport": "tcp"}
        if error_type is not None:
            attributes["error.type"] = error_type
        self._session.record(seconds, attributes)

    def shutdown(self, within_s: float) -> None:
        """Send what is left; block until it is sent, for at most `within_s` seconds."""
        # A daemon thread, since the SDK retries for as long as its variables say.
        sending = threading.Thread(target=self._send_rest, daemon=True)
        sending.start()
        sending.join(within_s)
        if sending.is_alive():
            # The thread goes on for a moment, and its log records would reach no reader.
            logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)

    def _send_rest(self) -> None:
        # Spans first, since the time may suffice for one of both: most durations were sent before.
        self._spans.shutdown()
        self._metrics.shutdown()

    def _histogram(self, name: str, text: str) -> Histogram:
        meter = self._metrics.get_meter("mcpbridge", __version__)
        return meter.create_histogram(
            name, "s", text, explicit_bucket_boundaries_advisory=list(BUCKETS_S)
        )

    def _start(self, call: TracedCall, kind: SpanKind) -> OtelSpan:
        carrier = {"traceparent": call.traceparent, "tracestate": call.tracestate}
        # An empty context: whatever span is current in this task is not the parent of the call.
        above = _propagator.extract(carrier, Context()) if call.traceparent else Context()
        target = call.target[:_MAX_NAME]
        method = call.method[:_MAX_NAME]
        name = f"{method} {target}" if target else method
        span = self._tracer.start_span(name, above, kind, _attributes(call, kind))
        labels = {"mcp.method.name": call.label[0], "network.transport": _TRANSPORTS[kind]}
        if call.label[1]:
            labels["gen_ai.tool.name"] = call.label[1]
        if call.version:
            labels["mcp.protocol.version"] = call.version
        return OtelSpan(span, self._durations[kind], labels)


class OtelSpan:
    """A span of OpenTelemetry; see `tracer.Span`."""

    def __init__(self, span: SdkSpan, duration: Histogram, labels: dict[str, str]) -> None:
        self._span = span
        self._duration = duration
        self._labels = labels
        self._began = time.perf_counter()
        self._over = False
        context = span.get_span_context()
        self.ids = (f"{context.trace_id:032x}", f"{context.span_id:016x}")
        self.traceparent = f"00-{self.ids[0]}-{self.ids[1]}-{int(context.trace_flags):02x}"
        self.tracestate = context.trace_state.to_header()

    def end(self, error_type: str | None = None, code: int | None = None) -> None:
        """End the span; see `tracer.Span.end`."""
        # A call may end in several ways at once: its answer, its cancellation, the child's end.
        if self._over:
            return
        self._over = True
        if error_type is not None:
            self._span.set_attribute("error.type", error_type)
            self._span.set_status(Status(StatusCode.ERROR))
            known = not error_type.lstrip("-").isdigit() or error_type in _CODES
            self._labels["error.type"] = error_type if known else _OTHER
        if code is not None:
            self._span.set_attribute("rpc.response.status_code", str(code))
        self._span.end()
        self._duration.record(time.perf_counter() - self._began, self._labels)


def _attributes(call: TracedCall, kind: SpanKind) -> Mapping[str, str]:
    attributes = {
        "mcp.method.name": call.method[:_MAX_NAME],
        "jsonrpc.request.id": call.request_id[:_MAX_NAME],
        "network.transport": _TRANSPORTS[kind],
    }
    if call.target:
        attributes[_TARGETS[call.method]] = call.target[:_MAX_NAME]
    if call.method == "tools/call":
        attributes["gen_ai.operation.name"] = "execute_tool"
    if call.version:
        attributes["mcp.protocol.version"] = call.version
    if call.session_id:
        attributes["mcp.session.id"] = call.session_id
    return attributes
