"""What every conversation of a bridge works with, handed down as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from mcpbridge.bridge.calls.call_log import CallLog
from mcpbridge.bridge.calls.tool_filter import ToolFilter
from mcpbridge.bridge.children.shared_state import Subscriber
from mcpbridge.bridge.drain import Drain
from mcpbridge.bridge.tasks import Spawn
from mcpbridge.rules.event_log import Window
from mcpbridge.rules.faults import Fault, capacity, too_many_streams
from mcpbridge.rules.mcp.server_requests import ServerRequestTable
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Request


@dataclasses.dataclass(frozen=True, slots=True)
class CallContext:
    """The parts that sessions and calls without one share."""

    window: Window
    meters: Meters
    call_log: CallLog
    drain: Drain
    questions: Callable[[], ServerRequestTable]
    spawn: Spawn
    clock: Callable[[], float]
    """Seconds on the event loop's own clock."""
    subscribers: Callable[[], Iterable[Subscriber]]
    """The clients that share the tenant's children."""
    child_lost: Callable[[str], None]
    """Told the id of a session whose child has ended by itself."""
    question_timeout_s: float
    """How long a question of a child waits for a stream of its client."""
    max_calls: int = 1024
    """Calls at once in all."""
    max_streams: int = 256
    """Event streams that one session may have open at once."""
    tools: ToolFilter | None = None
    """Says which tools clients may use, where not all."""

    def check_tool(self, request: Request) -> None:
        """Refuse a call of a denied tool before a child is taken for it; see `ToolFilter.check`."""
        if self.tools is not None:
            self.tools.check(request)

    def over_load(self, streams: int = 0) -> Fault | None:
        """What to tell a client whose call would be one too many; None lets it in.

        Args:
            streams: What its session has open already, where the call may open another.
        """
        if self.drain.calls >= self.max_calls:
            return capacity("--max-calls", self.max_calls)
        return self.over_streams(streams)

    def over_streams(self, streams: int) -> Fault | None:
        """What to tell a client whose session has so many streams open and would open another."""
        return too_many_streams(self.max_streams) if streams >= self.max_streams else None
