"""Who gives way when something is short: pure verdicts on how much of it each client has.

What is free may be used; what is scarce is divided, and the heaviest gives way first. A client is a
principal, or without authentication an address: see `Principal.share_key`.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Mapping
from typing import TypeVar

Holder = TypeVar("Holder")


class Pressure(enum.IntEnum):
    """What has to be done so that no more is kept than may be."""

    NONE = 0
    SHED = 1
    """Let go what was kept only in case that a client asks for it again."""
    REFUSE = 2
    """Take no new work."""
    CUT = 3
    """End the client that has most."""


SHED_AT = 0.75
REFUSE_AT = 0.875
"""Parts of the limit; beyond the whole of it clients are cut."""


def pressure(held: int, limit: int) -> Pressure:
    """Return what has to be done if `held` bytes are kept of `limit` that may be."""
    if held > limit:
        return Pressure.CUT
    if held > limit * REFUSE_AT:
        return Pressure.REFUSE
    return Pressure.SHED if held > limit * SHED_AT else Pressure.NONE


def ranked(counts: Mapping[Holder, int], newcomer: Holder) -> list[Holder]:
    """Return the holders that may have to give one place to a newcomer, the heaviest first.

    Those are the holders that have more places than the newcomer, and the newcomer itself if it has
    any: it never takes a place of a client with fewer or as many.

    Args:
        counts: How many places each holder has.
        newcomer: The holder that wants one more.
    """
    own = counts.get(newcomer, 0)
    heavier = [(-count, number, holder) for number, (holder, count) in enumerate(counts.items())]
    found = [holder for negative, _, holder in sorted(heavier) if -negative > own]
    return [*found, newcomer] if own else found


def heaviest(sizes: Mapping[Holder, int], excess: int) -> list[Holder]:
    """Return the holders to end so that `excess` bytes are freed: the heaviest first, and no more.

    Those that hold nothing are never among them.
    """
    found: list[Holder] = []
    order = [(-size, number, holder) for number, (holder, size) in enumerate(sizes.items())]
    heapq.heapify(order)
    while excess > 0 and order:
        size, _, holder = heapq.heappop(order)
        if not size:
            break
        found.append(holder)
        excess += size
    return found
