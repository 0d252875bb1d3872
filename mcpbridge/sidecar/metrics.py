"""The metrics of `mcpbridge sidecar`, under the names that the MCP Operator's dashboard reads.

The sidecar is a separate process, so prometheus-client's own counters suffice. Labels have
few values: an unknown method is `other`, and so is a tool that no `tools/list` has named.
"""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector

from mcpbridge.telemetry.metrics import OTHER, CallMeters

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BYTES = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_STREAM_SECONDS = (1, 5, 10, 30, 60, 300, 600, 1800, 3600)
_KNOWN_CODES = frozenset(
    (-32700, -32600, -32601, -32602, -32603, -32000, -32001, -32002, -32042, -32800)
)


class Dashboard:
    """The metrics of the sidecar."""

    def __init__(self, version: str, target: str, methods: Collection[str]) -> None:
        """Begin at zero.

        Args:
            version: Version of this program.
            target: URL of the server behind the sidecar.
            methods: Methods with separate series.
        """
        self._methods = frozenset(methods)
        self._tools = CallMeters(())
        registry = self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            "mcp_requests", "Requests.", ["status", "method"], registry=registry
        )
        self._errors = Counter(
            "mcp_request_errors", "JSON-RPC errors.", ["method", "error_code"], registry=registry
        )
        self._tool_calls = Counter(
            "mcp_tool_calls", "Calls of tools.", ["tool_name"], registry=registry
        )
        self._events = Counter(
            "mcp_sse_events", "Events on streams.", ["event_type"], registry=registry
        )
        self._streams = Counter("mcp_sse_connections", "Streams opened by GET.", registry=registry)
        self._duration = Histogram(
            "mcp_request_duration_seconds",
            "From a request's head to the end of its response.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._request_size = Histogram(
            "mcp_request_size_bytes", "Bodies of requests.", buckets=_BYTES, registry=registry
        )
        self._response_size = Histogram(
            "mcp_response_size_bytes", "Bodies of responses.", buckets=_BYTES, registry=registry
        )
        self._stream_duration = Histogram(
            "mcp_sse_connection_duration_seconds",
            "How long streams opened by GET lasted.",
            buckets=_STREAM_SECONDS,
            registry=registry,
        )
        self.active = Gauge("mcp_active_connections", "Requests in hand.", registry=registry)
        self.active_streams = Gauge(
            "mcp_sse_connections_active", "Streams opened by GET that are open.", registry=registry
        )
        info = Gauge("mcp_proxy_info", "Always 1.", ["version", "target"], registry=registry)
        info.labels(version, target).set(1)
        ProcessCollector(registry=registry)

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """Return the text for a scraper and its content type."""
        encode, content_type = choose_encoder(accept or "")
        return encode(self._registry), content_type

    def tools_listed(self, result: bytes) -> None:
        """Give separate series to the tools in a result of `tools/list`."""
        self._tools.learn(result)

    def method(self, method: str) -> str:
        """Return the label of a method."""
        return method if method in self._methods else OTHER

    def tool_called(self, params: bytes) -> None:
        """Count a tool call by the tool that its params name."""
        self._tool_calls.labels(self._tools.meter("tools/call", params).tool).inc()

    def errors(self, method: str, codes: Collection[int]) -> None:
        """Count the JSON-RPC errors in the answer to a method, given as a label."""
        for code in codes:
            self._errors.labels(method, str(code) if code in _KNOWN_CODES else OTHER).inc()

    def events(self, types: Collection[str]) -> None:
        """Count the events of a stream by type."""
        for each in types:
            self._events.labels(each).inc()

    def ended(
        self, status: int, methods: Collection[str], seconds: float, received: int, sent: int
    ) -> None:
        """Count a request that has ended.

        Args:
            status: Status of the response.
            methods: Labels of the methods in its body; empty if it has no message.
            seconds: Duration.
            received: Bytes of the request's body.
            sent: Bytes of the response's body.
        """
        for method in methods or ("none",):
            self._requests.labels(str(status), method).inc()
        self._duration.observe(seconds)
        self._request_size.observe(received)
        self._response_size.observe(sent)

    def stream_began(self) -> None:
        """Count a stream opened by GET."""
        self._streams.inc()
        self.active_streams.inc()

    def stream_ended(self, seconds: float) -> None:
        """Record the end and duration of a stream."""
        self.active_streams.dec()
        self._stream_duration.observe(seconds)
