"""What a multiplexer talks to: the sink of one call, the listener of a child, and interceptors."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import msgspec

from mcpbridge.rules.faults import Fault
from mcpbridge.rules.mcp.correlator import Answered, Progressed, Tagged, Withdrawn
from mcpbridge.wire.messages import Message, Notification, Request


class Logged(msgspec.Struct, frozen=True):
    """A log message that can only be about this call."""

    notification: Notification


class CallFailed(msgspec.Struct, frozen=True):
    """The child will not answer this call."""

    fault: Fault


CallEvent: TypeAlias = Answered[Any] | Progressed[Any] | Tagged[Any] | Logged | CallFailed
"""Everything that comes of one request; `Answered` or `CallFailed` come once, and last."""


class CallSink(Protocol):
    """Receives what comes of one request."""

    @property
    def lasting(self) -> bool:
        """It is a subscription: in flight as long as its client likes, and no call."""

    def receive(self, event: CallEvent) -> None:
        """Take the next event; ids and tokens in it are the sender's own."""


class ChildListener(Protocol):
    """Receives what a child says that belongs to no request; holds a lease on the child."""

    def on_notification(self, notification: Notification) -> None:
        """The child sent a notification."""

    def on_server_request(self, request: Request) -> None:
        """The child asks its client; only a child of one session alone does."""

    def on_server_request_cancelled(self, withdrawal: Withdrawn) -> None:
        """The child does not wait for the answer to its request any more."""

    def on_child_exit(self) -> None:
        """The child is gone; the sinks of calls in flight have been told."""


class Interceptor:
    """Sees every request on its way to a child; this one lets all pass unchanged."""

    def outbound(
        self, request: Request, sink: CallSink, number: int, *, own: bool
    ) -> tuple[Request, CallSink]:
        """Return what is sent instead, and who receives what comes of it.

        Args:
            request: As the interceptor before this one left it.
            sink: Receives the events.
            number: The request's id on the pipe.
            own: The bridge asks for itself.

        Raises:
            WireError: The request must not be sent.
        """
        return request, sink

    def drops(self, message: Message) -> bool:
        """Return whether a notification or an answer must not be sent."""
        return False

    def forgotten(self, sink: CallSink) -> None:
        """The answer that `sink` waits for is not wanted any more."""
