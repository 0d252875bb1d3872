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

from mcpbridge.bridge.children.child_pool import Placement
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.server_eras import Eras
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_start import Opener
from mcpbridge.bridge.tasks import Spawn

log = logging.getLogger("mcpbridge.bridge")


class Renewal:
    """Lets worn children go; owned by the bridge."""

    def __init__(
        self,
        eras: Eras,
        placement: Placement,
        opener: Opener,
        sessions: Iterable[Session],
        spawn: Spawn,
    ) -> None:
        """Make it.

        Args:
            eras: Keeps the shared children.
            placement: Has all of them.
            opener: Gives sessions their own.
            sessions: All that are open.
            spawn: Runs work in the bridge's own time.
        """
        self._eras = eras
        self._placement = placement
        self._opener = opener
        self._sessions = sessions
        self._spawn = spawn
        self._waiting: set[Lease] = set()

    def replace(self, lease: Lease) -> None:
        """Replace this child when that costs nobody anything; may be called again and again."""
        if lease.mux.shared:
            self._eras.replace(lease)
        elif not self._placement.refresh(lease) and lease not in self._waiting:
            for session in self._sessions:
                if session.lease is lease:
                    self._waiting.add(lease)
                    self._spawn(self._between_calls, session, lease)
                    return
            # A child of the pool: `bridge.pool` gives it no further call.

    async def _between_calls(self, session: Session, lease: Lease) -> None:
        try:
            await lease.mux.quiet()
            busy = session.in_flight or len(session.inquiries)
            if session.lease is lease and not lease.mux.shut and not busy:
                await self._opener.renew(session)
        finally:
            # Where its session was busy after all, the next look begins again.
            self._waiting.discard(lease)
