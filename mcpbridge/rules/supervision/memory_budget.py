"""What the memory has room for: server processes, and what is kept for clients."""

from __future__ import annotations

LEAST = 2
"""The shared process and one more: with fewer, no client could be asked anything."""
MOST = 64
"""Beyond it the processor is scarcer than memory."""
UNMEASURED = 16
"""Used until a process has been measured, or if none can be: it runs elsewhere (`--connect`)."""

RESERVE_BYTES = 128 << 20
"""Least memory that is not kept for clients: the bridge alone needs 40 to 60 MB."""
LEAST_KEPT_BYTES = 16 << 20
"""Kept for clients even if the reserve cannot be had: a few requests of the largest size."""


def children_that_fit(limit_bytes: int, bridge_bytes: int, child_bytes: int, most: int) -> int:
    """Return how many server processes may run at once.

    Args:
        limit_bytes: Memory that may be used.
        bridge_bytes: Memory that the bridge itself uses.
        child_bytes: Most memory seen in use by one process of this server.
        most: Number that the other limits allow.
    """
    # Calls make the bridge and the processes larger than they were when they were measured.
    growth_bytes = limit_bytes // 8
    fitting = (limit_bytes - growth_bytes - bridge_bytes) // max(child_bytes, 1)
    # Open files may be scarcer than memory; then LEAST does not apply.
    return min(max(LEAST, min(MOST, fitting)), most)


def memory_for_clients(limit_bytes: int | None) -> int | None:
    """Return the default of `--max-memory`; None if the system tells no limit.

    A reserve is left to the interpreter, to copies that are made while bytes pass, and to the
    server's processes: half of the limit, and in a small container no less than `RESERVE_BYTES`.

    Args:
        limit_bytes: Memory that the container, or the machine, allows.
    """
    if limit_bytes is None:
        return None
    return max(LEAST_KEPT_BYTES, limit_bytes - max(limit_bytes // 2, RESERVE_BYTES))
