"""Computes how many server processes fit into memory."""

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
