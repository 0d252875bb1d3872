"""The listener of a session: takes messages of the child that belong to none of its calls.

A message is put on a stream of the session, or dropped if it concerns other sessions on the same
child. A session outlives its child: the listener is attached to one child after another, and to
none in between.

Source: MCP 2025-11-25, Transports, Listening for Messages from the Server; Logging; Resources.
"""

from __future__ import annotations

from collections.abc import Callable

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.replay import ReplayStore
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.listeners import ChildListener
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.bridge.children.shared_state import updated_uri
from mcpbridge.bridge.legacy.client_state import ClientState
from mcpbridge.bridge.legacy.in_flight import InFlight
from mcpbridge.bridge.legacy.server_requests import ServerRequests
from mcpbridge.rules.mcp.correlator import Withdrawn
from mcpbridge.rules.mcp.methods import (
    LIST_CHANGED,
    LOG_MESSAGE,
    RESOURCE_UPDATED,
    coalescing_key,
)
from mcpbridge.rules.mcp.revisions import Era
from mcpbridge.rules.uri_set import UriSet
from mcpbridge.wire.messages import Notification, Request, encode_for_stream


class SessionListener:
    """A `ChildListener` and `Subscriber` for one session; owned by the session."""

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
            session_id: Passed to `child_lost`.
            client: The client's log level and subscriptions.
            in_flight: The session's calls.
            streams: Take the child's notifications.
            server_requests: Take the child's requests.
            child_lost: Called with the session's id when the child has ended by itself.
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
        """The log level that the client asked for: see `Subscriber`."""
        return self._client.level

    @property
    def subscriptions(self) -> UriSet:
        """URIs of granted subscriptions: see `Subscriber`."""
        return self._client.subscriptions

    def wants(self, uri: str) -> bool:
        """Return whether a subscription was granted or is asked for: see `Subscriber`."""
        return self._client.wants(uri)

    @property
    def shares(self) -> bool:
        """Whether the child may serve other sessions too; False if there is no child."""
        return self.lease is not None and self.lease.mux.shared

    def take(self, lease: Lease) -> None:
        """Use this child from now on: see `Subscriber`."""
        self.rest()
        self.lease = lease
        lease.mux.attach(self)

    def rest(self) -> Lease | None:
        """Leave the child; return the lease on it, None if there was none."""
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.mux.detach(self)
        return lease

    def beside(self, lease: Lease) -> ChildListener:
        """Attach a listener to a child of the session that does not serve now; return it."""
        listener = _BesideListener(self, lease.mux)
        lease.mux.attach(listener)
        return listener

    def hand_over(self, lease: Lease) -> None:
        """Use this child from now on; the one before is listened to until it ends."""
        before = self.lease
        self.take(lease)
        # In the same turn of the loop: what the child before sends in between would reach no one.
        if before is not None:
            self.beside(before)

    def on_notification(self, notification: Notification) -> None:
        """Put a notification on a stream, if it concerns the client: see `ChildListener`."""
        uri = None
        if notification.method == RESOURCE_UPDATED:
            uri = updated_uri(notification.params)
            # An own child knows its client's subscriptions itself, and may send updates of related
            # resources.
            if self.shares and not self._client.subscribes(uri):
                return
        payload = encode_for_stream(notification)
        log_message = notification.method == LOG_MESSAGE
        aside = self._only_call() if log_message and self._client.takes_logs else None
        if aside is not None and not self._streams.standalone.attached:
            aside.tell(payload, sheddable=True)
        else:
            self._streams.tell(payload, key=coalescing_key(notification.method, uri))

    def on_server_request(self, request: Request) -> None:
        """Pass a request on to the client: see `ChildListener`."""
        if self.lease is not None:
            self.ask(request, self.lease.mux)

    def ask(self, request: Request, mux: Mux) -> None:
        """Pass a request of this child on to the client.

        The answer goes to the same child, even if another one has taken over by then.
        """
        calls = [exchange for exchange in self._in_flight if exchange.streams]
        self._server_requests.ask(request, mux, calls)

    def on_server_request_cancelled(self, withdrawal: Withdrawn) -> None:
        """Take back a request of the child: see `ChildListener`."""
        if self.lease is not None:
            self.withdraw(withdrawal, self.lease.mux)

    def withdraw(self, withdrawal: Withdrawn, mux: Mux) -> None:
        """Take back a request of this child."""
        self._server_requests.withdraw(withdrawal, mux)

    def beside_lost(self, mux: Mux) -> None:
        """Take back the requests of a child that did not serve any more, or not yet."""
        self._server_requests.child_lost(mux)

    def on_child_exit(self) -> None:
        """Take back the child's requests and report its end: see `ChildListener`."""
        lease = self.lease
        if lease is None or _keeps_nothing(lease):
            return
        # A child that rests was ended because no client needs it: its end does not concern the
        # session.
        self._server_requests.child_lost(lease.mux)
        if not lease.rested:
            self._child_lost(self._session_id)

    def _only_call(self) -> Exchange | None:
        """Return the only call in flight, if its client reads a stream; else None."""
        if len(self._in_flight) != 1:
            return None
        (exchange,) = self._in_flight
        return exchange if exchange.streams else None


class _BesideListener:
    """A `ChildListener` for a child beside the one that serves: the next, or the one before.

    The one before has calls of the session to finish, the next one is in its handshake. Both may
    send requests to the client.
    """

    def __init__(self, session_listener: SessionListener, mux: Mux) -> None:
        self._session_listener = session_listener
        self._mux = mux

    def on_notification(self, notification: Notification) -> None:
        """Pass a notification on, but not a changed list: the lists are those of another child."""
        if notification.method not in LIST_CHANGED.values():
            self._session_listener.on_notification(notification)

    def on_server_request(self, request: Request) -> None:
        """Pass a request on to the client."""
        self._session_listener.ask(request, self._mux)

    def on_server_request_cancelled(self, withdrawal: Withdrawn) -> None:
        """Take back a request of the child."""
        self._session_listener.withdraw(withdrawal, self._mux)

    def on_child_exit(self) -> None:
        """Take back the child's requests; its end does not concern the session."""
        self._session_listener.beside_lost(self._mux)


def _keeps_nothing(lease: Lease) -> bool:
    # A child of 2026-07-28 keeps no session: the next one can take the answer to its request.
    return lease.profile is not None and lease.profile.revision.era is Era.MODERN
