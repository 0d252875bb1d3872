"""The policy on tools, applied at the mux, through which every request to a child passes.

A session, a batch, an emulated call and a request of the bridge's own all end in `Mux.request`, and
the answer to `tools/list` comes back through the sink that was passed there. So no route can be
forgotten. Without a policy a mux has no such interceptor.
"""

from __future__ import annotations

from mcpbridge.bridge.children.listeners import Asker, CallEvent, CallFailed, CallSink, Interceptor
from mcpbridge.errors import ToolDenied, WireError
from mcpbridge.rules.access.tool_policy import TOOLS_CALL, TOOLS_LIST, ToolPolicy
from mcpbridge.rules.faults import bad_child_message
from mcpbridge.rules.mcp.correlator import Answered
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Message, Notification, Request, Result


class ToolFilter(Interceptor):
    """An interceptor that applies the policy on tools; exists only if there is a policy."""

    def __init__(self, policy: ToolPolicy, meters: Meters) -> None:
        self._policy = policy
        self._meters = meters

    def check(self, request: Request) -> None:
        """Refuse a call of a denied tool; let every other request pass.

        Raises:
            WireError: The tool is denied, or the method or tool can be read in two ways.
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
        """Check a call; filter the answer to `tools/list`: see `Interceptor`."""
        self.check(request)
        return request, _Listed(sink, self._policy) if request.method == TOOLS_LIST else sink

    def drops(self, message: Message) -> bool:
        """Return whether a notification has the method of a request: see `Interceptor`."""
        # Some servers carry out a `tools/call` without an id.
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
    """A sink that removes denied tools from the answer to `tools/list`."""

    lasting = False

    def __init__(self, sink: CallSink, policy: ToolPolicy) -> None:
        self._sink = sink
        self._policy = policy

    @property
    def caller(self) -> bytes:
        """The client of the wrapped sink."""
        return self._sink.caller

    @property
    def asker(self) -> Asker | None:
        """The sender of the wrapped sink's request."""
        return self._sink.asker

    def receive(self, event: CallEvent) -> None:
        """Pass every event on, a list without its denied tools."""
        if isinstance(event, Answered) and isinstance(event.reply, Result):
            reply = event.reply
            try:
                shown = Result(reply.id, self._policy.listed(reply.result), reply.extra)
            except WireError:
                event = CallFailed(bad_child_message())
            else:
                event = Answered(event.owner, shown, event.number)
        self._sink.receive(event)
