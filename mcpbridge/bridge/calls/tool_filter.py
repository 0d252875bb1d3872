"""The policy on tools, where everything passes that a child is asked: at its mux.

Whatever a call's way is (a session, a batch, an emulated era, a call of the bridge's own), it ends
in `Mux.request`, and the answer to a list comes back through the waiter that was given there. So
no way can be forgotten, and without a policy there is nothing here but one comparison.
"""

from __future__ import annotations

from mcpbridge.bridge.children.listeners import CallEvent, CallFailed, CallSink, Interceptor
from mcpbridge.errors import ToolDenied, WireError
from mcpbridge.rules.access.tool_policy import TOOLS_CALL, TOOLS_LIST, ToolPolicy
from mcpbridge.rules.faults import bad_child_message
from mcpbridge.rules.mcp.correlator import Answered
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Message, Notification, Request, Result


class ToolFilter(Interceptor):
    """Applies the policy of one bridge; there only where there is one."""

    def __init__(self, policy: ToolPolicy, meters: Meters) -> None:
        self._policy = policy
        self._meters = meters

    def check(self, request: Request) -> None:
        """Let a request pass, or not; only calls of tools are looked at.

        Raises:
            WireError: Its tool is denied, or it or its tool cannot be told beyond doubt.
        """
        try:
            if request.method == TOOLS_CALL:
                self._policy.check_call(request.params)
            else:
                self._policy.check_method(request.method)
        except WireError as error:
            denied = isinstance(error, ToolDenied)
            self._meters.count("denied_tool" if denied else "unreadable_tool")
            raise

    def outbound(
        self, request: Request, sink: CallSink, number: int, *, own: bool
    ) -> tuple[Request, CallSink]:
        """Check a call, and filter a list: see `Interceptor`."""
        self.check(request)
        return request, _Listed(sink, self._policy) if request.method == TOOLS_LIST else sink

    def drops(self, message: Message) -> bool:
        """Return whether it is a call that wants no answer: see `Interceptor`."""
        # Some servers obey a call that wants no answer.
        if not isinstance(message, Notification):
            return False
        try:
            self._policy.check_method(message.method)
            dropped = message.method == TOOLS_CALL
        except WireError:
            dropped = True
        if dropped:
            self._meters.count("unreadable_tool")
        return dropped


class _Listed:
    """The sink of a list of tools, which shows it without what is denied."""

    lasting = False

    def __init__(self, sink: CallSink, policy: ToolPolicy) -> None:
        self._sink = sink
        self._policy = policy

    def receive(self, event: CallEvent) -> None:
        """Pass everything on; a list as clients may see it."""
        if isinstance(event, Answered) and isinstance(event.reply, Result):
            reply = event.reply
            try:
                shown = Result(reply.id, self._policy.listed(reply.result), reply.extra)
            except WireError:
                event = CallFailed(bad_child_message())
            else:
                event = Answered(event.owner, shown, event.number)
        self._sink.receive(event)
