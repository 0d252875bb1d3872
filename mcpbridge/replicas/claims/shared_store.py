"""The store that replicas share, as one of them uses it; imported with `--store` only."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from mcpbridge.bridge.readiness import Readiness
from mcpbridge.replicas.claims.changes import SessionChanges
from mcpbridge.replicas.claims.claims import ClaimableSessions, Claims
from mcpbridge.replicas.session_id import Replica
from mcpbridge.rules.homes.adoption import REVIVABLE_S
from mcpbridge.stores.fence import Fence
from mcpbridge.stores.redis import RedisStore
from mcpbridge.stores.url import StoreUrl

_LEAST_KEPT_S = 60.0
"""Claims are renewed three times in the time for which they are kept, between heartbeats."""
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SharedStore:
    """A store on a Redis or Valkey server."""

    def __init__(
        self, url: StoreUrl, own: Replica, idle_s: float, failed: Callable[[], None]
    ) -> None:
        """Make it; it connects with its first question.

        Args:
            url: Where the server is.
            own: This replica.
            idle_s: Seconds after which an unused session ends; 0: never.
            failed: Called when a question has failed.
        """
        self._home = str(own)
        self._keep_s = max(_LEAST_KEPT_S, idle_s or REVIVABLE_S)
        self._store = RedisStore(url, time.monotonic, failed=failed)
        self._fence = Fence(self._store, self._home, self._keep_s, _clock)
        self.changes = SessionChanges(self._store, self._keep_s)
        """Writes what changed in sessions."""

    def opened(self, session_id: str, *, carries_params: bool) -> None:
        """Take note of a session that opens here; `carries_params`: its id has its `initialize`."""
        self._fence.begun(session_id)
        if not carries_params:
            self.changes.needs_params(session_id)

    def claims(self, sessions: ClaimableSessions) -> Claims:
        """Return the claims of this replica; `sessions` are those that it has."""
        parts = (self._fence, self.changes, sessions, _clock)
        return Claims(self._store, self._home, self._keep_s, *parts)


def _clock() -> float:
    """Return monotonic seconds that go on while the machine sleeps, as those of the store do."""
    return time.clock_gettime(_CLOCK)


async def keep_claims(
    claims: Claims, reach: Callable[[], Awaitable[tuple[int, int]]], readiness: Readiness
) -> None:
    """Keep heartbeat and claims until cancelled; a replica that is cut off is not ready.

    Args:
        claims: Those of this replica.
        reach: Asks all peers: see `Claims.run`.
        readiness: Blocked while this replica reaches neither the store nor a peer.
    """

    def isolated(cut_off: bool) -> None:
        if cut_off:
            readiness.block("isolated", "neither the store nor another replica can be reached")
        else:
            readiness.unblock("isolated")

    await claims.run(reach, isolated)
