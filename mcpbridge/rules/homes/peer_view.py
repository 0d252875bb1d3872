"""What one replica knows of the others: which there are, and since when.

The name of the replicas is resolved every 10 s and when a session has lost its home; some answers
are of an earlier time, from a cache on the way. So a peer that an answer lacks stays in view for a
while: it is asked about sessions, but is not chosen to adopt one. A peer that asks becomes known by
that, since it may have begun a moment ago.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

SETTLED_AFTER_S = 10.0
"""Seconds that a peer must have been seen before it adopts: the period of resolving the name."""
FORGOTTEN_AFTER_S = 2 * SETTLED_AFTER_S
"""Seconds after which a peer that no answer names is not asked any more."""


class KnownPeer(msgspec.Struct, frozen=True):
    """A replica in the view of one of them, which sees itself too."""

    address: str
    """Of its peer port."""
    seen_s: float
    """Seconds since it was first seen; for the replica itself, since it began to serve."""
    absent_s: float | None = None
    """Seconds since an answer last named it; None if the last one does."""

    @property
    def settled(self) -> bool:
        """Whether it has been seen long enough, and is there still."""
        return self.absent_s is None and self.seen_s >= SETTLED_AFTER_S


class PeerView:
    """The replicas that one of them knows; owned by it."""

    def __init__(self, own: str, now: float) -> None:
        """Begin with the replica itself.

        Args:
            own: The address of its peer port.
            now: The event loop's time, in seconds; so are all others.
        """
        self._own = own
        self._first: dict[str, float] = {own: now}
        self._last: dict[str, float] = {own: now}
        """When an answer last named each, or when it asked."""
        self._resolved_at = now

    def resolved(self, addresses: Iterable[str], now: float) -> None:
        """Take an answer of the name server; a failed look-up says nothing and is not told."""
        self._resolved_at = now
        for address in (*addresses, self._own):
            self.met(address, now)
        for address, at in list(self._last.items()):
            if now - at > FORGOTTEN_AFTER_S:
                del self._first[address], self._last[address]

    def met(self, address: str, now: float) -> None:
        """Take note of a peer that asked, or that an answer names."""
        self._first.setdefault(address, now)
        self._last[address] = now

    def absent_s(self, address: str, now: float) -> float | None:
        """Return how long ago an answer last named a replica, in seconds.

        Returns:
            None if the last answer names it. One that is not known, or was forgotten, has been
            absent since this replica began, which is all that it can say.
        """
        last = self._last.get(address)
        if last is None:
            return now - self._first[self._own]
        return None if last >= self._resolved_at else now - last

    def peers(self, now: float) -> list[KnownPeer]:
        """Return the replicas in view, this one included."""
        return [
            KnownPeer(address, now - at, self.absent_s(address, now))
            for address, at in self._first.items()
        ]
