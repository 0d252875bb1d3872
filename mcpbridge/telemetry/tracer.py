"""What the bridge asks of whoever traces calls; `otel` does it, where it is asked for.

Without it there is no tracer, and a call pays one comparison. Nothing here imports OpenTelemetry.

Source: OpenTelemetry semantic conventions for MCP.
"""

from __future__ import annotations

import contextvars
import dataclasses
from typing import Protocol

import msgspec

from mcpbridge.settings import Unit, setting

CURRENT: contextvars.ContextVar[tuple[str, str] | None] = contextvars.ContextVar(
    "mcpbridge_trace", default=None
)
"""Trace and span id of the call that this task serves, for its log records."""


@dataclasses.dataclass(frozen=True, slots=True)
class TraceSettings:
    """Whether calls are traced."""

    otel: bool = setting(
        False,
        "--otel",
        "Send traces and durations by OpenTelemetry, as the variables OTEL_* say where; setting"
        " OTEL_EXPORTER_OTLP_ENDPOINT is enough. Needs the extra `mcpbridge[otel]`.",
        group="Logs",
        unit=Unit.SWITCH,
    )


class TracedCall(msgspec.Struct, frozen=True):
    """One request, as its span describes it."""

    method: str
    target: str
    """The tool or prompt it names; empty for none."""
    request_id: str
    label: tuple[str, str]
    """Method and tool in few values, for durations: see `Meters`."""
    traceparent: str = ""
    """The span above; empty for none."""
    tracestate: str = ""
    version: str = ""
    session_id: str = ""
    """Empty outside of sessions."""


class Span(Protocol):
    """One call on one side of the bridge, from its arrival to its final answer."""

    @property
    def traceparent(self) -> str:
        """As whoever is called next shall see it."""

    @property
    def tracestate(self) -> str:
        """Empty for none."""

    def end(self, error_type: str | None = None, code: int | None = None) -> None:
        """It is over; what is said later of it is ignored.

        Args:
            error_type: What went wrong, in a word; None for nothing.
            code: The code of a JSON-RPC error.
        """


class Tracer(Protocol):
    """Makes spans."""

    def server(self, call: TracedCall) -> Span:
        """A call as its client sees it; it is the task's current one from now on."""

    def client(self, call: TracedCall) -> Span:
        """A call as the child sees it."""

    def session_ended(self, seconds: float, error_type: str | None) -> None:
        """A session is over."""

    def shutdown(self, within_s: float) -> None:
        """Send what is left; blocks until it is sent, but for no more than so many seconds."""
