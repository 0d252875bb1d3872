"""Decides what becomes of a message whose way to its owner broke: sent again, repeated, or lost.

A message that the owner cannot have read is sent again, whatever it is. One that it may have read
is repeated only if twice has the effect of once. `tools/call` is never among those: its client is
told that the call may have been executed, and decides.

An owner closes no connection that a request may be under way on: it says `Connection: close` with
an answer, and its peers close connections that have been idle. So a kept connection that was closed
before the request was written has delivered nothing, but one that broke afterwards, even without a
byte of the answer, may have: the process may have been killed while it worked.
"""

from __future__ import annotations

import enum

from mcpbridge.rules.mcp.methods import KNOWN_REQUESTS, PING, SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE

REPEATABLE = frozenset((
    PING, SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE, "completion/complete", "prompts/get", "prompts/list",
    "resources/list", "resources/read", "resources/templates/list", "tools/list",
))  # fmt: skip
"""Requests that may be executed twice."""
assert REPEATABLE <= KNOWN_REQUESTS


class Delivery(enum.Enum):
    """Whether an owner may have read a message."""

    NONE = "none"
    """It has not: nothing was written to a connection that was open."""
    MAYBE = "maybe"
    """Some of it was written, and no whole answer came."""


class AfterLoss(enum.Enum):
    """What becomes of a message."""

    SEND = "send"
    """It is sent to the session's next home, as if for the first time."""
    REPEAT = "repeat"
    """It is sent to the next home, and may have been executed before."""
    LOST = "lost"
    """Its client gets the fault `replica_lost`, executed maybe."""


def after_loss(kind: str | None, method: str | None, delivery: Delivery) -> AfterLoss:
    """Return what becomes of a message that has no answer.

    Args:
        kind: `request`, `notification` or `reply`.
        method: The method of a request or notification; None for a reply.
        delivery: Whether the owner may have read it.
    """
    if delivery is Delivery.NONE:
        return AfterLoss.SEND
    # A notification has no answer, and the server request of a repeated reply is over: the next
    # home drops it.
    harmless = kind in ("notification", "reply") or (kind == "request" and method in REPEATABLE)
    return AfterLoss.REPEAT if harmless else AfterLoss.LOST
