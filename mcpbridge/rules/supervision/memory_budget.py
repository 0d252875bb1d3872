"""What the memory has room for: server processes, and what is kept for clients."""

from __future__ import annotations

LEAST = 2
"""The shared process and one more: with fewer, no client could be asked anything."""
MOST = 64
"""Beyond it the processor is scarcer than memory."""
UNMEASURED = 16
"""Used until a process has been measured, or if none can be: it runs elsewhere (`--connect`)."""


def children_that_fit(limit_bytes: int, bridge_bytes: int, child_bytes: int, most: int) -> int:
    """Return how many server processes may run at once.

    Args:
        limit_bytes: Memory that may be used.
        bridge_bytes: Memory that the bridge itself uses.
        child_bytes: Most memory seen in use by one process of this server.
        most: Number that the other limits allow.
    """
    fitting = (limit_bytes - bridge_bytes) // max(child_bytes, 1)
    # Open files may be scarcer than memory; then LEAST does not apply.
    return min(max(LEAST, min(MOST, fitting)), most)


def memory_for_clients(limit_bytes: int | None) -> int | None:
    """Return how many bytes may be kept for clients; None if the system tells no limit.

    Half is left to the interpreter, to copies that are made while bytes pass, and to the server.
    """
    return None if limit_bytes is None else limit_bytes // 2
