"""Defines the interface of a tracer; `otel` implements it if tracing is enabled.

Without a tracer a call costs one comparison. This module does not import OpenTelemetry.

Source: OpenTelemetry semantic conventions for MCP.
"""

from __future__ import annotations

import contextvars
from typing import Protocol

import msgspec

from mcpbridge.settings import SettingsSection, Unit, setting

CURRENT: contextvars.ContextVar[tuple[str, str] | None] = contextvars.ContextVar(
    "mcpbridge_trace", default=None
)
"""Trace id and span id of the call that this task serves, for its log records."""


class TraceSettings(SettingsSection, frozen=True):
    """Whether calls are traced."""

    otel: bool = setting(
        False,
        "--otel",
        "Send traces and durations by OpenTelemetry, configured by the variables OTEL_*; setting"
        " OTEL_EXPORTER_OTLP_ENDPOINT is enough. Needs the extra `otel`.",
        group="Logs",
        unit=Unit.SWITCH,
    )


class TracedCall(msgspec.Struct, frozen=True):
    """One request, as its span describes it."""

    method: str
    target: str
    """The tool or prompt that it names; empty if it names none."""
    request_id: str
    label: tuple[str, str]
    """Method and tool with few values, for durations: see `Meters`."""
    traceparent: str = ""
    """The parent span; empty if there is none."""
    tracestate: str = ""
    version: str = ""
    session_id: str = ""
    """Empty outside of sessions."""


class Span(Protocol):
    """One call on one side of the bridge, from its arrival to its final answer."""

    @property
    def traceparent(self) -> str:
        """The `traceparent` to send to the next callee."""

    @property
    def tracestate(self) -> str:
        """The `tracestate` to send; empty if there is none."""

    def end(self, error_type: str | None = None, code: int | None = None) -> None:
        """End the span; later calls are ignored.

        Args:
            error_type: The kind of failure in one word; None for success.
            code: The code of a JSON-RPC error.
        """


class Tracer(Protocol):
    """A maker of spans."""

    def server(self, call: TracedCall) -> Span:
        """Begin the span of a client's call and make it the current one of the task."""

    def client(self, call: TracedCall) -> Span:
        """Begin the span of the bridge's call to the child."""

    def session_ended(self, seconds: float, error_type: str | None) -> None:
        """Record the duration of a session in seconds."""

    def shutdown(self, within_s: float) -> None:
        """Send what is left; block until it is sent, for at most `within_s` seconds."""
