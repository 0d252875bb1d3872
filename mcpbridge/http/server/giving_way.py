"""Which connection gives way to a new one when there are as many as may be.

The peer that holds most connections without a request in service gives way first, since one that
opens connections and sends nothing, or halves of requests, would otherwise keep all others out.

| a connection | gives way to another peer | to one of the same peer |
|---|---|---|
| between two requests | first | first |
| before the end of a head | then | then, if it is older than a second |
| before the end of a body | then | never |
| on which a client only listens | last | never |
| with a request in service | never | never |

A reverse proxy that is not trusted is one peer, and may have every connection if no other peer
wants one.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Hashable, Iterable
from typing import Protocol, TypeAlias, TypeVar

from mcpbridge.rules.access.shares import ranked

FRESH_S = 1.0
"""Seconds in which the head of a request usually arrives."""
_LOOKED_AT = 1024
"""Most connections that are looked at for a new one: among them is the heaviest peer."""

Peer: TypeAlias = Hashable


class Standing(enum.IntEnum):
    """What a connection is doing, in the order in which connections give way."""

    IDLE = 0
    HEAD = 1
    FRESH_HEAD = 2
    BODY = 3
    LISTENS = 4
    BUSY = 5


_TO_ITS_OWN = (Standing.IDLE, Standing.HEAD)


class Holding(Protocol):
    """A connection that may give way."""

    @property
    def peer(self) -> Peer:
        """What stands for the peer that holds it."""

    @property
    def standing(self) -> Standing:
        """What it is doing."""

    def give_way(self) -> None:
        """End it and free its place."""


Connection = TypeVar("Connection", bound=Holding)


def giving_way(newcomer: Connection, others: Iterable[Connection]) -> Connection | None:
    """Return the connection that gives way to a new one; None if none does."""
    counts: dict[Peer, int] = {}
    first: dict[Peer, tuple[Standing, Connection]] = {}
    own = newcomer.peer
    for each in itertools.islice(others, _LOOKED_AT):
        standing = each.standing
        # The newcomer is in the table already: it was accepted before it was found to be too many.
        if each is newcomer or standing is Standing.BUSY:
            continue
        peer = each.peer
        counts[peer] = counts.get(peer, 0) + 1
        before = first.get(peer)
        if before is None or standing < before[0]:
            first[peer] = standing, each
    for peer in ranked(counts, own):
        standing, found = first[peer]
        if peer != own or standing in _TO_ITS_OWN:
            return found
    return None
