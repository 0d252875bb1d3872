"""How another child takes over from one that is due to be recycled, by what it serves.

| child | taken over |
|---|---|
| shared | at once: the next one starts first; the old one finishes its calls, then it ends |
| of one session | between its calls: it ends, then another one starts |
| of one call of 2026-07-28 at a time | it takes no further call; a parked one is finished |
| spare | at once |
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mcpbridge.bridge.children.child_pool import ChildPool
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.server_eras import EraSupervisors
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_start import SessionStarter
from mcpbridge.bridge.tasks import Spawn

log = logging.getLogger("mcpbridge.bridge")


class Recycler:
    """Lets another child take over from one that is due; owned by the bridge."""

    def __init__(self, child_pool: ChildPool, spawn: Spawn) -> None:
        """Make a recycler.

        Args:
            child_pool: Has all children.
            spawn: Runs work that outlives the look at a child.
        """
        self._child_pool = child_pool
        self._spawn = spawn
        self._waiting: set[Lease] = set()

    def replace(
        self,
        lease: Lease,
        eras: EraSupervisors,
        session_starter: SessionStarter,
        sessions: Iterable[Session],
    ) -> None:
        """Replace a child of one tenant when no client notices; may be called again and again.

        Args:
            lease: The child.
            eras: Keeps the tenant's shared children.
            session_starter: Gives its sessions children of their own.
            sessions: Those that are open.
        """
        if lease.mux.shared:
            eras.replace(lease)
        elif not self._child_pool.refresh(lease) and lease not in self._waiting:
            for session in sessions:
                if session.lease is lease:
                    self._waiting.add(lease)
                    self._spawn(self._between_calls, session, lease, session_starter)
                    return
            # A child of the pool: `bridge.children.warm_pool` gives it no further call.

    async def _between_calls(
        self, session: Session, lease: Lease, session_starter: SessionStarter
    ) -> None:
        try:
            await lease.mux.wait_idle()
            busy = session.in_flight or len(session.server_requests)
            if session.lease is lease and not lease.mux.shut and not busy:
                await session_starter.renew(session)
        finally:
            # If its session was busy after all, the next look begins again.
            self._waiting.discard(lease)
