"""What holds the sessions of a replica, as this package sees it."""

from __future__ import annotations

from typing import Protocol

from mcpbridge.replicas.session_id import SessionId
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.homes.record import SessionRecord


class SessionHost(Protocol):
    """What holds the sessions of this replica."""

    def has(self, session_id: str, principal: Principal) -> bool:
        """Return whether a session of this client is here."""

    def is_here(self, session_id: str) -> bool:
        """Return whether a session of any client is here."""

    def opened_id(self, session_id: str, principal: Principal) -> SessionId | None:
        """Return what an id says; None if it says nothing to this client."""

    def needs_own_child(self, params: bytes) -> bool:
        """Return whether a client that says this in `initialize` gets a child for itself."""

    def may_adopt(self) -> bool:
        """Return whether this replica takes further sessions."""

    def may_take(self, principal: Principal) -> bool:
        """Return whether it takes another session of this client, and ends none for it."""

    async def revive(
        self,
        session_id: str,
        params: bytes,
        principal: Principal,
        record: SessionRecord | None = None,
    ) -> None:
        """Open a session again, with what is known of it.

        Raises:
            Unavailable: It cannot be opened here now.
        """

    def end(self, session_id: str, principal: Principal) -> None:
        """End a session, if it is here."""

    def end_copy(self, session_id: str) -> None:
        """End this replica's copy of a session that has another home."""
