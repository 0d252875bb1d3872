"""The source of one principal's children.

`ChildPool` counts all children of the process. It reserves a place for the shared child of the
principal that came first, the only one if clients do not authenticate; the shared children of
others take places like children of single sessions.
"""

from __future__ import annotations

from mcpbridge.bridge.children.child_pool import ChildPool
from mcpbridge.bridge.children.lease import Lease, Wanted
from mcpbridge.process.child import MakeChild

_CLOSE_S = 1.0
"""Seconds for each step of stopping: a client of another principal may wait for the place."""


class TenantPool:
    """A view of the pool for one principal that is not the first: a `ChildSource`."""

    def __init__(self, child_pool: ChildPool, make_child: MakeChild | None, caller: bytes) -> None:
        """Make a view that has given no child yet.

        Args:
            child_pool: Has the children of all principals.
            make_child: Makes this principal's; None: they are like all others, and may be spares.
            caller: The principal, by its `Principal.share_key`.
        """
        self._caller = caller
        self._child_pool = child_pool
        self._make_child = make_child
        self._given: set[Lease] = set()
        self.own_wanted = child_pool.own_wanted
        self.release = child_pool.release
        self.end = child_pool.end
        self.idle = child_pool.idle
        self.fell_back = child_pool.fell_back
        self.retire = child_pool.retire
        self.became_ready = child_pool.became_ready
        self.starts_again = child_pool.starts_again
        self.charged = child_pool.charged

    @property
    def leases(self) -> list[Lease]:
        """The children that it has given and that still run."""
        self._given = {lease for lease in self._given if not lease.child.exited.is_set()}
        return list(self._given)

    async def shared(self) -> Lease:
        """Return a fresh child for all sessions of this principal; see `ChildPool.further`."""
        return self._noted(await self._child_pool.further(self._make_child, self._caller))

    async def own(self, *, wanted: Wanted | None = None, caller: bytes = b"") -> Lease:
        """Return a fresh child for one session of this principal; see `ChildPool.own`."""
        make_child, caller = self._make_child, caller or self._caller
        return self._noted(await self._child_pool.own(make_child, wanted=wanted, caller=caller))

    async def successor(self, *, caller: bytes = b"") -> Lease:
        """Return a fresh child for a session that has one; see `ChildPool.successor`."""
        make_child, caller = self._make_child, caller or self._caller
        return self._noted(await self._child_pool.successor(make_child, caller=caller))

    def pass_on(self, lease: Lease, caller: bytes) -> None:
        """Count a child as that of another client of this principal: see `ChildPool.pass_on`."""
        self._child_pool.pass_on(lease, caller or self._caller)

    async def close(self) -> None:
        """End all of its children and wait until their places are free."""
        for lease in self.leases:
            self.release(lease, _CLOSE_S)
        for lease in self.leases:
            await self.end(lease, _CLOSE_S)

    def _noted(self, lease: Lease) -> Lease:
        self._given.add(lease)
        return lease
