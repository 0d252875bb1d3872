"""How the kernel finds out that a client is gone without having said so.

A machine that lost its power or its network sends nothing, not even an end. Its connection would
be kept for ever while nothing is written to it, and for a quarter of an hour while something is.
Connections have these options from the listener that accepts them, so no call pays for them.
"""

from __future__ import annotations

import socket
from contextlib import suppress

IDLE_S = 30
"""Silence after which the client's kernel is asked for a sign of life."""
INTERVAL_S = 10
PROBES = 3
"""Without an answer to so many the client is gone."""
UNACKNOWLEDGED_S = 60.0
"""How long what was sent may stay unacknowledged."""


def watch_peers(listener: socket.socket, send_timeout_s: float) -> None:
    """Let the kernel look after all connections of a listener, as far as this platform can.

    Args:
        listener: Before or after it listens.
        send_timeout_s: A client that is there may read nothing for so long; Linux counts that
            time too.
    """
    options = {
        "TCP_KEEPIDLE": IDLE_S,
        "TCP_KEEPALIVE": IDLE_S,  # what macOS calls it
        "TCP_KEEPINTVL": INTERVAL_S,
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": int(max(UNACKNOWLEDGED_S, 2 * send_timeout_s) * 1000),
    }
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options.items():
        number = getattr(socket, name, None)
        if number is not None:
            with suppress(OSError):
                listener.setsockopt(socket.IPPROTO_TCP, number, value)
