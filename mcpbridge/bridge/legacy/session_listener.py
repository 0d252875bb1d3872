"""What a session hears from its child that answers none of its calls.

Whatever the child says is put on a stream of the session, or dropped if it concerns other
sessions on the same child. A session outlives its child: the listener is attached to one child
after another, and to none in between.

Source: MCP 2025-11-25, Transports, Listening for Messages from the Server; Logging; Resources.
"""

from __future__ import annotations

from collections.abc import Callable

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.replay import ReplayStore
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.shared_state import text_member
from mcpbridge.bridge.legacy.client_state import ClientState
from mcpbridge.bridge.legacy.in_flight import InFlight
from mcpbridge.bridge.legacy.server_requests import ServerRequests
from mcpbridge.rules.mcp.correlator import Withdrawn
from mcpbridge.rules.mcp.methods import LOG_MESSAGE, RESOURCE_UPDATED, coalescing_key
from mcpbridge.rules.mcp.revisions import Era
from mcpbridge.wire.messages import Notification, Request, encode


class SessionListener:
    """The `ChildListener` of one session, and its `Subscriber`; owned by the session."""

    __slots__ = (
        "_child_lost",
        "_client",
        "_in_flight",
        "_server_requests",
        "_session_id",
        "_streams",
        "lease",
    )

    def __init__(
        self,
        session_id: str,
        client: ClientState,
        in_flight: InFlight,
        streams: ReplayStore,
        server_requests: ServerRequests,
        child_lost: Callable[[str], None],
    ) -> None:
        """Make a listener that is attached to no child.

        Args:
            session_id: What `child_lost` is told.
            client: What its client wants to hear.
            in_flight: The calls during which the child speaks.
            streams: Take what the child says.
            server_requests: Take what the child asks.
            child_lost: Called when the child has ended by itself.
        """
        self._session_id = session_id
        self._client = client
        self._in_flight = in_flight
        self._streams = streams
        self._server_requests = server_requests
        self._child_lost = child_lost
        self.lease: Lease | None = None

    @property
    def level(self) -> str | None:
        """The level of logs that the client wants: see `Subscriber`."""
        return self._client.level

    @property
    def subscriptions(self) -> set[str]:
        """Subscriptions granted: see `Subscriber`."""
        return self._client.subscriptions

    @property
    def wanted(self) -> set[str]:
        """Subscriptions granted or asked for: see `Subscriber`."""
        return self._client.wanted

    @property
    def shares(self) -> bool:
        """The child serves other sessions too."""
        return self.lease is not None and self.lease.mux.shared

    def take(self, lease: Lease) -> None:
        """Use this child from now on: see `Subscriber`."""
        self.rest()
        self.lease = lease
        lease.mux.attach(self)

    def rest(self) -> Lease | None:
        """Leave the child; returns the lease on it, if there was one."""
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.mux.detach(self)
        return lease

    def on_notification(self, notification: Notification) -> None:
        """Pass on what belongs to no request: see `ChildListener`."""
        uri = None
        if notification.method == RESOURCE_UPDATED:
            uri = text_member(notification.params, "uri")
            if self.shares and not self._client.subscribes(uri):
                return
        payload = encode(notification)
        log_message = notification.method == LOG_MESSAGE
        aside = self._only_call() if log_message and self._client.takes_logs else None
        if aside is not None and not self._streams.standalone.attached:
            aside.tell(payload, sheddable=True)
        else:
            self._streams.tell(payload, key=coalescing_key(notification.method, uri))

    def on_server_request(self, request: Request) -> None:
        """Ask the client: see `ChildListener`."""
        # The answer goes to the child that asked, not to the one that has taken over by then.
        if self.lease is not None:
            calls = [exchange for exchange in self._in_flight if exchange.streams]
            self._server_requests.ask(request, self.lease.mux, calls)

    def on_server_request_cancelled(self, withdrawal: Withdrawn) -> None:
        """Take a question of the child back: see `ChildListener`."""
        self._server_requests.withdraw(withdrawal)

    def on_child_exit(self) -> None:
        """Forget what the child asked, and say that it is gone: see `ChildListener`."""
        lease = self.lease
        if lease is None or _keeps_nothing(lease):
            return
        self._server_requests.child_lost()
        self._child_lost(self._session_id)

    def _only_call(self) -> Exchange | None:
        """The one call in flight, if what the child says now can reach its client there."""
        if len(self._in_flight) != 1:
            return None
        (exchange,) = self._in_flight
        return exchange if exchange.streams else None


def _keeps_nothing(lease: Lease) -> bool:
    # A child of 2026-07-28 has no sessions: the next one takes the answer to what this one asked.
    return lease.profile is not None and lease.profile.revision.era is Era.MODERN
