"""What the bridge asks of a store.

Nothing is written when a session opens, and nothing is asked on the way of a call: a session's id
names its first home. The store has claims, one for each session that was adopted. The first claim
wins; only that of a dead replica is replaced, and only if it has not changed. A session that its
client has deleted is `ENDED`: that is a claim too, so that no replica can revive it.

Values are kept for a time and are then gone, like sessions themselves. What is lost with a store
that begins empty is what changed in sessions whose home ends before it is written again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mcpbridge.errors import BridgeError
from mcpbridge.rules.homes.record import SessionRecord

ENDED = "ended"
"""The claim on a session that must not be revived."""
MAX_VALUE_BYTES = 1 << 20
"""Longest value that is kept; what is longer is lost with its replica."""
BEAT_FOR_S = 15.0
"""Seconds after which a heartbeat that was not refreshed is gone."""


class StoreAway(BridgeError):
    """A store that does not answer, or refuses; what needs it must do without or come again."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        """Without the store's password."""

    def __str__(self) -> str:
        return f"the store cannot be used: {self.problem}"


class Store(Protocol):
    """A store; its methods raise `StoreAway`, within 250 ms.

    A home is a replica as text, `10.0.0.7:8001/5d3a91f0`: address and boot. Times are in seconds.
    """

    async def claim(self, session_id: str, home: str, keep_s: float) -> str:
        """Claim a session unless it is claimed; return the home that has the claim, or `ENDED`."""

    async def replace(self, session_id: str, lost: str, home: str, keep_s: float) -> str:
        """Claim a session if it is not claimed or the claim is that of `lost`.

        Returns:
            The home that has the claim now, or `ENDED`.
        """

    async def home(self, session_id: str) -> str | None:
        """Return the home that has claimed a session, or `ENDED`; None if there is no claim."""

    async def renew(self, session_ids: Sequence[str], home: str, keep_s: float) -> list[str]:
        """Keep the claims of a home for longer; return the sessions that it has not claimed now."""

    async def release(self, session_id: str, home: str) -> None:
        """Give up a claim, if it is that of this home."""

    async def bury(self, session_id: str, keep_s: float) -> str | None:
        """End a session for good; return the home that had claimed it, to be told."""

    async def beat(self, home: str) -> None:
        """Say that a replica lives, for `BEAT_FOR_S` from now on."""

    async def beats(self, home: str) -> bool:
        """Return whether a replica has said so within that time."""

    async def silence(self, home: str) -> None:
        """Take back the heartbeat of a replica that ends."""

    async def save(self, session_id: str, record: SessionRecord, keep_s: float) -> bool:
        """Keep what changed in a session; return False if that is over `MAX_VALUE_BYTES`."""

    async def load(self, session_id: str) -> SessionRecord | None:
        """Return what `save` has kept; None if there is nothing that can be read."""

    async def keep_params(self, session_id: str, params: bytes, keep_s: float) -> bool:
        """Keep the params of `initialize`; return False if they are over `MAX_VALUE_BYTES`."""

    async def params(self, session_id: str) -> bytes | None:
        """Return what `keep_params` has kept; None if there is nothing."""

    async def close(self) -> None:
        """End its connections."""
