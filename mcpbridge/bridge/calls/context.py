"""What every session and every call without a session needs, passed as one object."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.calls.call_log import CallLog
from mcpbridge.bridge.calls.tool_filter import ToolFilter
from mcpbridge.bridge.children.shared_state import Subscriber
from mcpbridge.bridge.drain import Drain
from mcpbridge.bridge.tasks import Spawn
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.event_log import Window
from mcpbridge.rules.faults import Fault, capacity, out_of_memory, paused, too_many_streams
from mcpbridge.rules.mcp.server_requests import ServerRequestTable
from mcpbridge.rules.supervision.crashes import CrashCharges
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Request


def _sheds_none(caller: bytes) -> bool:
    """Return False: no call makes room for another."""
    return False


def _shares_all(caller: bytes) -> Fault | None:
    """Return None: each client may have all places."""
    return None


class CallContext(msgspec.Struct, frozen=True):
    """The parts that sessions and calls without a session share; one for each tenant."""

    window: Window
    meters: Meters
    call_log: CallLog
    drain: Drain
    questions: Callable[[], ServerRequestTable]
    spawn: Spawn
    clock: Callable[[], float]
    """Returns the event loop's time, in seconds."""
    subscribers: Callable[[], Iterable[Subscriber]]
    """Returns the clients that share the tenant's children."""
    child_lost: Callable[[str], None]
    """Called with the id of a session whose child has ended by itself."""
    question_timeout_s: float
    """How long a child's request to its client waits for a stream that can carry it."""
    max_calls: int = 1024
    """Most calls in flight at once, over all clients."""
    undivided_calls: int = 1024
    """Below this number of calls in flight a client may have as many as it likes."""
    max_streams: int = 256
    """Most event streams that one session may have open at once."""
    max_subscriptions: int = 1000
    """Resources that one session, or one listen, may have subscribed to at once."""
    queue_bytes: int = 16 << 20
    """Most bytes of one session that may wait for a child."""
    shed: Callable[[bytes], bool] = _sheds_none
    """Ends a waiting call of a client with more calls than this one: see `CallShedder`."""
    over_share: Callable[[bytes], Fault | None] = _shares_all
    """Returns the fault of a client that may not have one of the last places: see `CallShedder`."""
    budget: Budget = msgspec.field(default_factory=Budget)
    """Counts the bytes that are kept."""
    account: Account = msgspec.field(default_factory=Account)
    """The tenant's account in it."""
    crashes: CrashCharges = msgspec.field(default_factory=CrashCharges)
    """Says which clients are paused because their calls have ended the server."""
    names_calls: bool = False
    """Whether event ids name their call: other replicas may be asked for its answer."""
    session_changed: Callable[[str], None] | None = None
    """Called with the id of a session whose level or subscriptions changed, or that initialized;
    None if no other replica must know."""
    tools: ToolFilter | None = None
    """Applies the policy on tools; None if clients may use all tools."""

    def check_tool(self, request: Request) -> None:
        """Refuse a call of a denied tool before a child is taken for it.

        Raises:
            WireError: See `ToolFilter.check`.
        """
        if self.tools is not None:
            self.tools.check(request)

    def over_load(self, caller: bytes, streams: int = 0) -> Fault | None:
        """Return the fault of a call over a limit; None if it may begin.

        The limits are `--max-calls`, `--max-memory` and `--max-streams`, and the pause of a client.

        Args:
            caller: The client, by its `Principal.share_key`.
            streams: Streams that its session has open, if the call may open another; else 0.
        """
        # Every call comes here: below all limits it costs these comparisons and counts no client's
        # calls.
        calls, budget, crashes = self.drain.calls, self.budget, self.crashes
        within = calls < self.undivided_calls and streams < self.max_streams
        if within and not budget.full and not crashes.paused:
            return None
        # First, so that a client that ends the server learns that its calls are the reason: the
        # limits below would only tell it to come again.
        pause_s = self.crashes.pause_left_s(caller, self.clock())
        if pause_s:
            return paused(pause_s)
        if budget.full:
            return out_of_memory(budget.limit)
        if calls >= self.max_calls and not self.shed(caller):
            return capacity("--max-calls", self.max_calls)
        full = self.over_streams(streams)
        # Last: a call that is admitted here is counted in its client's share.
        if full is None and self.undivided_calls <= calls < self.max_calls:
            return self.over_share(caller)
        return full

    def over_streams(self, streams: int) -> Fault | None:
        """Return the fault if a session with `streams` open streams may not open another."""
        return too_many_streams(self.max_streams) if streams >= self.max_streams else None
