"""Where sessions are by now, as one replica has found or was told."""

from __future__ import annotations

from mcpbridge.replicas.leaving import LeavingSessions
from mcpbridge.replicas.session_id import Replica

_MOST_KNOWN = 4096
"""Sessions whose present home is remembered."""


class KnownHomes:
    """The homes that one replica knows of sessions which are not where their ids say."""

    def __init__(self, own: Replica, leaving: LeavingSessions) -> None:
        """Begin with none.

        Args:
            own: This replica.
            leaving: The sessions that leave it at its end, and the replicas that have taken them.
        """
        self._own = own
        self._leaving = leaving
        self._known: dict[str, Replica] = {}

    def home(self, session_id: str, named: Replica) -> Replica:
        """Return the home of a session: the one that was found last, else the one in its id."""
        # First: this replica may have found itself, and has handed the session over since.
        moved_to = self._leaving.moved_to(session_id)
        return moved_to or self._known.get(session_id) or named

    def elsewhere(self, session_id: str) -> Replica | None:
        """Return the home of a session that this replica had; None if it knows no other."""
        home = self._leaving.moved_to(session_id) or self._known.get(session_id)
        return home if home != self._own else None

    def remember(self, session_id: str, home: Replica) -> None:
        """Take note of the present home of a session."""
        if len(self._known) >= _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[session_id] = home
        self._leaving.follow(session_id, home)

    def forget(self, session_id: str) -> None:
        """Forget what was found of a session: it is lost there, or is here now."""
        self._known.pop(session_id, None)
