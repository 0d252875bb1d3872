"""Requests of 2026-07-28 served by a child of the same revision; only ids and tokens are changed.

The revision forbids a server to keep state of a connection, so one process serves all clients.

Source: MCP 2026-07-28, Transports, stdio.
"""

from __future__ import annotations

from mcpbridge.bridge.budget import Holder
from mcpbridge.bridge.calls.context import CallContext
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.listeners import CallSink
from mcpbridge.bridge.children.server_eras import EraSupervisors
from mcpbridge.bridge.modern.emulation import CallScope, Overdue, Translation, log
from mcpbridge.bridge.modern.subscriptions import wanted_lists
from mcpbridge.rules.faults import (
    Fault,
    Unavailable,
    cancelled,
    shutdown,
)
from mcpbridge.rules.mcp.initialize import ServerProfile
from mcpbridge.rules.mcp.methods import LISTEN, SUBSCRIPTION_ID
from mcpbridge.rules.mcp.request_meta import RequestMeta
from mcpbridge.wire.json_object import packed
from mcpbridge.wire.messages import Notification, Reply, Request, Result, encode


class Passthrough:
    """A backend that passes calls of one tenant's clients to its child of 2026-07-28."""

    def __init__(
        self, context: CallContext, eras: EraSupervisors, *, keeps_listens: bool = False
    ) -> None:
        """Make a backend without open calls.

        Args:
            context: What sessions and calls of the tenant share.
            eras: Keeps the child.
            keeps_listens: Whether a listen is kept open if the child does not know the method.
        """
        self._context = context
        self._eras = eras
        self._keeps_listens = keeps_listens
        self.in_flight: set[Exchange] = set()
        """The open calls and listens."""

    def call(
        self,
        request: Request,
        envelope: RequestMeta,
        lease: Lease,
        *,
        streams: bool,
        translations: tuple[Translation, ...] = (),
        caller: bytes = b"",
    ) -> Exchange:
        """Send a request; return its exchange, which receives the events. Never raises."""
        if request.method == LISTEN:
            translations = (_gracefully, *translations)
        scope = CallScope(self._context, envelope, self.in_flight, caller)
        exchange = scope.exchange(request, streams=streams, translations=translations)
        fault = None if exchange.lasting else self._context.over_load(caller)
        self._context.drain.call_started(lasting=exchange.lasting)
        # Before it can fail: its end counts it as finished.
        self.in_flight.add(exchange)
        if fault is not None:
            exchange.fail(fault)
        # In this turn, without a task, if the child reads; else the call waits like any other.
        elif not lease.mux.shut and not lease.mux.channel.congested:
            exchange.submit(lease.mux, sink=self._sink(exchange))
        else:
            self._context.spawn(self._serve, exchange)
        return exchange

    def _sink(self, exchange: Exchange) -> CallSink:
        """Return what receives the events of an exchange: itself, or what keeps a listen open."""
        if not (self._keeps_listens and exchange.lasting):
            return exchange
        from mcpbridge.bridge.modern.kept_listen import KeptListen  # for developers alone

        return KeptListen(exchange)

    @property
    def holders(self) -> list[Holder]:
        """The open calls and listens that have bytes in the ledger."""
        return [
            Holder("subscription" if each.lasting else "call", each.held, each.cut)
            for each in self.in_flight
            if each.held
        ]

    def cancel(self, exchange: Exchange, fault: Fault | None = None) -> None:
        """Cancel a call whose client closed the connection, or end it with a fault."""
        exchange.abandon(fault or cancelled())

    def sweep(self, now: float, overdue: Overdue) -> None:
        """End calls that have taken too long, but no listens."""
        for exchange in list(self.in_flight):
            # A listen has no answer that could be late.
            fault = None if exchange.lasting else overdue(exchange, now)
            if fault is not None:
                log.warning("call.overdue", extra={"method": exchange.request.method})
                self.cancel(exchange, fault)

    def announce_lists(self, profile: ServerProfile) -> None:
        """Tell open listens that the lists of their child may differ: another one takes over.

        What their clients know of the lists must not outlast the child before. Listens that it has
        end with it; those that it did not know stay.
        """
        for exchange in list(self.in_flight):
            stream = exchange.stream
            # The acknowledgement comes first on a stream.
            if not exchange.lasting or stream is None or not stream.log.last:
                continue
            params = packed({"_meta": packed({SUBSCRIPTION_ID: exchange.request.id})})
            wanted = wanted_lists(exchange.request).values()
            for method in set(wanted) & set(profile.changing_lists):
                exchange.tell(encode(Notification(method, params)), sheddable=True)

    def end_listens(self) -> None:
        """End every listen with its result: the process is about to end."""
        for exchange in list(self.in_flight):
            if exchange.lasting:
                exchange.fail(shutdown())

    def cut_off(self) -> None:
        """End every open call and listen, calls with an error."""
        for exchange in list(self.in_flight):
            exchange.fail(shutdown())

    async def _serve(self, exchange: Exchange) -> None:
        try:
            lease = await self._eras.modern_lease()
            await lease.mux.channel.writable()
            exchange.submit(lease.mux, sink=self._sink(exchange))
        except Unavailable as error:
            exchange.refuse(error.fault)


def _gracefully(reply: Reply) -> Reply:
    """Turn a fault of the bridge into the listen's result, so that its client opens another."""
    # Errors of the bridge carry `data.mcpbridge`; an error of the child is its own answer.
    if isinstance(reply, Result) or reply.id is None or b'"mcpbridge"' not in reply.error:
        return reply
    tag = packed({SUBSCRIPTION_ID: reply.id})
    return Result(reply.id, packed({"resultType": b'"complete"', "_meta": tag}))
