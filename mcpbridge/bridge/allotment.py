"""Where the children of one principal come from.

Placement counts all children of the process. What belongs to the principal that came first, or to
everybody where nobody is asked, has a place kept for its shared child; the shared children of
others take places like any child of a single session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from mcpbridge.bridge.placement import Lease, Placement
from mcpbridge.process.child import MakeChild
from mcpbridge.rules.access.principals import Hidden

_CLOSE_S = 1.0
"""The rungs of the stop ladder: a client of another principal may wait for the place."""


class Supply(Protocol):
    """Where children come from: placement itself, or one principal's allotment."""

    async def shared(self) -> Lease:
        """A fresh child that many sessions will use; see `Placement.shared`."""

    async def own(self) -> Lease:
        """A fresh child for one session alone; see `Placement.own`."""

    def release(self, lease: Lease, grace_s: float = 5.0) -> None:
        """The child is not used any more: it ends."""

    async def end(self, lease: Lease, grace_s: float) -> None:
        """End a child and wait until its place is free."""

    def retire(
        self, lease: Lease, within_s: float | None, settle: Callable[[], Awaitable[None]]
    ) -> None:
        """Let a child finish what it has; see `Placement.retire`."""

    def became_ready(self, start_s: float) -> None:
        """A shared child has had its handshake."""

    def starts_again(self) -> None:
        """A shared child will be started in place of one that ended."""


class Allotment:
    """The children of one further principal, as placement gives them."""

    def __init__(self, placement: Placement, make_child: MakeChild | None, hidden: Hidden) -> None:
        """Make it.

        Args:
            placement: Has the children of all.
            make_child: Makes those of this principal; None: like all others, spares included.
            hidden: What their noise may hold and no log may show.
        """
        self._placement = placement
        self._hidden = hidden
        self._make_child = make_child
        self._given: set[Lease] = set()
        self.release = placement.release
        self.end = placement.end
        self.retire = placement.retire
        self.became_ready = placement.became_ready
        self.starts_again = placement.starts_again

    @property
    def leases(self) -> list[Lease]:
        """The children that it has given and that have not ended."""
        self._given = {lease for lease in self._given if not lease.child.exited.is_set()}
        return list(self._given)

    async def shared(self) -> Lease:
        """A fresh child for the sessions of this principal; see `Placement.further`."""
        return self._noted(await self._placement.further(self._make_child))

    async def own(self) -> Lease:
        """A fresh child for one session of this principal; see `Placement.own`."""
        return self._noted(await self._placement.own(self._make_child))

    async def close(self) -> None:
        """End all of them and wait until their places are free."""
        for lease in self.leases:
            self.release(lease, _CLOSE_S)
        for lease in self.leases:
            await self.end(lease, _CLOSE_S)

    def _noted(self, lease: Lease) -> Lease:
        self._given.add(lease)
        lease.mux.hidden = self._hidden
        return lease
