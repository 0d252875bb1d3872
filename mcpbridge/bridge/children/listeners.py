"""What a mux calls: the sink of one request, the listeners of a child, the interceptors."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import msgspec

from mcpbridge.rules.faults import Fault
from mcpbridge.rules.mcp.correlator import Answered, Progressed, Tagged, Withdrawn
from mcpbridge.wire.messages import Message, Notification, Request


class Logged(msgspec.Struct, frozen=True):
    """A log message that came while this call was the only one in flight."""

    notification: Notification


class CallFailed(msgspec.Struct, frozen=True):
    """The end of a call that the child will not answer."""

    fault: Fault


CallEvent: TypeAlias = Answered[Any] | Progressed[Any] | Tagged[Any] | Logged | CallFailed
"""An event of one request; exactly one `Answered` or `CallFailed` comes, and it is the last."""


class Asker(msgspec.Struct, frozen=True):
    """Who sent a request, for people who look at what passes."""

    client: str
    """The client as it named itself; empty if it did not."""
    id: bytes
    """The client's own id of the request."""


class CallSink(Protocol):
    """A receiver of the events of one request."""

    @property
    def lasting(self) -> bool:
        """Whether it is a subscription, not a call: its client decides when it ends."""

    @property
    def caller(self) -> bytes:
        """The client, by its `Principal.share_key`; empty for a request of the bridge itself."""

    @property
    def asker(self) -> Asker | None:
        """The client's name and the id of its request; None for a request of the bridge itself."""

    def receive(self, event: CallEvent) -> None:
        """Take the next event; its ids and tokens are those that the request's sender chose."""


class ChildListener(Protocol):
    """A receiver of a child's messages that belong to no request; holds a lease on the child."""

    def on_notification(self, notification: Notification) -> None:
        """Take a notification of the child."""

    def on_server_request(self, request: Request) -> None:
        """Take a request of the child to its client; not called for a shared child."""

    def on_server_request_cancelled(self, withdrawal: Withdrawn) -> None:
        """Take back a request of the child: it does not wait for the answer any more."""

    def on_child_exit(self) -> None:
        """Take note that the child is gone; the calls in flight have failed already."""


class Interceptor:
    """A step that each request to a child passes; this one changes nothing."""

    def outbound(
        self, request: Request, sink: CallSink, number: int, *, own: bool
    ) -> tuple[Request, CallSink]:
        """Return the request to send instead, and the sink that receives its events.

        Args:
            request: The request, as the interceptor before this one left it.
            sink: Receives the events.
            number: The id that the request will have on the pipe.
            own: Whether it is a request of the bridge itself.

        Raises:
            WireError: The request must not be sent.
        """
        return request, sink

    def drops(self, message: Message) -> bool:
        """Return whether a notification or an answer must not be sent."""
        return False

    def forgotten(self, sink: CallSink) -> None:
        """Take note that the answer for `sink` is not wanted any more."""
