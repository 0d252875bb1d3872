"""Shares out the limit on open files.

A connection takes one file, a server process four: its three pipes, and one that signals its end.
The program's own needs stay in reserve, with room to start a process while all connections are
taken. If the limit is low, server processes and connections get half each.
"""

from __future__ import annotations

import msgspec

PER_CHILD = 4
OWN = 32
"""Files for the program itself, and for the moment of starting a process."""
ENOUGH = 64
"""Connections beyond which the number of server processes is not reduced."""
LEAST = 8
"""Fewest connections worth serving."""


class Share(msgspec.Struct, frozen=True):
    """The numbers allowed at once."""

    children: int
    connections: int


def least_needed(band: int) -> int:
    """Return the smallest limit on open files under which one server process can be served."""
    return OWN + band + PER_CHILD + LEAST


def share(limit: int, band: int, children: int, connections: int | None) -> Share | None:
    """Share out the files that may be open; None if they are too few.

    Args:
        limit: Limit on open files.
        band: Connections over the limit that are accepted to be refused with an answer.
        children: Wanted server processes.
        connections: Wanted connections; None for the maximum.
    """
    room = limit - OWN - band
    if limit < least_needed(band):
        return None
    if room - PER_CHILD * children < ENOUGH:
        children = min(children, max(1, room // (2 * PER_CHILD)))
    left = room - PER_CHILD * children
    return Share(children, left if connections is None else min(left, connections))
