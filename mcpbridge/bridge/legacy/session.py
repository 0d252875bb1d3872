"""A legacy conversation: whose it is, its state, and the parts that carry it.

| part | holds |
|---|---|
| `client` | what its client said of itself and wants to hear: `ClientState` |
| `in_flight` | calls without a final answer: `InFlight` |
| `streams` | what goes to the client as events: `ReplayStore` |
| `server_requests` | what the server asks the client: `ServerRequests` |
| `listener` | what the child says that answers no call: `SessionListener` |
| `link` | which child serves it, now and next: `ChildLink` |
| `send_queue` | what waits for the child: `SendQueue` |

Each part knows those above it and none below. A session outlives its child: while it has none,
what its client sends waits in the send queue.

Source: MCP 2025-03-26 to 2025-11-25, Transports, Session Management.
"""

from __future__ import annotations

from mcpbridge.bridge.calls.context import CallContext
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.replay import ReplayStore
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.shared_state import unsubscribe
from mcpbridge.bridge.legacy.client_state import ClientState
from mcpbridge.bridge.legacy.in_flight import InFlight
from mcpbridge.bridge.legacy.send_queue import SendQueue
from mcpbridge.bridge.legacy.server_requests import ServerRequests
from mcpbridge.bridge.legacy.session_child import ChildLink, SessionChild
from mcpbridge.bridge.legacy.session_listener import SessionListener
from mcpbridge.rules.access.principals import ANONYMOUS, Principal
from mcpbridge.rules.faults import Fault, session_closed
from mcpbridge.rules.mcp.initialize import ClientProfile
from mcpbridge.rules.mcp.methods import CANCELLED, INITIALIZED
from mcpbridge.rules.mcp.revisions import Revision
from mcpbridge.rules.supervision.lifecycle import SessionState
from mcpbridge.wire.messages import Notification, Reply, Request


class Session:
    """One client's conversation; owned by the bridge, and ended by it."""

    __slots__ = (
        "_context",
        "client",
        "client_profile",
        "id",
        "in_flight",
        "link",
        "listener",
        "opened_at",
        "owner",
        "send_queue",
        "server_requests",
        "streams",
        "used",
    )

    def __init__(
        self,
        session_id: str,
        client_profile: ClientProfile,
        context: CallContext,
        *,
        owner: Principal = ANONYMOUS,
        one_stream: Stream | None = None,
    ) -> None:
        """Begin a session, OPENING.

        Args:
            session_id: By which its client names it.
            client_profile: What the client said of itself.
            context: What it works with.
            owner: Whose it is; to others it does not exist.
            one_stream: The stream that carries all there is, in the transport of 2024-11-05.
        """
        self._context = context
        self.id, self.owner = session_id, owner
        self.client_profile = client_profile
        self.used = False
        """The client has sent a request after `initialize`."""
        self.opened_at = context.clock()
        self.client = ClientState(
            client_profile, self.opened_at, one_streamed=one_stream is not None
        )
        self.streams = ReplayStore(
            context.window,
            context.meters,
            context.clock,
            resumable=one_stream is None,
            standalone=one_stream,
        )
        self.server_requests = ServerRequests(
            context.questions(),
            client_profile.abilities,
            self.streams.standalone,
            context.meters,
            context.spawn,
            context.question_timeout_s,
        )
        self.in_flight = InFlight(
            session_id, self.client, self.streams, self.server_requests, context, one_stream
        )
        self.listener = SessionListener(
            session_id,
            self.client,
            self.in_flight,
            self.streams,
            self.server_requests,
            context.child_lost,
        )
        self.link = ChildLink(self.listener)
        self.send_queue = SendQueue(self.link, self.client, self.listener, context)

    def __repr__(self) -> str:
        # Its whole id is what names it to HTTP: no log may hold that.
        return (
            f"<Session {self.id[:8]} {self.state.value} calls={len(self.in_flight)}"
            f" questions={len(self.server_requests)} connections={self.streams.open}"
            f" lease={self.lease}>"
        )

    @property
    def state(self) -> SessionState:
        """Where it is in its life."""
        return self.link.state

    @property
    def revision(self) -> Revision:
        """Negotiated; until the child has answered what its client asked for."""
        return self.client.revision

    @property
    def lease(self) -> Lease | None:
        """The child that serves it now; None: there is none at present."""
        return self.listener.lease

    @property
    def last_used(self) -> float:
        """When its client was last heard, or answered, on the event loop's clock."""
        return self.client.last_used

    @property
    def idle_s(self) -> float:
        """How long its client has sent nothing, in seconds."""
        return self._context.clock() - self.client.last_used

    @property
    def one_streamed(self) -> bool:
        """One stream carries answers and everything else: the transport of 2024-11-05."""
        return self.client.one_streamed

    @property
    def listened(self) -> bool:
        """Its client has the standalone stream open."""
        return self.streams.standalone.attached

    @property
    def busy(self) -> bool:
        """A call is in flight, or its client listens."""
        return bool(self.in_flight) or self.listened

    @property
    def holds_own_child(self) -> bool:
        """It has a child for itself, and could be given another."""
        usable = self.link.usable
        return usable is not None and not usable.mux.shared

    def lend(self) -> Lease | None:
        """Do without a child of its own until the next call; returns it, to be released.

        The next one starts when this one has ended.
        """
        return self.link.renew()

    def opened(self, child: SessionChild, revision: Revision, lease: Lease | None = None) -> None:
        """Open the session: requests go to its child from now on.

        Args:
            child: Its way to a child, now and later.
            revision: What was negotiated with its client.
            lease: The child that serves it now; None: the one that it has taken already.
        """
        self.client.negotiated(revision)
        self.link.open(child, lease)

    def renew(self) -> Lease | None:
        """Give its own child back for another one, which starts when the old one has ended.

        It starts at once if its client listens, else with the next call.

        Returns:
            The old one, to be released; None if there is none.
        """
        before = self.lend()
        if before is not None and (self.listened or self.client.subscriptions):
            self.send_queue.seek()
        return before

    def touch(self, now: float) -> None:
        """Count the session as used now."""
        self.client.touch(now)

    def call(self, request: Request, *, streams: bool, stream: Stream | None = None) -> Exchange:
        """Send a request to the child; its exchange gets everything that comes of it.

        Never fails: whatever is wrong is the exchange's final answer.
        """
        self.used = True
        fault = self._context.over_load(self.streams.open if streams else 0)
        exchange = self.in_flight.begin(request, streams=streams, stream=stream)
        if fault is not None:
            exchange.fail(fault)
        elif exchange.reply is None:
            self.send_queue.call(exchange)
        return exchange

    def tell(self, notification: Notification) -> None:
        """Send a notification to the child, or do what it says if that is the bridge's."""
        self.client.touch(self._context.clock())
        if notification.method == CANCELLED:
            self.in_flight.cancel(notification)
        elif notification.method == INITIALIZED and self.client.initialized:
            self._context.meters.count("repeated_initialized")
        else:
            if notification.method == INITIALIZED:
                self.client.has_initialized()
            self.send_queue.tell(notification)

    def answer(self, reply: Reply) -> None:
        """Give the child the client's answer to a question of its; an unasked one is dropped."""
        now = self._context.clock()
        self.client.touch(now)
        self.in_flight.touch(now)
        self.server_requests.answer(reply)

    def abandon(self, exchange: Exchange, fault: Fault) -> None:
        """End a call early: the child is told, the client gets the fault."""
        self.in_flight.abandon(exchange, fault)

    def close(self, fault: Fault | None = None) -> Lease | None:
        """End the session: calls in flight get their error, streams end.

        Returns:
            The lease it held, for the bridge to release.
        """
        # In this order: nothing finds a child any more, then calls are told, and the streams that
        # tell them end last.
        legacy = self.link.adapter is None
        lease = self.link.close()
        self.in_flight.abandon_all(fault or session_closed())
        self.send_queue.close()
        self.streams.close()
        if legacy and lease is not None and lease.mux.shared and not self._context.drain.ending:
            self._unsubscribe(lease)
        return lease

    def _unsubscribe(self, lease: Lease) -> None:
        """Take back on a shared child what no other client of it wants."""
        unwanted = set(self.client.subscriptions)
        for other in self._context.subscribers():
            if other is not self.listener:
                unwanted -= other.wanted
        if unwanted:
            self._context.spawn(unsubscribe, lease.mux, sorted(unwanted))
