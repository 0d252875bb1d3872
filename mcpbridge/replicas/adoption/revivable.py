"""Which sessions may be revived: what that takes is in their ids, or in the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mcpbridge.replicas.adoption.host import SessionHost
from mcpbridge.replicas.tombstones import Tombstones
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.homes.adoption import is_revivable

if TYPE_CHECKING:
    from mcpbridge.replicas.claims.claims import Claims


class RevivableSessions:
    """The sessions that one replica may revive."""

    def __init__(
        self,
        host: SessionHost,
        tombstones: Tombstones,
        wall_clock: Callable[[], float],
        claims: Claims | None,
    ) -> None:
        """Make them.

        Args:
            host: Opens ids.
            tombstones: Knows which sessions were deleted.
            wall_clock: Returns seconds since the epoch.
            claims: Asks the store; None: there is none.
        """
        self._host = host
        self._tombstones = tombstones
        self._wall_clock = wall_clock
        self._claims = claims

    async def params(self, session_id: str, principal: Principal) -> bytes:
        """Return the params of a session that may be revived.

        Raises:
            LookupError: It may not.
            Unavailable: The store has them, and is away.
        """
        read = self._host.opened_id(session_id, principal)
        if read is None or read.one_stream:
            raise LookupError(session_id)
        if self._tombstones.has(session_id):
            raise LookupError(session_id)
        if not is_revivable(read.issued_s, self._wall_clock()):
            raise LookupError(session_id)
        params = read.params
        if params is None and self._claims is not None:
            params = await self._claims.params(session_id)
        if params is None:
            raise LookupError(session_id)
        return params
