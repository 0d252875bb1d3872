"""Requests of legacy clients that name no session: the shared child serves them.

Each stands for itself. Many clients may send the same id at once, so a call is known by nothing
that its client chose: it cannot be cancelled, nothing is asked in it, and what the child says to
all has no stream here to go to. Those of a connection of HTTP+SSE are answered on its stream.
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
from mcpbridge.rules.faults import Fault, nobody_to_ask
from mcpbridge.rules.mcp.correlator import Withdrawn
from mcpbridge.rules.mcp.methods import CANCELLED, INITIALIZED, SHARED_VERBS
from mcpbridge.rules.mcp.revisions import Revision
from mcpbridge.rules.supervision.lifecycle import SessionState
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Failure, Notification, Reply, Request, Result


class SessionlessCalls:
    """The calls of one tenant outside of sessions, and their `Scope`; owned by the tenant."""

    outside = True

    def __init__(self, context: CallContext) -> None:
        """Begin with no call in flight and no child; see `opened`."""
        self._context = context
        self.client = ClientState(None, context.clock())
        """All of these clients as one, since they share what the child knows of its client."""
        self.streams = ReplayStore(context.window, context.meters, context.clock, resumable=False)
        self.server_requests = Unasked(context.meters)
        self.in_flight: set[Exchange] = set()
        self.listener = SharedChildListener(self.client)
        self.link = ChildLink(self.listener)
        self._send_queue = SendQueue(self.link, self.client, self.listener, context)

    @property
    def revision(self) -> Revision:
        """What clients go by that negotiate nothing."""
        return self.client.revision

    def opened(self, child: SessionChild) -> None:
        """Let calls go to this child from now on, if they do not yet."""
        if self.link.state is SessionState.OPENING:
            self.link.open(child)

    def call(self, request: Request, *, streams: bool, stream: Stream | None = None) -> Exchange:
        """Send a request to the child: see `Session.call`."""
        context = self._context
        fault = context.over_load(self.streams.open if streams else 0)
        now = context.clock()
        request, span = context.call_log.began(request, self.revision.date, None)
        exchange = Exchange(request, self, now, streams=streams, stream=stream, span=span)
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
        """Drop an answer: nothing is asked outside of sessions."""
        self._context.meters.count("unasked_answer")

    def abandon(self, exchange: Exchange, fault: Fault) -> None:
        """End a call early: the child is told, the client gets the fault."""
        exchange.abandon(fault)

    def close(self, fault: Fault) -> None:
        """End every call; the child is the tenant's to end."""
        self.link.close()
        for exchange in list(self.in_flight):
            exchange.abandon(fault)
        self._send_queue.close()

    def begin_stream(self) -> Stream:
        """Return a stream for one exchange: see `Scope`."""
        return self.streams.begin(answers_due=1)

    def ended(self, exchange: Exchange) -> None:
        """Let go of an exchange that has its answer: see `Scope`."""
        context, request = self._context, exchange.request
        self.in_flight.discard(exchange)
        context.call_log.ended(exchange, context.clock())
        context.drain.call_finished()
        if request.method in SHARED_VERBS:
            self.client.settle(request, granted=isinstance(exchange.reply, Result))

    def on_notification(self, notification: Notification) -> None:
        """Drop what comes after the answer: its client reads no other stream; see `Scope`."""

    def admits(self, notification: Notification) -> bool:
        """Return whether a client wants a log message: see `Scope`."""
        return self.client.admits(notification)


class SharedChildListener:
    """The `Subscriber` for calls without a session: what it hears goes to no client."""

    def __init__(self, client: ClientState) -> None:
        """Make a listener that is attached to no child.

        Args:
            client: What was asked for without a session.
        """
        self._client = client
        self.lease: Lease | None = None

    @property
    def level(self) -> str | None:
        """The level of logs that was asked for: see `Subscriber`."""
        return self._client.level

    @property
    def subscriptions(self) -> set[str]:
        """Subscriptions granted: see `Subscriber`."""
        return self._client.subscriptions

    @property
    def wanted(self) -> set[str]:
        """Subscriptions granted or asked for: see `Subscriber`."""
        return self._client.wanted

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
        """Drop it: see `ChildListener`."""

    def on_server_request(self, request: Request) -> None:
        """A shared child's requests are declined by its `Mux`."""

    def on_server_request_cancelled(self, withdrawal: Withdrawn) -> None:
        """A shared child's requests are declined by its `Mux`."""

    def on_child_exit(self) -> None:
        """The tenant gives the next child to all that share it: see `ChildListener`."""


class Unasked:
    """Declines what a server asks during a call without a session."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    def inquire(self, request: Request, asker: ServerRequestSender, exchange: Exchange) -> None:
        """Decline a question; see `CallQuestions`."""
        self._meters.count("declined_question")
        asker.send(Failure(request.id, nobody_to_ask().error()))

    def call_over(self, exchange: Exchange) -> None:
        """Nothing was asked."""
