"""Accounts of what is kept, and who gives way when something is short: pure verdicts.

What is free may be used; what is scarce is divided, and the heaviest gives way first. A client is a
principal, or without authentication an address: see `Principal.share_key`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import TypeVar

Holder = TypeVar("Holder")

MESSAGE_BYTES = 256
"""Counted for each message that is kept, in addition to its bytes: the objects that hold it."""
LARGE_BYTES = 4096
"""Messages of calls in flight are charged above this size; `--max-calls` bounds the others."""

LEAST_CUT_BYTES = 1 << 16
"""A holder of less is never ended for want of memory; a session without anything has a quarter."""


class Account:
    """The bytes that are kept for one holder; they count in the account above it as well."""

    __slots__ = ("_above", "held")

    def __init__(self, above: Account | None = None) -> None:
        """Open an account that holds nothing.

        Args:
            above: The account that this one is part of; None: it is the whole.
        """
        self._above = above
        self.held = 0
        """Bytes kept now."""

    def charge(self, change: int) -> None:
        """Count bytes that are kept from now on, or, below zero, are not kept any more."""
        self.held += change
        if self._above is not None:
            self._above.charge(change)

    def __del__(self) -> None:
        # What is left on an account goes with its holder.
        if self.held and self._above is not None:
            self._above.charge(-self.held)


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


def reserved(most: int) -> int:
    """Return how many of `most` places are kept for clients that have less than their share."""
    return most // 16


def within_share(counts: Mapping[Holder, int], newcomer: Holder, most: int) -> bool:
    """Return whether a client may take one of the places that are reserved.

    It may if it has fewer than its part of all places would be with one client more: so a client
    that is alone never takes the last places, and another one that comes finds some.

    Args:
        counts: How many places each holder has.
        newcomer: The holder that wants one more.
        most: How many places there are in all.
    """
    clients = sum(count > 0 for holder, count in counts.items() if holder != newcomer) + 1
    return counts.get(newcomer, 0) < most // (clients + 1)


def heaviest(groups: Sequence[Mapping[Holder, int]], excess: int) -> list[Holder]:
    """Return the holders to end so that `excess` bytes are freed, and no more than needed.

    The group that holds most gives way first, by its heaviest holder: many small holders of one
    kind must not hide behind a single larger one of another kind. One that holds less than the
    mean of its group, or than `LEAST_CUT_BYTES`, stays, and so do lighter groups, even if not
    enough is freed then: what has been ended may take a moment to let its bytes go, and no other
    must end for that.

    Args:
        groups: The bytes of each holder, by kind.
        excess: Bytes that must be freed; 0 or less: none.
    """
    found: list[Holder] = []
    sums = [sum(group.values()) for group in groups]
    # By group, the heaviest holder last.
    left = [
        sorted(
            (pair for pair in group.items() if pair[1] >= max(total / len(group), LEAST_CUT_BYTES)),
            key=lambda pair: pair[1],
        )
        for group, total in zip(groups, sums, strict=True)
    ]
    while excess > 0 and sums and left[place := sums.index(max(sums))]:
        holder, size = left[place].pop()
        sums[place] -= size
        excess -= size
        found.append(holder)
    return found
