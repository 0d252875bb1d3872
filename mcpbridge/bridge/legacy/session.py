"""A legacy conversation: what one client said of itself, and what is in flight for it.

A session outlives its child: while it has none, what its client sends waits in the send queue.

Source: MCP 2025-03-26 to 2025-11-25, Transports, Session Management.
"""

from __future__ import annotations

from collections.abc import Iterator

import anyio

from mcpbridge.bridge.calls.context import CallContext
from mcpbridge.bridge.calls.exchange import DetachedScope, Exchange
from mcpbridge.bridge.calls.replay import ReplayStore
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.shared_state import (
    Subscriber,
    intend,
    log_level_of,
    settle,
    shared_verb,
    text_member,
    unsubscribe,
)
from mcpbridge.bridge.legacy.in_flight import cancel
from mcpbridge.bridge.legacy.modern_child import ModernChildAdapter
from mcpbridge.bridge.legacy.send_queue import SendQueue
from mcpbridge.bridge.legacy.server_requests import ServerRequests, ServerRequestSender
from mcpbridge.bridge.legacy.session_child import OwnChild, SessionChild
from mcpbridge.rules.access.principals import ANONYMOUS, Principal
from mcpbridge.rules.faults import Fault, Unavailable, session_closed
from mcpbridge.rules.mcp.admission import duplicate_id
from mcpbridge.rules.mcp.correlator import Withdrawn
from mcpbridge.rules.mcp.initialize import ClientProfile
from mcpbridge.rules.mcp.methods import (
    CANCELLED,
    INITIALIZED,
    LOG_MESSAGE,
    RESOURCE_UPDATED,
    SHARED_VERBS,
    SUBSCRIBE,
    coalescing_key,
    concerns,
    level_admits,
)
from mcpbridge.rules.mcp.revisions import Revision, expected
from mcpbridge.rules.supervision.lifecycle import SESSION, SessionEvent, SessionState, step
from mcpbridge.wire.messages import (
    Failure,
    Notification,
    Reply,
    Request,
    Result,
    canonical_id,
    encode,
)


class Session:
    """One client's conversation; owned by the bridge, and ended by it.

    Without an id it stands for all requests that come outside of any session.
    """

    def __init__(
        self,
        session_id: str | None,
        client_profile: ClientProfile | None,
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
        self.outside = session_id is None
        self.client_profile = client_profile
        self.revision = expected(client_profile.requested if client_profile is not None else None)
        """Negotiated; until the child has answered what its client asked for."""
        self.state = SessionState.OPENING
        self.in_flight: dict[bytes, Exchange] = {}
        """By canonical id."""
        self.used = False
        """The client has sent a request after `initialize`."""
        self.opened_at = self.last_used = self._context.clock()
        self.lease: Lease | None = None
        self.initialized = False
        """The client has sent `notifications/initialized`."""
        self.level: str | None = None
        self.subscriptions: set[str] = set()
        self._child: SessionChild | None = None
        self.modern_child: ModernChildAdapter | None = None
        """Stands between the session and a child of 2026-07-28."""
        self._one_stream = one_stream
        keep = one_stream is None and not self.outside
        self.streams = ReplayStore(context.window, context.meters, context.clock, resumable=keep)
        self.standalone = one_stream or self.streams.standalone
        """What the child says that belongs to no request."""
        self._settled: anyio.Event | None = None
        """Made when somebody waits for it: an event is a KiB, and few sessions are waited for."""
        self.server_requests = ServerRequests(
            context.questions(),
            self.standalone,
            context.meters,
            context.spawn,
            context.question_timeout_s,
        )
        self.send_queue = SendQueue(
            self._usable_lease,
            self.find_child,
            context.meters,
            context.spawn,
            refuses=self.outside,
        )

    @property
    def one_streamed(self) -> bool:
        """One stream carries answers and everything else: the transport of 2024-11-05."""
        return self._one_stream is not None

    @property
    def busy(self) -> bool:
        """A call is in flight, or somebody listens."""
        return bool(self.in_flight) or self.standalone.attached

    @property
    def idle_s(self) -> float:
        """How long its client has sent nothing, in seconds."""
        return self._context.clock() - self.last_used

    @property
    def holds_own_child(self) -> bool:
        """It has a child for itself, and could be given another."""
        usable = self._usable_lease()
        return usable is not None and not usable.mux.shared

    def rest(self) -> Lease | None:
        """Do without the child until the next call; returns it."""
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.mux.detach(self)
        return lease

    def opened(
        self, child: SessionChild, revision: Revision | None = None, lease: Lease | None = None
    ) -> None:
        """Open the session: requests go to its child from now on.

        Args:
            child: Its way to a child, now and later.
            revision: What was negotiated with its client; None: as expected.
            lease: The child that serves it now; None: it has one, or gets one with its first call.
        """
        self._child, self.modern_child = child, child.adapter
        self.revision = revision or self.revision
        if lease is not None:
            self.take(lease)
        self._advance(SessionEvent.OPENED)

    def renew(self) -> Lease | None:
        """Give its own child back for another one, which starts when the old one has ended.

        It starts at once if its client listens, else with the next call.

        Returns:
            The old one, to be released; None if there is none.
        """
        before = self.rest()
        if before is not None and isinstance(self._child, OwnChild):
            self._child.after(before)
            if self.standalone.attached or self.subscriptions:
                self.send_queue.seek()
        return before

    def touch(self, now: float) -> None:
        """Count the session as used now."""
        self.last_used = now

    def set_level(self, level: str | None) -> None:
        """Remember the level of logs that its client wants: see `Subscriber`."""
        self.level = level

    def _advance(self, event: SessionEvent) -> None:
        """Go on to the next state of `rules.supervision.lifecycle.SESSION`."""
        self.state = step(SESSION, self.state, event)
        if self._settled is not None:
            self._settled.set()

    def take(self, lease: Lease) -> None:
        """Use this child from now on."""
        if self.lease is not None:
            self.lease.mux.detach(self)
        self.lease = lease
        lease.mux.attach(self)

    def exchange(
        self, request: Request, *, streams: bool, stream: Stream | None = None
    ) -> Exchange:
        """An exchange of this session; whoever asked for it sees to the answer."""
        now = self._context.clock()
        request, span = self._context.call_log.began(request, self.revision.date, self.id)
        stream = stream or self._one_stream
        exchange = Exchange(request, self, now, streams=streams, stream=stream, span=span)
        self.last_used = now
        self.in_flight[self._key(exchange)] = exchange
        self._context.drain.call_started()
        return exchange

    def call(self, request: Request, *, streams: bool, stream: Stream | None = None) -> Exchange:
        """Send a request to the child; its exchange gets everything that comes of it.

        Never fails: whatever is wrong is the exchange's final answer.
        """
        if self.id is not None and canonical_id(request.id) in self.in_flight:
            refused = Exchange(
                request, DetachedScope(self), 0, streams=streams, stream=stream or self._one_stream
            )
            refused.answered(Failure(request.id, duplicate_id()))
            return refused
        self.used = True
        fault = self._context.over_load(self.streams.open if streams else 0)
        exchange = self.exchange(request, streams=streams, stream=stream)
        request = exchange.request
        if fault is not None:
            exchange.fail(fault)
            return exchange
        if self.modern_child is not None:
            self.modern_child.call(exchange)
            return exchange
        if request.method in SHARED_VERBS:
            intend(self, request)
        if request.method in SHARED_VERBS and self._shares:
            verdict = shared_verb(request, self._other_subscribers())
            if isinstance(verdict, Result):
                exchange.answered(verdict)
                return exchange
            exchange.send_instead(verdict)
        self.send_queue.put(exchange)
        return exchange

    def tell(self, notification: Notification) -> None:
        """Send a notification to the child, or do what it says where that is the bridge's."""
        self.last_used = self._context.clock()
        if notification.method == CANCELLED:
            cancel(self, notification, self._context)
        elif notification.method == INITIALIZED and self.initialized:
            self._context.meters.count("repeated_initialized")
        else:
            self.initialized = self.initialized or notification.method == INITIALIZED
            if self.modern_child is not None:
                self.modern_child.tell(notification)
            else:
                self.send_queue.put(notification)

    def answer(self, reply: Reply) -> None:
        """Give the child the client's answer to a question of its; an unasked one is dropped."""
        self.last_used = self._context.clock()
        for exchange in self.in_flight.values():
            exchange.touch(self.last_used)
        self.server_requests.answer(reply)

    def close(self, fault: Fault | None = None) -> Lease | None:
        """End the session: calls in flight get their error, streams end.

        Returns:
            The lease it held, for the bridge to release.
        """
        self._advance(SessionEvent.CLOSE)
        for exchange in list(self.in_flight.values()):
            self.abandon(exchange, fault or session_closed())
        self.send_queue.close()
        self._child = None
        self.streams.close()
        self.standalone.close()
        lease = self.rest()
        if lease is not None:
            if self.modern_child is not None:
                self.modern_child.close()
                self.modern_child = None
            elif lease.mux.shared and self.subscriptions and not self._context.drain.ending:
                kept = {uri for other in self._other_subscribers() for uri in other.wanted}
                self._context.spawn(unsubscribe, lease.mux, sorted(self.subscriptions - kept))
        return lease

    def abandon(self, exchange: Exchange, fault: Fault) -> None:
        """Nobody waits for this call any more: the child is told, the client gets the fault."""
        self.withdraw_questions(exchange)
        exchange.abandon(fault)

    def on_notification(self, notification: Notification) -> None:
        """The child says something that belongs to no request: see `ChildListener`."""
        uri = None
        if notification.method == RESOURCE_UPDATED:
            uri = text_member(notification.params, "uri")
            if self._shares and not self._subscribes(uri):
                return
        payload = encode(notification)
        log_message = notification.method == LOG_MESSAGE
        aside = self._only_call() if log_message and self._takes_logs else None
        if aside is not None and not self.standalone.attached:
            aside.tell(payload, sheddable=True)
        else:
            self._say(payload, key=coalescing_key(notification.method, uri))

    def admits(self, notification: Notification) -> bool:
        """Whether the client wants a log message: see `Scope`."""
        return self._takes_logs and level_admits(self.level, log_level_of(notification))

    @property
    def _takes_logs(self) -> bool:
        """A log message may stand before an answer."""
        return self.revision.unasked_logs or self.level is not None or self.one_streamed

    def on_server_request(self, request: Request) -> None:
        """The child asks its client: see `ChildListener`."""
        if self.lease is None:
            return
        abilities = self.client_profile.abilities if self.client_profile is not None else ()
        calls = [exchange for exchange in self.in_flight.values() if exchange.streams]
        self.server_requests.ask(request, self.lease.mux, abilities, calls)

    def inquire(self, request: Request, asker: ServerRequestSender, exchange: Exchange) -> None:
        """Ask the client something that belongs to this call: see `Client`."""
        abilities = self.client_profile.abilities if self.client_profile is not None else ()
        self.server_requests.ask(request, asker, abilities, [exchange] if exchange.streams else [])

    def on_server_request_cancelled(self, withdrawal: Withdrawn) -> None:
        """The child takes a question back: see `ChildListener`."""
        self.server_requests.withdraw(withdrawal)

    def on_child_exit(self) -> None:
        """The child is gone: see `ChildListener`."""
        if self.modern_child is not None:
            return  # What is asked for a child of 2026-07-28, the next one takes the answer to.
        for cancellation in self.server_requests.child_lost():
            self._say(cancellation)
        self._context.child_lost(self)

    def begin_stream(self) -> Stream:
        """A stream for one exchange: see `Scope`."""
        return self.streams.begin(answers_due=1)

    def ended(self, exchange: Exchange) -> None:
        """An exchange has its answer: see `Scope`."""
        self.in_flight.pop(self._key(exchange), None)
        self.last_used = self._context.clock()
        self._context.call_log.ended(exchange, self.last_used)
        self._context.drain.call_finished()
        if exchange.request.method in SHARED_VERBS:
            settle(self, exchange.request, granted=isinstance(exchange.reply, Result))

    @property
    def wanted(self) -> set[str]:
        """Subscriptions granted or asked for: see `Subscriber`."""
        asked = (
            text_member(exchange.request.params, "uri")
            for exchange in self.in_flight.values()
            if exchange.request.method == SUBSCRIBE
        )
        return self.subscriptions | {uri for uri in asked if uri is not None}

    def _other_subscribers(self) -> Iterator[Subscriber]:
        return (other for other in self._context.subscribers() if other is not self)

    @property
    def _shares(self) -> bool:
        return self.lease is not None and self.lease.mux.shared

    def _subscribes(self, uri: str | None) -> bool:
        return uri is not None and any(concerns(own, uri) for own in self.subscriptions)

    def _usable_lease(self) -> Lease | None:
        if self.state is not SessionState.OPEN or self.lease is None or self.lease.mux.shut:
            return None
        return self.lease

    async def find_child(self) -> Lease:
        """The child that serves this session, as soon as there is one.

        Raises:
            Unavailable: There will be none now, or the session is closed.
        """
        await self._opened()
        lease = self._usable_lease()
        if lease is None and self._child is not None and self.state is SessionState.OPEN:
            lease = await self._child.acquire()
        if lease is None or self.state is not SessionState.OPEN:
            raise Unavailable(session_closed())
        if lease is not self.lease:
            self.take(lease)
        return lease

    async def _opened(self) -> None:
        while self.state is SessionState.OPENING:
            self._settled = self._settled or anyio.Event()
            await self._settled.wait()

    def _say(self, payload: bytes, *, key: str | None = None) -> None:
        if not self.standalone.log.closed:
            self.standalone.append(payload, sheddable=True, key=key)

    def withdraw_questions(self, exchange: Exchange) -> None:
        """What this call alone asked of the client is asked no more."""
        for cancellation in self.server_requests.call_cancelled(exchange):
            exchange.tell(cancellation, sheddable=True)

    def _only_call(self) -> Exchange | None:
        """The one call in flight, if what the child says now can reach its client there."""
        if len(self.in_flight) != 1:
            return None
        exchange = next(iter(self.in_flight.values()))
        return exchange if exchange.streams else None

    def _key(self, exchange: Exchange) -> bytes:
        # Outside of sessions the same id may come from many clients at once.
        return b"%d" % id(exchange) if self.id is None else canonical_id(exchange.request.id)
