"""A handshake-era conversation: what one client said of itself, and what is in flight for it.

A session outlives its child. While it has none, what the client sends waits in order in a bounded
outbox until there is one again: notifications are acknowledged before the child has read them, so
their order with the requests behind them must hold.

Source: MCP 2025-03-26 to 2025-11-25, Transports, Session Management.
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Awaitable, Callable

import anyio

from mcpbridge.bridge.drain import Drain
from mcpbridge.bridge.exchange import Exchange
from mcpbridge.bridge.mux import Mux
from mcpbridge.bridge.placement import Lease
from mcpbridge.bridge.stream import Stream
from mcpbridge.errors import ChannelClosed, Unavailable, WireError
from mcpbridge.rules.admission import duplicate_id
from mcpbridge.rules.correlate import (
    Questions,
    Withdrawn,
    cancelled_id,
    renamed_cancel,
)
from mcpbridge.rules.eventlog import Window
from mcpbridge.rules.faults import (
    INVALID_PARAMS,
    Fault,
    cancelled,
    capacity,
    child_exited,
    child_stalled,
    error_object,
    nobody_to_ask,
    session_closed,
)
from mcpbridge.rules.lifecycle import SESSION, SessionEvent, SessionState, step
from mcpbridge.rules.methods import (
    ASKED_ABILITY,
    CANCELLED,
    INITIALIZED,
    stops_at_the_bridge,
)
from mcpbridge.rules.profile import Introduction
from mcpbridge.rules.revisions import NEWEST_LEGACY, Revision
from mcpbridge.telemetry.meters import Meters
from mcpbridge.wire.messages import (
    Failure,
    Notification,
    Reply,
    Request,
    canonical_id,
    encode,
)

log = logging.getLogger("mcpbridge.bridge")

STALL_S = 30.0
"""How long a child may leave its input unread before those who wait are told."""
CANCEL_GRACE_S = 1.0
"""How long a cancelled call waits for the child's own last word."""
MAX_WAITING = 1024
"""Messages of one session that may wait for a child."""

Spawn = Callable[..., object]
"""`TaskGroup.start_soon` of the bridge: work that outlives the request that began it."""


class Session:
    """One client's conversation; owned by the bridge, and ended by it.

    Without an id it stands for all requests that come outside of any session.
    """

    def __init__(
        self,
        session_id: str | None,
        introduction: Introduction | None,
        questions: Questions,
        window: Window,
        meters: Meters,
        drain: Drain,
        spawn: Spawn,
    ) -> None:
        self.id = session_id
        self.introduction = introduction
        self.revision: Revision = NEWEST_LEGACY
        self.state = SessionState.OPENING
        self.standalone = Stream(window)
        """What the child says that belongs to no request."""
        self.in_flight: dict[bytes, Exchange] = {}
        """By canonical id."""
        self.used = False
        """The client has sent a request after `initialize`."""
        self.last_used = anyio.current_time()
        self.lease: Lease | None = None
        self.initialized = False
        """The client has sent `notifications/initialized`."""
        self.acquire: Callable[[], Awaitable[Lease]]
        """Finds a child for this session, handshake included; set by the bridge."""
        self._settled = anyio.Event()
        self._drain = drain
        self._questions = questions
        self._window = window
        self._meters = meters
        self._spawn = spawn
        self._outbox: collections.deque[Exchange | Notification] = collections.deque()
        self._moving = False

    @property
    def busy(self) -> bool:
        """A call is in flight, or somebody listens."""
        return bool(self.in_flight) or self.standalone.attached

    def advance(self, event: SessionEvent) -> None:
        """Go on to the next state of `rules.lifecycle.SESSION`."""
        self.state = step(SESSION, self.state, event)
        self._settled.set()

    def exchange(self, request: Request, *, streams: bool) -> Exchange:
        """An exchange of this session for a request that somebody else will answer."""
        exchange = Exchange(request, self._ended, self._window, streams=streams)
        self.last_used = anyio.current_time()
        self.in_flight[self._key(exchange)] = exchange
        self._drain.hold()
        return exchange

    def call(self, request: Request, *, streams: bool) -> Exchange:
        """Send a request to the child; its exchange gets everything that comes of it.

        Never fails: whatever is wrong is the exchange's final answer.
        """
        if self.id is not None and canonical_id(request.id) in self.in_flight:
            refused = Exchange(request, lambda _: None, self._window, streams=streams)
            refused.answered(Failure(request.id, duplicate_id()))
            return refused
        self.used = True
        exchange = self.exchange(request, streams=streams)
        self._submit(exchange)
        return exchange

    def tell(self, notification: Notification) -> None:
        """Send a notification to the child, or do what it says where that is the bridge's."""
        self.last_used = anyio.current_time()
        if notification.method == CANCELLED:
            self._cancel(notification)
        elif notification.method == INITIALIZED and self.initialized:
            self._meters.count("repeated_initialized")
        else:
            self.initialized = self.initialized or notification.method == INITIALIZED
            self._submit(notification)

    def answer(self, reply: Reply) -> None:
        """Give the child the client's answer to a question of its; an unasked one is dropped."""
        self.last_used = anyio.current_time()
        own = self._questions.answered(reply)
        if own is None or self.lease is None:
            self._meters.count("unasked_answer")
        else:
            self.lease.mux.send(own)

    def close(self, fault: Fault | None = None) -> Lease | None:
        """End the session: calls in flight get their error, streams end.

        Returns:
            The lease it held, for the bridge to release.
        """
        self.advance(SessionEvent.CLOSE)
        for exchange in list(self.in_flight.values()):
            self._withdraw(exchange, "the session was closed")
            exchange.fail(fault or session_closed())
        self._outbox.clear()
        self.standalone.close()
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.mux.leave(self)
        return lease

    def told(self, notification: Notification) -> None:
        """The child says something that belongs to no request: see `bridge.mux.Tenant`."""
        stream = self._aside()
        if isinstance(stream, Exchange):
            stream.tell(encode(notification), sheddable=True)
        elif not stream.log.closed:
            stream.append(encode(notification), sheddable=True)

    def asked(self, request: Request) -> None:
        """The child asks its client: see `bridge.mux.Tenant`."""
        ability = ASKED_ABILITY.get(request.method)
        offered = self.introduction.abilities if self.introduction is not None else frozenset()
        if ability is not None and ability not in offered:
            self._decline(request.id)
            return
        _, question = self._questions.ask(request)
        exchange = self._only_call()
        if exchange is not None:
            exchange.tell(encode(question), sheddable=False)
        elif not self.standalone.log.closed:
            self.standalone.append(encode(question), sheddable=False)

    def withdrawn(self, withdrawal: Withdrawn) -> None:
        """The child takes a question back: see `bridge.mux.Tenant`."""
        notification = self._questions.withdrawn(withdrawal)
        if notification is not None:
            self.told(notification)

    def _submit(self, item: Exchange | Notification) -> None:
        if not self._outbox and not self._moving and self._mux_ready():
            self._send(item)
        elif len(self._outbox) < MAX_WAITING:
            self._outbox.append(item)
            if not self._moving:
                self._moving = True
                self._spawn(self._move)
        elif isinstance(item, Exchange):
            item.fail(capacity("messages waiting for the server", MAX_WAITING))
        else:
            self._meters.count("shed_notification")

    def _mux_ready(self) -> bool:
        return (
            self.state is SessionState.OPEN
            and self.lease is not None
            and not self.lease.mux.lost
            and not self.lease.mux.channel.congested
        )

    async def _move(self) -> None:
        """Bring what waits to the child, in order, as soon as there is one that reads."""
        try:
            while self._outbox:
                mux = await self._ready_mux()
                while self._outbox and not mux.channel.congested and not mux.lost:
                    self._send(self._outbox.popleft())
        except Unavailable as error:
            self._fail_waiting(error.fault)
        finally:
            self._moving = False

    async def _ready_mux(self) -> Mux:
        await self._settled.wait()
        if self.state is SessionState.CLOSED:
            raise Unavailable(session_closed())
        if self.lease is None or self.lease.mux.lost:
            await self._find_child()
        assert self.lease is not None
        mux = self.lease.mux
        with anyio.move_on_after(STALL_S) as patience:
            await mux.channel.writable()
        if patience.cancelled_caught:
            self.lease.child.stop()
            raise Unavailable(child_stalled(STALL_S))
        return mux

    async def _find_child(self) -> None:
        if self.lease is not None:
            self.lease.mux.leave(self)
            self.lease = None
        lease = await self.acquire()
        if self.state is SessionState.CLOSED:
            raise Unavailable(session_closed())
        self.take(lease)

    def take(self, lease: Lease) -> None:
        """Use this child from now on."""
        self.lease = lease
        lease.mux.enter(self)

    def _send(self, item: Exchange | Notification) -> None:
        assert self.lease is not None
        mux = self.lease.mux
        if isinstance(item, Notification):
            if not (mux.shared and stops_at_the_bridge(item.method)):
                mux.send(item)
            return
        if item.reply is not None:
            return
        try:
            item.number = mux.request(item.request, item)
            item.mux = mux
        except ChannelClosed:
            item.fail(child_exited(None, "no"))
        except WireError as error:
            refusal = error_object(INVALID_PARAMS, str(error))
            item.answered(Failure(item.request.id, refusal))

    def _fail_waiting(self, fault: Fault) -> None:
        waiting, self._outbox = self._outbox, collections.deque()
        for item in waiting:
            if isinstance(item, Exchange):
                item.refused = self.id is None
                item.fail(fault)

    def _cancel(self, notification: Notification) -> None:
        try:
            request_id = cancelled_id(notification)
        except WireError:
            request_id = None
        exchange = self.in_flight.get(canonical_id(request_id)) if request_id else None
        if exchange is None:
            self._meters.count("cancel_of_unknown")
            return
        if exchange.mux is None or exchange.number is None:
            exchange.fail(cancelled())
            return
        exchange.mux.send(renamed_cancel(notification, b"%d" % exchange.number))
        self._spawn(self._end_cancelled, exchange)

    async def _end_cancelled(self, exchange: Exchange) -> None:
        # The child is told not to answer, yet the client's stream must end with something.
        await anyio.sleep(CANCEL_GRACE_S)
        if exchange.mux is not None and exchange.number is not None:
            exchange.mux.forget(exchange.number)
        exchange.fail(cancelled())

    def _withdraw(self, exchange: Exchange, reason: str) -> None:
        if exchange.mux is not None and exchange.number is not None:
            exchange.mux.cancel(exchange.number, reason)

    def _decline(self, child_id: bytes) -> None:
        self._meters.count("declined_question")
        if self.lease is not None:
            self.lease.mux.send(Failure(child_id, nobody_to_ask().error()))

    def _only_call(self) -> Exchange | None:
        """The one call in flight, if what the child says now can reach its client there."""
        if len(self.in_flight) != 1:
            return None
        exchange = next(iter(self.in_flight.values()))
        return exchange if exchange.streams else None

    def _aside(self) -> Stream:
        """Where a notification goes that names no request."""
        exchange = self._only_call() if not self.standalone.attached else None
        return exchange or self.standalone

    def _ended(self, exchange: Exchange) -> None:
        self.in_flight.pop(self._key(exchange), None)
        self.last_used = anyio.current_time()
        self._drain.release()

    def _key(self, exchange: Exchange) -> bytes:
        # Outside of sessions the same id may come from many clients at once.
        return b"%d" % id(exchange) if self.id is None else canonical_id(exchange.request.id)
