"""Places of calls that wait for their clients' answers, divided between clients: `--max-parked`.

A call has its place before a child is found for it, so that calls that begin at the same time count
each other, and until its child is free or gone. If all places are taken, the client with most of
them gives way to one that has fewer, by the call that has been parked for longest, whose client is
the least likely to answer. A call that the child works on is never ended for another.

A parked call holds a child as well; `evict` ends one if a client with fewer children needs the
place.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from mcpbridge.bridge.children.child_pool import Order
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.modern.parked_call import ParkedCall
from mcpbridge.rules.access.shares import ranked
from mcpbridge.rules.faults import Fault, Unavailable, capacity, parked_call_gave_way

End = Callable[[Fault], None]
"""Ends a parked call; the fault is told to its client if it asks for the call again."""


class Parking:
    """The places of all tenants' calls; owned by the bridge."""

    def __init__(self, most: int, gave_way: Callable[[], None]) -> None:
        """Make it without calls.

        Args:
            most: Most places, `--max-parked`.
            gave_way: Called for each call that is ended for another client.
        """
        self._most = most
        self._gave_way = gave_way
        self._coming: collections.Counter[bytes] = collections.Counter()
        """Places by client of calls for which a child is sought."""
        self._calls: dict[ParkedCall, End] = {}
        """The calls that have a child, in order of their start."""

    @property
    def taken(self) -> int:
        """Number of places that are taken."""
        return self._coming.total() + len(self._calls)

    @property
    def calls(self) -> list[ParkedCall]:
        """The calls that have a child, in order of their start."""
        return list(self._calls)

    @contextmanager
    def coming(self, caller: bytes) -> Iterator[None]:
        """Take a place until the block ends; `enter` takes it over within the same turn.

        Raises:
            Unavailable: All places are taken, and no other client gives way.
        """
        if self.taken >= self._most and not self._make_room(caller):
            raise Unavailable(capacity("--max-parked", self._most))
        self._coming[caller] += 1
        try:
            yield
        finally:
            self._coming[caller] -= 1
            # Else every client that ever called would be remembered.
            self._coming += collections.Counter()

    def enter(self, call: ParkedCall, end: End) -> None:
        """Give a place to a call that has its child now; `end` ends it for another client."""
        self._calls[call] = end

    def leave(self, call: ParkedCall) -> None:
        """Free the place of a call; do nothing if it has none."""
        self._calls.pop(call, None)

    def evict(self, order: Order) -> Collection[Lease]:
        """End the call that has been parked for longest; return its child.

        Args:
            order: Says whose child gives way, and whose first.
        """
        ranked_calls = [(order(call.lease), at, call) for at, call in self._parked()]
        found = [(rank, at, call) for rank, at, call in ranked_calls if rank is not None]
        if not found:
            return ()
        _, _, call = min(found, key=lambda each: each[:2])
        self._end(call, "--max-children")
        return (call.lease,)

    def _make_room(self, newcomer: bytes) -> bool:
        """End a parked call of the client with most places; return whether there was one."""
        counts = self._coming + collections.Counter(call.caller for call in self._calls)
        counts[newcomer] += 1
        for holder in ranked(counts, newcomer):
            own = [(at, call) for at, call in self._parked() if call.caller == holder]
            if own and holder != newcomer:
                _, longest = min(own, key=lambda each: each[0])
                self._end(longest, f"--max-parked {self._most}")
                return True
        return False

    def _parked(self) -> list[tuple[float, ParkedCall]]:
        return [(at, call) for call in self._calls if (at := call.parked_at) is not None]

    def _end(self, call: ParkedCall, limit: str) -> None:
        end = self._calls.pop(call)
        self._gave_way()
        end(parked_call_gave_way(limit))
