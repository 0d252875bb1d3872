"""The policy on tools, where everything passes that a child is asked: at its mux.

Whatever a call's way is (a session, a batch, an emulated era, a call of the bridge's own), it ends
in `Mux.request`, and the answer to a list comes back through the waiter that was given there. So
no way can be forgotten, and without a policy there is nothing here but one comparison.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcpbridge.errors import ToolDenied, WireError
from mcpbridge.rules.access.tool_policy import TOOLS_LIST, ToolPolicy
from mcpbridge.rules.faults import Fault, bad_child_message
from mcpbridge.rules.outcome import TOOLS_CALL
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Message, Notification, Reply, Request, Result

if TYPE_CHECKING:
    from mcpbridge.bridge.children.listeners import CallSink


class ToolFilter:
    """Applies the policy of one bridge; there only where there is one."""

    def __init__(self, policy: ToolPolicy, meters: Meters) -> None:
        self._policy = policy
        self._meters = meters

    def check(self, request: Request) -> None:
        """Let a request pass, or not; only calls of tools are looked at.

        Raises:
            WireError: Its tool is denied, or cannot be told beyond doubt.
        """
        if request.method == TOOLS_CALL:
            try:
                self._policy.check_call(request.params)
            except WireError as error:
                denied = isinstance(error, ToolDenied)
                self._meters.count("denied_tool" if denied else "unreadable_tool")
                raise

    def sent(self, request: Request, sink: CallSink) -> CallSink:
        """Who waits for the answer, so that a list comes without what is denied.

        Raises:
            WireError: As for `check`.
        """
        self.check(request)
        return _Listed(sink, self._policy) if request.method == TOOLS_LIST else sink

    def drops(self, message: Message) -> bool:
        """Whether this must not be sent: a call that wants no answer is obeyed by some servers."""
        dropped = isinstance(message, Notification) and message.method == TOOLS_CALL
        if dropped:
            self._meters.count("unreadable_tool")
        return dropped


class _Listed:
    """Whoever waits for a list of tools; see `CallSink`."""

    lasting = False

    def __init__(self, sink: CallSink, policy: ToolPolicy) -> None:
        self._sink = sink
        self._policy = policy

    def progressed(self, notification: Notification) -> None:
        """The waiter's."""
        self._sink.progressed(notification)

    def answered(self, reply: Reply) -> None:
        """The list, as far as it is for clients."""
        if isinstance(reply, Result):
            try:
                shown = self._policy.listed(reply.result)
            except WireError:
                self._sink.fail(bad_child_message())
                return
            reply = Result(reply.id, shown, reply.extra)
        self._sink.answered(reply)

    def remarked(self, notification: Notification) -> None:
        """The waiter's."""
        self._sink.remarked(notification)

    def tagged(self, notification: Notification) -> None:
        """The waiter's."""
        self._sink.tagged(notification)

    def fail(self, fault: Fault) -> None:
        """There will be no answer."""
        self._sink.fail(fault)
