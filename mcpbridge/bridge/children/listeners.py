"""What a multiplexer tells: the sink of one call, and the listener of one child."""

from __future__ import annotations

from typing import Protocol

from mcpbridge.rules.faults import (
    Fault,
)
from mcpbridge.rules.mcp.correlator import (
    Withdrawn,
)
from mcpbridge.wire.messages import Notification, Reply, Request


class CallSink(Protocol):
    """Whoever waits for the answer to one request."""

    @property
    def lasting(self) -> bool:
        """It is a subscription: in flight as long as its client likes, and no call."""

    def progressed(self, notification: Notification) -> None:
        """Progress, with the waiter's own token."""

    def answered(self, reply: Reply) -> None:
        """The final answer, with the waiter's own id; called once at most."""

    def remarked(self, notification: Notification) -> None:
        """A log message that can only be about this request."""

    def tagged(self, notification: Notification) -> None:
        """Something for the subscription that this request opened."""

    def fail(self, fault: Fault) -> None:
        """There will be no answer of the child."""


class ChildListener(Protocol):
    """Whoever holds a lease on the child: a session."""

    def told(self, notification: Notification) -> None:
        """The child says something that belongs to no request."""

    def asked(self, request: Request) -> None:
        """The child asks its client; only a child of the tenant's own does."""

    def withdrawn(self, withdrawal: Withdrawn) -> None:
        """The child takes a question back."""

    def lost(self) -> None:
        """The child is gone; what was in flight has been told."""
