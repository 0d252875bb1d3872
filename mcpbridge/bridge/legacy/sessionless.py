"""Requests of legacy clients without a session: the shared child serves them.

Each stands alone. Many clients may use the same id at once, so the id does not identify a call: it
cannot be cancelled, and the server can ask nothing during it. Notifications that belong to no
request have no stream to go to. Calls of an HTTP+SSE connection are answered on its stream.
"""

from __future__ import annotations

from mcpbridge.bridge.calls.context import CallContext
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.replay import ReplayStore
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.legacy.client_state import ClientState
from mcpbridge.bridge.legacy.send_queue import SendQueue
from mcpbridge.bridge.legacy.server_requests import ServerRequestSender
from mcpbridge.bridge.legacy.session_child import ChildLink, SessionChild
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.faults import Fault, client_cannot_answer
from mcpbridge.rules.mcp.correlator import Withdrawn
from mcpbridge.rules.mcp.methods import CANCELLED, INITIALIZED, SHARED_VERBS
from mcpbridge.rules.mcp.revisions import Revision
from mcpbridge.rules.supervision.lifecycle import SessionState
from mcpbridge.rules.uri_set import UriSet
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Failure, Notification, Reply, Request, Result


class SessionlessCalls:
    """The calls of one tenant without a session, and their `Scope`; owned by the tenant."""

    outside = True
    client_name = ""
    """Such clients do not name themselves: see `Scope`."""

    def __init__(self, context: CallContext) -> None:
        """Make an object without calls; they wait until `opened` names a child."""
        self._context = context
        self.account = Account(context.account)
        self.client = ClientState(None, context.clock(), account=self.account)
        """The state of all these clients together: they share one log level and subscriptions."""
        self.streams = ReplayStore(
            context.window,
            context.meters,
            context.clock,
            resumable=False,
            charge=self.account.charge,
        )
        self.server_requests = Unasked(context.meters)
        self.in_flight: set[Exchange] = set()
        self.listener = SharedChildListener(self.client)
        self.link = ChildLink(self.listener)
        self._send_queue = SendQueue(self.link, self.client, self.listener, context, self.account)

    @property
    def revision(self) -> Revision:
        """The revision of clients that negotiate none."""
        return self.client.revision

    def opened(self, child: SessionChild) -> None:
        """Send calls to this child from now on; no effect if one was named before."""
        if self.link.state is SessionState.OPENING:
            self.link.open(child)

    def call(
        self,
        request: Request,
        *,
        streams: bool,
        stream: Stream | None = None,
        caller: bytes = b"",
    ) -> Exchange:
        """Send a request to the child and return its exchange: see `Session.call`."""
        context = self._context
        fault = context.over_load(caller, self.streams.open if streams else 0)
        now = context.clock()
        request, span = context.call_log.began(request, self.revision.date, None)
        exchange = Exchange(request, self, now, streams, stream, span, (), caller)
        # Counted before it can fail: `ended` counts every call as finished.
        self.in_flight.add(exchange)
        context.drain.call_started()
        if fault is not None:
            exchange.fail(fault)
        else:
            self._send_queue.call(exchange)
        return exchange

    def tell(self, notification: Notification) -> None:
        """Send a notification to the child, unless it is about a session or a call of one."""
        if notification.method == CANCELLED:
            # The id could be that of another client's call.
            self._context.meters.count("cancel_of_unknown")
        elif notification.method != INITIALIZED:
            self._send_queue.tell(notification)

    def answer(self, reply: Reply) -> None:
        """Drop an answer: a server request needs a session."""
        self._context.meters.count("unasked_answer")

    def abandon(self, exchange: Exchange, fault: Fault) -> None:
        """End a call early: cancel it at the child, answer the client with the fault."""
        exchange.abandon(fault)

    def close(self, fault: Fault) -> None:
        """End every call; the tenant ends the child."""
        # In this order, as in `Session.close`: no call may find a child while the others fail.
        self.link.close()
        for exchange in list(self.in_flight):
            exchange.abandon(fault)
        self._send_queue.close()

    def begin_stream(self, call_id: bytes) -> Stream:
        """Return a new stream for one exchange: see `Scope`."""
        return self.streams.begin(1, call_id)

    def ended(self, exchange: Exchange) -> None:
        """Remove an exchange that has its final answer, and record it: see `Scope`."""
        context, request = self._context, exchange.request
        self.in_flight.discard(exchange)
        context.call_log.ended(exchange, context.clock())
        context.drain.call_finished()
        if request.method in SHARED_VERBS:
            self.client.settle(request, granted=isinstance(exchange.reply, Result))

    def on_notification(self, notification: Notification) -> None:
        """Drop a notification after the answer: the client reads no other stream."""

    def admits(self, notification: Notification) -> bool:
        """Return whether a client wants this log message: see `Scope`."""
        return self.client.admits(notification)


class SharedChildListener:
    """A `Subscriber` for calls without a session, which drops the child's notifications."""

    def __init__(self, client: ClientState) -> None:
        """Make a listener that is attached to no child.

        Args:
            client: The state that requests without a session have set.
        """
        self._client = client
        self.lease: Lease | None = None

    @property
    def level(self) -> str | None:
        """The log level that was asked for: see `Subscriber`."""
        return self._client.level

    @property
    def subscriptions(self) -> UriSet:
        """URIs of granted subscriptions: see `Subscriber`."""
        return self._client.subscriptions

    def wants(self, uri: str) -> bool:
        """Return whether a subscription was granted or is asked for: see `Subscriber`."""
        return self._client.wants(uri)

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

    def on_notification(self, notification: Notification) -> None:
        """Drop a notification: no stream could carry it."""

    def on_server_request(self, request: Request) -> None:
        """Do nothing: the mux declines a shared child's requests."""

    def on_server_request_cancelled(self, withdrawal: Withdrawn) -> None:
        """Do nothing: the mux declines a shared child's requests."""

    def on_child_exit(self) -> None:
        """Do nothing: the tenant gives the next child to all subscribers."""


class Unasked:
    """A `CallServerRequests` that declines each server request of a call without a session."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    def ask_for_call(
        self, request: Request, asker: ServerRequestSender, exchange: Exchange
    ) -> None:
        """Decline a server request: see `CallServerRequests`."""
        self._meters.count("declined_question")
        asker.send(Failure(request.id, client_cannot_answer().error()))

    def call_over(self, exchange: Exchange) -> None:
        """Do nothing: none was sent."""
