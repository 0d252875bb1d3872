"""The calls of one session that have no final answer yet.

A call lives here from the moment it is accepted until its one final answer, whoever brings that:
the child, its death, the client's cancellation, a time limit, the end of the session. Until then
its id is taken, and the exchange of a further request with the same id stays outside: it must not
take the place of the first.

Source: MCP 2025-11-25, Base Protocol, Requests; Cancellation.
"""

from __future__ import annotations

from collections.abc import Iterator

import anyio

from mcpbridge.bridge.calls.context import CallContext
from mcpbridge.bridge.calls.exchange import DetachedScope, Exchange
from mcpbridge.bridge.calls.replay import ReplayStore
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.legacy.client_state import ClientState
from mcpbridge.bridge.legacy.server_requests import ServerRequests
from mcpbridge.errors import WireError
from mcpbridge.rules.faults import Fault, cancelled
from mcpbridge.rules.mcp.admission import duplicate_id
from mcpbridge.rules.mcp.correlator import cancelled_id, renamed_cancel
from mcpbridge.rules.mcp.methods import INITIALIZE, SHARED_VERBS
from mcpbridge.wire.messages import Failure, Notification, Request, Result, canonical_id, encode

CANCEL_GRACE_S = 1.0
"""How long a cancelled call waits for the child's own last word."""


class InFlight:
    """The open exchanges of one session, and their `Scope`; owned by the session."""

    __slots__ = (
        "_by_id",
        "_client",
        "_context",
        "_one_stream",
        "_server_requests",
        "_session_id",
        "_streams",
    )

    outside = False

    def __init__(
        self,
        session_id: str,
        client: ClientState,
        streams: ReplayStore,
        server_requests: ServerRequests,
        context: CallContext,
        one_stream: Stream | None,
    ) -> None:
        """Begin with no call in flight.

        Args:
            session_id: For the trace of each call.
            client: Whose calls they are.
            streams: Makes the streams of answers, and takes what comes after an answer.
            server_requests: What the server asked during each call.
            context: What calls work with.
            one_stream: Takes every answer; None: each call has its own.
        """
        self._session_id = session_id
        self._client = client
        self._streams = streams
        self._server_requests = server_requests
        self._context = context
        self._one_stream = one_stream
        self._by_id: dict[bytes, Exchange] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Exchange]:
        """The exchanges as they are now, oldest first; they may end while these are read."""
        return iter(list(self._by_id.values()))

    def begin(self, request: Request, *, streams: bool, stream: Stream | None = None) -> Exchange:
        """Accept a request; one whose id is in flight already has its final answer on return.

        Args:
            request: With the client's own id.
            streams: The client reads event streams.
            stream: Takes the answer; None: as the session has it.
        """
        key = canonical_id(request.id)
        stream = stream or self._one_stream
        if key in self._by_id:
            scope = DetachedScope(self)
            refused = Exchange(request, scope, 0, streams=streams, stream=stream)
            refused.answered(Failure(request.id, duplicate_id()))
            return refused
        context = self._context
        now = context.clock()
        date = self._client.revision.date
        request, span = context.call_log.began(request, date, self._session_id)
        exchange = Exchange(request, self, now, streams=streams, stream=stream, span=span)
        self._client.touch(now)
        self._by_id[key] = exchange
        context.drain.call_started()
        return exchange

    def cancel(self, notification: Notification) -> None:
        """Do what a `notifications/cancelled` of the client says, wherever the call is.

        | the call is | then |
        |---|---|
        | answered, or unknown | nothing: the cancellation crossed the answer |
        | not sent yet | it ends at once; the child has seen nothing of it |
        | with the child | the child is told, and has `CANCEL_GRACE_S` for a last word |
        """
        try:
            request_id = cancelled_id(notification)
        except WireError:
            request_id = None
        exchange = self._by_id.get(canonical_id(request_id)) if request_id else None
        if exchange is None or exchange.request.method == INITIALIZE:
            # A client must not cancel `initialize`: the child would serve no session.
            self._context.meters.count("cancel_of_unknown")
            return
        self._server_requests.call_over(exchange)
        mux, number = exchange.mux, exchange.number
        if mux is None or number is None or mux.withdraw(number):
            exchange.fail(cancelled())
            return
        mux.send(renamed_cancel(notification, b"%d" % number))
        self._context.spawn(_end_cancelled, exchange)

    def touch(self, now: float) -> None:
        """Count all calls as active now: the client answered a question, of whichever call."""
        for exchange in self._by_id.values():
            exchange.touch(now)

    def abandon(self, exchange: Exchange, fault: Fault) -> None:
        """End a call early: the child is told, the client gets the fault."""
        self._server_requests.call_over(exchange)
        exchange.abandon(fault)

    def abandon_all(self, fault: Fault) -> None:
        """End every call early."""
        for exchange in self:
            self.abandon(exchange, fault)

    def begin_stream(self) -> Stream:
        """Return a stream for one exchange: see `Scope`."""
        return self._streams.begin(answers_due=1)

    def ended(self, exchange: Exchange) -> None:
        """Let go of an exchange that has its answer: see `Scope`."""
        context, request = self._context, exchange.request
        self._by_id.pop(canonical_id(request.id), None)
        now = context.clock()
        self._client.touch(now)
        context.call_log.ended(exchange, now)
        context.drain.call_finished()
        if request.method in SHARED_VERBS:
            self._client.settle(request, granted=isinstance(exchange.reply, Result))

    def on_notification(self, notification: Notification) -> None:
        """Pass on progress of a task that its call began: see `Scope`."""
        self._streams.tell(encode(notification))

    def admits(self, notification: Notification) -> bool:
        """Return whether the client wants a log message: see `Scope`."""
        return self._client.admits(notification)


async def _end_cancelled(exchange: Exchange) -> None:
    # The child is told not to answer, yet the client's stream must end with something.
    await anyio.sleep(CANCEL_GRACE_S)
    if exchange.mux is not None and exchange.number is not None:
        exchange.mux.forget(exchange.number)
    exchange.fail(cancelled())
