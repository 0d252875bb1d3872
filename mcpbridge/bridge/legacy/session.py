"""A session of a legacy client: its owner, its state, and its parts.

| part | holds |
|---|---|
| `client` | the client's profile, revision, log level and subscriptions: `ClientState` |
| `in_flight` | calls without a final answer: `InFlight` |
| `streams` | event streams to the client: `ReplayStore` |
| `server_requests` | requests of the server to the client: `ServerRequests` |
| `listener` | takes the child's messages that belong to no call: `SessionListener` |
| `link` | the child that serves it, now and next: `ChildLink` |
| `send_queue` | messages that wait for the child: `SendQueue` |

Each part knows those above it and none below. A session outlives its child: while it has none, the
client's messages wait in the send queue.

Source: MCP 2025-03-26 to 2025-11-25, Transports, Session Management.
"""

from __future__ import annotations

import functools

import msgspec

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
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.faults import Fault, session_closed
from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.rules.mcp.initialize import ClientProfile
from mcpbridge.rules.mcp.methods import CANCELLED, INITIALIZED
from mcpbridge.rules.mcp.revisions import Revision
from mcpbridge.rules.supervision.lifecycle import SessionState
from mcpbridge.wire.messages import Notification, Reply, Request

_STATE_BYTES = 1 << 14
"""Counted for a session's objects, in addition to what it keeps of its client's."""

_ANSWERS_BYTES = 1 << 20
"""Most bytes of finished streams that go to another replica with a session."""


class Session:
    """A session of one legacy client; owned by the bridge, and ended by it."""

    __slots__ = (
        "_context",
        "_state_bytes",
        "account",
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
        revived: bool = False,
    ) -> None:
        """Make a session in state OPENING.

        Args:
            session_id: The id in its client's `Mcp-Session-Id` header.
            client_profile: What the client said in `initialize`.
            context: What sessions of the tenant share.
            owner: The principal that may use it; for others it does not exist.
            one_stream: The stream for all messages, in the transport of 2024-11-05; else None.
            revived: Whether another replica had it before.
        """
        self._context = context
        self.id, self.owner = session_id, owner
        self.account = Account(context.account)
        """What is kept for it, without the one stream of 2024-11-05, which is its connection's."""
        self._state_bytes = _STATE_BYTES + len(client_profile.params)
        self.account.charge(self._state_bytes)
        self.client_profile = client_profile
        self.used = False
        """Whether the client has sent a request after `initialize`."""
        self.opened_at = context.clock()
        changed = context.session_changed if one_stream is None else None
        self.client = ClientState(
            client_profile,
            self.opened_at,
            one_streamed=one_stream is not None,
            account=self.account,
            changed=functools.partial(changed, session_id) if changed is not None else None,
        )
        self.streams = _streams(context, one_stream, self.account, revived=revived)
        self.server_requests = _server_requests(context, client_profile, self.streams.standalone)
        self.in_flight = InFlight(
            session_id,
            self.client,
            self.streams,
            self.server_requests,
            context,
            one_stream,
            self.account,
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
        self.send_queue = SendQueue(self.link, self.client, self.listener, context, self.account)

    def __repr__(self) -> str:
        # The whole id would let a reader of the log use the session.
        return (
            f"<Session {self.id[:8]} {self.state.value} calls={len(self.in_flight)}"
            f" questions={len(self.server_requests)} connections={self.streams.open}"
            f" lease={self.lease}>"
        )

    @property
    def state(self) -> SessionState:
        """The state, one of `rules.supervision.lifecycle.SESSION`."""
        return self.link.state

    @property
    def revision(self) -> Revision:
        """The negotiated revision; before that, the one expected after the client's request."""
        return self.client.revision

    @property
    def lease(self) -> Lease | None:
        """The child that serves it now; None if it has no child at present."""
        return self.listener.lease

    @property
    def last_used(self) -> float:
        """The event loop's time when its client last sent something or got an answer."""
        return self.client.last_used

    @property
    def idle_s(self) -> float:
        """Seconds since its client last sent something or got an answer."""
        return self._context.clock() - self.client.last_used

    @property
    def one_streamed(self) -> bool:
        """Whether one stream carries all messages: the transport of 2024-11-05."""
        return self.client.one_streamed

    @property
    def held(self) -> int:
        """Bytes kept for it."""
        return self.account.held + (self.streams.standalone.log.held if self.one_streamed else 0)

    @property
    def listened(self) -> bool:
        """Whether its client has the standalone stream open."""
        return self.streams.standalone.attached

    @property
    def busy(self) -> bool:
        """Whether a call is in flight or its client has the standalone stream open."""
        return bool(self.in_flight) or self.listened

    @property
    def holds_own_child(self) -> bool:
        """Whether it has a child for itself that serves."""
        usable = self.link.usable
        return usable is not None and not usable.mux.shared

    def lend(self) -> Lease | None:
        """Give up the session's child; return it for release, None if there is none.

        The next child starts with the next call, once this one has ended.
        """
        return self.link.renew()

    def opened(self, child: SessionChild, revision: Revision, lease: Lease | None = None) -> None:
        """Open the session: messages go to its child from now on.

        Args:
            child: Finds the child of the session, now and later.
            revision: The revision negotiated with its client.
            lease: The child that serves it now; None: the one that its listener has taken already.
        """
        self.client.negotiated(revision)
        self._context.call_log.session_opened(
            lambda: self.in_flight.client_name, self.client_profile.requested, revision.date
        )
        self.link.open(child, lease)

    def renew(self) -> Lease | None:
        """Give up the session's child for another one, which starts once the old one has ended.

        The new one starts without a call if the client listens or has subscriptions, else with the
        next call.

        Returns:
            The old child, to be released; None if there is none.
        """
        before = self.lend()
        if before is not None and (self.listened or self.client.subscriptions):
            self.send_queue.seek()
        return before

    @property
    def record(self) -> SessionRecord:
        """What another replica must know to go on with it."""
        answers = self.streams.records(_ANSWERS_BYTES)
        return msgspec.structs.replace(self.client.record, used=self.used, answers=answers)

    def resume(self, record: SessionRecord) -> None:
        """Begin with what another replica knew of it."""
        self.used = record.used
        self.client.resume(record)
        self.streams.resume(record.answers)

    def touch(self, now: float) -> None:
        """Count the session as used at `now`."""
        self.client.touch(now)

    def call(
        self,
        request: Request,
        *,
        streams: bool,
        stream: Stream | None = None,
        caller: bytes = b"",
    ) -> Exchange:
        """Send a request to the child; return its exchange, which receives the events of the call.

        Never raises: an error becomes the exchange's final answer.

        Args:
            request: The client's request, under the client's own id.
            streams: Whether the client reads event streams.
            stream: Takes the answer; None: the session's one stream, or a new one.
            caller: The client that sends it, by its `Principal.share_key`.
        """
        self.used = True
        fault = self._context.over_load(caller, self.streams.open if streams else 0)
        exchange = self.in_flight.begin(request, streams=streams, stream=stream, caller=caller)
        if fault is not None:
            exchange.fail(fault)
        elif exchange.reply is None:
            self.send_queue.call(exchange)
        return exchange

    def tell(self, notification: Notification) -> None:
        """Send a notification to the child; carry out a cancellation in the bridge."""
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
        """Send the client's answer to the child that asked; drop it if no request matches."""
        now = self._context.clock()
        self.client.touch(now)
        self.in_flight.touch(now)
        self.server_requests.answer(reply)

    def abandon(self, exchange: Exchange, fault: Fault) -> None:
        """End a call early: cancel it at the child, answer the client with the fault."""
        self.in_flight.abandon(exchange, fault)

    def close(self, fault: Fault | None = None) -> Lease | None:
        """End the session: calls in flight fail, streams end.

        Returns:
            The lease it held, for the bridge to release; None if it held none.
        """
        # In this order: first no message finds a child any more, then calls fail, and the streams
        # that carry their errors end last.
        legacy = self.link.adapter is None
        lease = self.link.close()
        self.in_flight.abandon_all(fault or session_closed())
        self.send_queue.close()
        self.streams.close()
        if legacy and lease is not None and lease.mux.shared and not self._context.drain.ending:
            self._unsubscribe(lease)
        self.client.subscriptions.clear()
        self.account.charge(-self._state_bytes)
        self._state_bytes = 0
        return lease

    def _unsubscribe(self, lease: Lease) -> None:
        """Unsubscribe a shared child from what none of its other clients wants."""
        if self.client.subscriptions:
            # It has no child any more, so it is not among these others.
            others, uris = self._context.subscribers, sorted(self.client.subscriptions)
            self._context.spawn(unsubscribe, lease.mux, uris, others)


def _streams(
    context: CallContext, one_stream: Stream | None, account: Account, *, revived: bool
) -> ReplayStore:
    return ReplayStore(
        context.window,
        context.meters,
        context.clock,
        resumable=one_stream is None,
        standalone=one_stream,
        charge=account.charge,
        names_calls=context.names_calls,
        revived=revived,
    )


def _server_requests(
    context: CallContext, client_profile: ClientProfile, standalone: Stream
) -> ServerRequests:
    return ServerRequests(
        context.questions(),
        client_profile.abilities,
        standalone,
        context.meters,
        context.spawn,
        context.question_timeout_s,
        context.budget,
    )
