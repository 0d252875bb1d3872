"""A tracer that keeps its spans, for tests of what is traced."""

from __future__ import annotations

from mcpbridge.telemetry.tracer import TracedCall


class KeptSpan:
    """A span that remembers how it ended."""

    tracestate = ""

    def __init__(self, side: str, call: TracedCall, number: int) -> None:
        self.side, self.call = side, call
        self.traceparent = f"00-{'a' * 32}-{number:016x}-01"
        self.ends: list[tuple[str | None, int | None]] = []

    def end(self, error_type: str | None = None, code: int | None = None) -> None:
        """See `Span`."""
        self.ends.append((error_type, code))


class KeepingTracer:
    """A tracer without an exporter."""

    def __init__(self) -> None:
        self.spans: list[KeptSpan] = []
        self.sessions: list[tuple[float, str | None]] = []

    def _made(self, side: str, call: TracedCall) -> KeptSpan:
        self.spans.append(KeptSpan(side, call, len(self.spans) + 1))
        return self.spans[-1]

    def server(self, call: TracedCall) -> KeptSpan:
        """See `Tracer`."""
        return self._made("server", call)

    def client(self, call: TracedCall) -> KeptSpan:
        """See `Tracer`."""
        return self._made("client", call)

    def session_ended(self, seconds: float, error_type: str | None) -> None:
        """See `Tracer`."""
        self.sessions.append((seconds, error_type))

    def shutdown(self, within_s: float) -> None:
        """See `Tracer`."""
