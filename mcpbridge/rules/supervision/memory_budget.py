"""How many server processes the memory has room for."""

from __future__ import annotations

LEAST = 2
"""The shared process and one more: with fewer no client could be asked anything."""
MOST = 64
"""Beyond it the processor is scarcer than the memory."""
UNMEASURED = 16
"""While no process has been measured, or none can be: it runs elsewhere (`--connect`)."""


def children_that_fit(limit_bytes: int, bridge_bytes: int, child_bytes: int, most: int) -> int:
    """Return how many server processes there may be at once.

    Args:
        limit_bytes: All that may be used.
        bridge_bytes: What the bridge itself uses.
        child_bytes: What the largest process of this server was seen to use.
        most: What else there is a limit on allows so many.
    """
    fitting = (limit_bytes - bridge_bytes) // max(child_bytes, 1)
    # Open files may be scarcer than memory, and then there is no least.
    return min(max(LEAST, min(MOST, fitting)), most)
