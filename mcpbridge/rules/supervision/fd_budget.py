"""How the open files that the system allows are shared out.

A connection costs one, a server process four: its three pipes, and one by which its end is heard.
What the program needs for itself stays in reserve, with room to start a process while all
connections are taken. Where little is allowed, server processes and connections get half each.
"""

from __future__ import annotations

import msgspec

PER_CHILD = 4
OWN = 32
"""For the program itself, and for what starting a process takes for a moment."""
ENOUGH = 64
"""Connections for whose sake no server process is given up."""
LEAST = 8
"""Connections without which there is no point in serving."""


class Share(msgspec.Struct, frozen=True):
    """What there may be at once."""

    children: int
    connections: int


def least_needed(band: int) -> int:
    """The smallest limit on open files under which one server process can be served."""
    return OWN + band + PER_CHILD + LEAST


def share(limit: int, band: int, children: int, connections: int | None) -> Share | None:
    """Share out the files that may be open; None where they are too few.

    Args:
        limit: On open files.
        band: Connections over the limit that are let in to be told so.
        children: Server processes that are wanted.
        connections: Connections that are wanted; None for as many as there can be.
    """
    room = limit - OWN - band
    if limit < least_needed(band):
        return None
    if room - PER_CHILD * children < ENOUGH:
        children = min(children, max(1, room // (2 * PER_CHILD)))
    left = room - PER_CHILD * children
    return Share(children, left if connections is None else min(left, connections))
