"""Announces in the handshake that the server's lists may change, since a reload changes them.

Many servers announce no changes, because their own lists never change while they run. Their clients
may ignore the notification that a reload sends, or refuse it. Only used where reloads are.
"""

from __future__ import annotations

from mcpbridge.bridge.children.listeners import Asker, CallEvent, CallSink, Interceptor
from mcpbridge.errors import WireError
from mcpbridge.rules.mcp.correlator import Answered
from mcpbridge.rules.mcp.initialize import with_changing_lists
from mcpbridge.rules.mcp.methods import DISCOVER, INITIALIZE
from mcpbridge.wire.messages import Request, Result

_HANDSHAKES = (INITIALIZE, DISCOVER)


class ListsAnnounced(Interceptor):
    """An interceptor that changes the answers to `initialize` and `server/discover`."""

    def outbound(
        self, request: Request, sink: CallSink, number: int, *, own: bool
    ) -> tuple[Request, CallSink]:
        """Change the answer to a handshake, let all else pass: see `Interceptor`."""
        return request, _Introduced(sink) if request.method in _HANDSHAKES else sink


class _Introduced:
    """A sink that adds `listChanged` to the capabilities in an answer."""

    lasting = False

    def __init__(self, sink: CallSink) -> None:
        self._sink = sink

    @property
    def caller(self) -> bytes:
        """The client of the wrapped sink."""
        return self._sink.caller

    @property
    def asker(self) -> Asker | None:
        """The sender of the wrapped sink's request."""
        return self._sink.asker

    def receive(self, event: CallEvent) -> None:
        """Pass every event on."""
        if isinstance(event, Answered) and isinstance(event.reply, Result):
            reply = event.reply
            try:
                result = with_changing_lists(reply.result)
            except WireError:
                # The reader of the answer finds the same fault and reports it.
                result = reply.result
            event = Answered(event.owner, Result(reply.id, result, reply.extra), event.number)
        self._sink.receive(event)
