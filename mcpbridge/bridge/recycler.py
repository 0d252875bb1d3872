"""How another child takes over from one that is worn, by whom it serves.

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
    """Lets worn children go; owned by the bridge."""

    def __init__(
        self,
        eras: EraSupervisors,
        child_pool: ChildPool,
        session_starter: SessionStarter,
        sessions: Iterable[Session],
        spawn: Spawn,
    ) -> None:
        """Make it.

        Args:
            eras: Keeps the shared children.
            child_pool: Has all of them.
            session_starter: Gives sessions their own.
            sessions: All that are open.
            spawn: Runs work in the bridge's own time.
        """
        self._eras = eras
        self._child_pool = child_pool
        self._session_starter = session_starter
        self._sessions = sessions
        self._spawn = spawn
        self._waiting: set[Lease] = set()

    def replace(self, lease: Lease) -> None:
        """Replace this child when that costs nobody anything; may be called again and again."""
        if lease.mux.shared:
            self._eras.replace(lease)
        elif not self._child_pool.refresh(lease) and lease not in self._waiting:
            for session in self._sessions:
                if session.lease is lease:
                    self._waiting.add(lease)
                    self._spawn(self._between_calls, session, lease)
                    return
            # A child of the pool: `bridge.children.warm_pool` gives it no further call.

    async def _between_calls(self, session: Session, lease: Lease) -> None:
        try:
            await lease.mux.wait_idle()
            busy = session.in_flight or len(session.server_requests)
            if session.lease is lease and not lease.mux.shut and not busy:
                await self._session_starter.renew(session)
        finally:
            # Where its session was busy after all, the next look begins again.
            self._waiting.discard(lease)
