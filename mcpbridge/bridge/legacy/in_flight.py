"""The calls of one session that have no final answer yet.

A call is in this table from the moment it is accepted until its one final answer, whatever causes
that: the child's answer or end, the client's cancellation, a time limit, the end of the session.
Until then its id is taken: a further request with the same id is refused and stays out of the
table, since it must not replace the first.

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
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.faults import Fault, cancelled
from mcpbridge.rules.mcp.admission import duplicate_id
from mcpbridge.rules.mcp.correlator import cancelled_id, renamed_cancel
from mcpbridge.rules.mcp.initialize import client_named, introduced_as
from mcpbridge.rules.mcp.methods import INITIALIZE, SHARED_VERBS
from mcpbridge.wire.messages import (
    Failure,
    Notification,
    Request,
    Result,
    canonical_id,
    encode_for_stream,
)

_SHOWN_OF_ID = 4
"""Characters of a session's id that tell one client of a name from another."""
CANCEL_GRACE_S = 1.0
"""How many seconds a cancelled call waits for the child's own answer."""


class InFlight:
    """A table of the open exchanges of one session, and their `Scope`; owned by the session."""

    __slots__ = (
        "_by_id",
        "_client",
        "_context",
        "_one_stream",
        "_server_requests",
        "_session_id",
        "_streams",
        "account",
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
        account: Account,
    ) -> None:
        """Make an empty table.

        Args:
            session_id: For the trace of each call.
            client: The client that calls.
            streams: Makes the streams of answers, and takes messages that come after an answer.
            server_requests: The open server requests, which end with their call.
            context: What sessions of the tenant share.
            one_stream: Takes every answer; None: each call has its own stream.
            account: Charged for the calls: see `Scope`.
        """
        self._session_id = session_id
        self._client = client
        self._streams = streams
        self._server_requests = server_requests
        self._context = context
        self._one_stream = one_stream
        self.account = account
        self._by_id: dict[bytes, Exchange] = {}

    @property
    def client_name(self) -> str:
        """Name and version of the client, and the beginning of its session's id: see `Scope`."""
        profile = self._client.profile
        name = client_named(introduced_as(profile.params)) if profile is not None else ""
        return f"{name}#{self._session_id[:_SHOWN_OF_ID]}"

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Exchange]:
        """Iterate over the present exchanges, oldest first; they may end during the iteration."""
        return iter(list(self._by_id.values()))

    def begin(
        self,
        request: Request,
        *,
        streams: bool,
        stream: Stream | None = None,
        caller: bytes = b"",
    ) -> Exchange:
        """Accept a request; return its exchange, already refused if its id is in flight.

        Args:
            request: The client's request, under the client's own id.
            streams: Whether the client reads event streams.
            stream: Takes the answer; None: the session's `one_stream`, or a new one.
            caller: The client, by its `Principal.share_key`.
        """
        key = canonical_id(request.id)
        stream = stream or self._one_stream
        if key in self._by_id:
            # The first request goes on under this id: the refusal must not touch its entry or be
            # counted as its end.
            scope = DetachedScope(self)
            refused = Exchange(request, scope, 0, streams=streams, stream=stream)
            refused.answered(Failure(request.id, duplicate_id()))
            return refused
        context = self._context
        now, span = context.clock(), None
        if context.call_log.tracing is not None:
            date = self._client.revision.date
            request, span = context.call_log.began(request, date, self._session_id)
        exchange = Exchange(request, self, now, streams, stream, span, (), caller)
        self._client.touch(now)
        self._by_id[key] = exchange
        context.drain.call_started()
        return exchange

    def cancel(self, notification: Notification) -> None:
        """Carry out a `notifications/cancelled` of the client.

        | the call is | then |
        |---|---|
        | answered, or unknown | it is only counted: the cancellation may have crossed the answer |
        | not sent yet | it ends at once, and the child never gets it |
        | with the child | the child is told, and has `CANCEL_GRACE_S` to answer |
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
        # Questions first: a child that waits for an answer may not look at the cancellation before.
        self._server_requests.call_over(exchange)
        mux, number = exchange.mux, exchange.number
        # The child has not got it, so there is nothing to wait for.
        if mux is None or number is None or mux.withdraw(number):
            exchange.fail(cancelled())
            return
        mux.send(renamed_cancel(notification, b"%d" % number))
        self._context.spawn(_end_cancelled, exchange)

    def touch(self, now: float) -> None:
        """Count all calls as active at `now`: the client answered a server request."""
        for exchange in self._by_id.values():
            exchange.touch(now)

    def abandon(self, exchange: Exchange, fault: Fault) -> None:
        """End a call early: cancel it at the child, answer the client with the fault."""
        self._server_requests.call_over(exchange)
        exchange.abandon(fault)

    def abandon_all(self, fault: Fault) -> None:
        """End every call early, like `abandon`."""
        for exchange in self:
            self.abandon(exchange, fault)

    def begin_stream(self, call_id: bytes) -> Stream:
        """Return a new stream for one exchange: see `Scope`."""
        return self._streams.begin(1, call_id)

    def ended(self, exchange: Exchange) -> None:
        """Remove an exchange that has its final answer, and record it: see `Scope`."""
        context, request = self._context, exchange.request
        self._by_id.pop(canonical_id(request.id), None)
        now = context.clock()
        self._client.touch(now)
        context.call_log.ended(exchange, now)
        context.drain.call_finished()
        if request.method in SHARED_VERBS:
            self._client.settle(request, granted=isinstance(exchange.reply, Result))

    def on_notification(self, notification: Notification) -> None:
        """Put progress of a task, which its call began, on the standalone stream: see `Scope`."""
        self._streams.tell(encode_for_stream(notification))

    def admits(self, notification: Notification) -> bool:
        """Return whether the client wants a log message: see `Scope`."""
        return self._client.admits(notification)


async def _end_cancelled(exchange: Exchange) -> None:
    # MCP tells a child not to answer a cancelled request, but the client's stream needs an end.
    await anyio.sleep(CANCEL_GRACE_S)
    if exchange.mux is not None and exchange.number is not None:
        exchange.mux.forget(exchange.number)
    # No effect if the child has answered within the grace period.
    exchange.fail(cancelled())
