"""A client of the legacy era takes a call back, wherever the call is at that moment.

Source: MCP 2025-11-25, Cancellation.
"""

from __future__ import annotations

from typing import Protocol

import anyio

from mcpbridge.bridge.calls.context import CallContext
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.errors import WireError
from mcpbridge.rules.faults import cancelled
from mcpbridge.rules.mcp.correlator import cancelled_id, renamed_cancel
from mcpbridge.rules.mcp.methods import INITIALIZE
from mcpbridge.wire.messages import Notification, canonical_id

CANCEL_GRACE_S = 1.0
"""How long a cancelled call waits for the child's own last word."""


class Caller(Protocol):
    """A session, as far as its cancellations know it."""

    id: str | None
    in_flight: dict[bytes, Exchange]

    def withdraw_questions(self, exchange: Exchange) -> None:
        """What this call alone asked of the client is asked no more."""


def cancel(caller: Caller, notification: Notification, context: CallContext) -> None:
    """Do what a `notifications/cancelled` of the client says."""
    try:
        request_id = cancelled_id(notification)
    except WireError:
        request_id = None
    exchange = caller.in_flight.get(canonical_id(request_id)) if request_id else None
    if exchange is None or caller.id is None or exchange.request.method == INITIALIZE:
        # A client must not cancel `initialize`: what came of it would be nobody's.
        context.meters.count("cancel_of_unknown")
        return
    caller.withdraw_questions(exchange)
    mux, number = exchange.mux, exchange.number
    if mux is None or number is None or mux.withdraw(number):
        exchange.fail(cancelled())
        return
    mux.send(renamed_cancel(notification, b"%d" % number))
    context.spawn(_end_cancelled, exchange)


async def _end_cancelled(exchange: Exchange) -> None:
    # The child is told not to answer, yet the client's stream must end with something.
    await anyio.sleep(CANCEL_GRACE_S)
    if exchange.mux is not None and exchange.number is not None:
        exchange.mux.forget(exchange.number)
    exchange.fail(cancelled())
