"""An OpenTelemetry collector for tests: takes OTLP over HTTP and decodes what it is sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KINDS = {2: "SERVER", 3: "CLIENT"}


@dataclass(frozen=True)
class SentSpan:
    """One span, as it was sent."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    is_error: bool
    attributes: Mapping[str, str]


@dataclass
class Collector:
    """What has been sent so far; written by the server's threads."""

    url: str = ""
    spans: list[SentSpan] = field(default_factory=list)
    durations: dict[str, list[tuple[Mapping[str, str], int]]] = field(default_factory=dict)
    """By name of a histogram: the labels and the count of each of its last points."""
    resource: dict[str, str] = field(default_factory=dict)

    def named(self, name: str, kind: str) -> list[SentSpan]:
        """Spans of this name and kind, in the order in which they were sent."""
        return [span for span in list(self.spans) if (span.name, span.kind) == (name, kind)]

    def take(self, path: str, body: bytes) -> None:
        """Decode what was posted to a path."""
        if path == "/v1/traces":
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resource |= _texts(group.resource.attributes)
                for scope in group.scope_spans:
                    self.spans += [_span(span) for span in scope.spans]
        elif path == "/v1/metrics":
            for sent in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for metrics in sent.scope_metrics:
                    for metric in metrics.metrics:
                        points = metric.histogram.data_points
                        self.durations[metric.name] = [
                            (_texts(point.attributes), point.count) for point in points
                        ]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port of loopback."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """One export."""
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.headers["content-type"] == "application/x-protobuf"
            collector.take(self.path, body)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing: the test says what came."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _span(span: Any) -> SentSpan:
    return SentSpan(
        name=span.name,
        kind=KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        is_error=span.status.code == 2,
        attributes=_texts(span.attributes),
    )


def _texts(attributes: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in attributes}
