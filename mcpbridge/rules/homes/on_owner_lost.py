"""The operator's choice for sessions whose owner stays unknown; alone, since settings name it."""

from __future__ import annotations

import enum


class OnOwnerLost(enum.Enum):
    """The operator's choice for a session with an own child whose owner stays unknown."""

    RESTART = "restart"
    """It begins elsewhere, and its old owner is told to yield until it has."""
    END = "end"
    """It ends: its client gets 404 and begins a new one."""
