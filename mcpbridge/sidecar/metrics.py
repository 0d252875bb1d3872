"""The metrics of `mcpbridge sidecar`, under the names that the MCP Operator's dashboard reads.

A process of its own, so that prometheus-client's own counters will do. Labels have few values: a
method that is not known is `other`, and so is a tool that no `tools/list` has named.
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
    """What passed the sidecar."""

    def __init__(self, version: str, target: str, methods: Collection[str]) -> None:
        """Begin at zero.

        Args:
            version: Of this program.
            target: The URL of the server behind.
            methods: Whose requests are told apart.
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
        """The text for a scraper and its content type."""
        encode, content_type = choose_encoder(accept or "")
        return encode(self._registry), content_type

    def tools_listed(self, result: bytes) -> None:
        """The result of a `tools/list`: these tools are told apart from now on."""
        self._tools.learn(result)

    def method(self, method: str) -> str:
        """The label of a method."""
        return method if method in self._methods else OTHER

    def tool_called(self, params: bytes) -> None:
        """A call of a tool, with the params that name it."""
        self._tool_calls.labels(self._tools.meter("tools/call", params).tool).inc()

    def errors(self, method: str, codes: Collection[int]) -> None:
        """JSON-RPC errors in the answer to this method (a label)."""
        for code in codes:
            self._errors.labels(method, str(code) if code in _KNOWN_CODES else OTHER).inc()

    def events(self, types: Collection[str]) -> None:
        """Events that went by on a stream."""
        for each in types:
            self._events.labels(each).inc()

    def ended(
        self, status: int, methods: Collection[str], seconds: float, received: int, sent: int
    ) -> None:
        """A request is over.

        Args:
            status: Of the response.
            methods: Labels of what its body asked; empty for no message.
            seconds: How long it took.
            received: Bytes of its body.
            sent: Bytes of the response's.
        """
        for method in methods or ("none",):
            self._requests.labels(str(status), method).inc()
        self._duration.observe(seconds)
        self._request_size.observe(received)
        self._response_size.observe(sent)

    def stream_began(self) -> None:
        """A stream was opened by GET."""
        self._streams.inc()
        self.active_streams.inc()

    def stream_ended(self, seconds: float) -> None:
        """It is over."""
        self.active_streams.dec()
        self._stream_duration.observe(seconds)
