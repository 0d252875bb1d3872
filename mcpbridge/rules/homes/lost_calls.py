"""Decides what becomes of a message whose way to its owner broke: repeated, or lost.

A message that the owner cannot have read is sent again, whatever it is. One that it may have read
is repeated only if twice has the effect of once. `tools/call` is never among those: its client is
told that the call may have been executed, and decides.

An owner closes no connection that a request may be under way on: it says `Connection: close` with
an answer, and its peers close connections that have been idle. So a kept connection that was closed
before the request was written has delivered nothing, but one that broke afterwards, even without a
byte of the answer, may have: the process may have been killed while it worked.
"""

from __future__ import annotations

from mcpbridge.rules.mcp.methods import KNOWN_REQUESTS, PING, SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE

REPEATABLE = frozenset((
    PING, SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE, "completion/complete", "prompts/get", "prompts/list",
    "resources/list", "resources/read", "resources/templates/list", "tools/list",
))  # fmt: skip
"""Requests that may be executed twice."""
assert REPEATABLE <= KNOWN_REQUESTS


def is_repeatable(kind: str, method: str | None) -> bool:
    """Return whether a message without an answer is sent to the session's next home.

    Else its client gets the fault `replica_lost`, executed maybe.

    Args:
        kind: `request`, `notification` or `reply`.
        method: The method of a request.
    """
    # A notification has no answer, and the server request of a repeated reply is over: the next
    # home drops it.
    return kind != "request" or method in REPEATABLE
