"""How another child takes over from one that is due to be recycled.

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
    """A recycler that replaces children that are due; owned by the bridge."""

    def __init__(self, child_pool: ChildPool, spawn: Spawn) -> None:
        """Make a recycler.

        Args:
            child_pool: Replaces spare children.
            spawn: Starts a task of the bridge, which outlives the health check.
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
        """Replace a child of one tenant as soon as no client notices; may be called repeatedly.

        Args:
            lease: The child that is due.
            eras: Keeps the tenant's shared children.
            session_starter: Gives the tenant's sessions their own children.
            sessions: The tenant's open sessions.
        """
        if lease.mux.shared:
            eras.replace(lease)
        elif not self._child_pool.refresh(lease) and lease not in self._waiting:
            for session in sessions:
                if session.lease is lease:
                    self._waiting.add(lease)
                    self._spawn(self._between_calls, session, lease, session_starter)
                    return
            # A child of the warm pool: `bridge.children.warm_pool` gives it no further call.

    async def _between_calls(
        self, session: Session, lease: Lease, session_starter: SessionStarter
    ) -> None:
        try:
            await lease.mux.wait_idle()
            # Between the child's last answer and this turn the client may have sent a call, or the
            # session may have ended or have another child.
            busy = session.in_flight or len(session.server_requests)
            if session.lease is lease and not lease.mux.shut and not busy:
                await session_starter.renew(session)
        finally:
            # If the session was busy after all, the next health check tries again.
            self._waiting.discard(lease)
