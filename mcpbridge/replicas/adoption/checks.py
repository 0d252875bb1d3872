"""Checks that a session here has no other home, after a time in which it may have got one.

Only with a store is that asked. While the store is away the peers are asked in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcpbridge.replicas.adoption.copies import Copies
from mcpbridge.replicas.peer_messages import HomeQuestion
from mcpbridge.replicas.peers import Peers, home_in
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.faults import Fault, isolated, replica_unreachable
from mcpbridge.rules.homes.adoption import PeerAnswer

if TYPE_CHECKING:
    from mcpbridge.replicas.claims.claims import Claims


class SessionChecks:
    """The checks of the sessions of one replica."""

    def __init__(self, peers: Peers, copies: Copies, claims: Claims | None) -> None:
        """Make them.

        Args:
            peers: They are asked while the store is away.
            copies: Gives up the copy of a session that has another home.
            claims: Asks the store; None: there is none, and no session has to be checked.
        """
        self._peers = peers
        self._copies = copies
        self._claims = claims

    @property
    def has_store(self) -> bool:
        """Whether there is a store, so that sessions may have to be checked."""
        return self._claims is not None

    def must_check(self, session_id: str) -> bool:
        """Return whether a session that is here may be served only after `check`."""
        return self._claims is not None and self._claims.must_check(session_id)

    async def check(self, session_id: str, principal: Principal) -> Fault | None:
        """Check that a session has no other home, after a time in which it may have got one.

        The copy here ends if it has.

        Returns:
            Why it cannot be served now; None if it can, or has ended here.
        """
        if self._claims is None:
            return None
        held = await self._claims.holds(session_id)
        if held is None:
            return await self._check_at_peers(self._claims, session_id, principal)
        if not held:
            try:
                home = await self._claims.home(session_id)
            except LookupError:
                home = None
            self._copies.give_up(session_id, home)
        return None

    async def bury(self, session_id: str) -> None:
        """Take note in the store that a client deletes its session: no replica revives it."""
        if self._claims is not None:
            await self._claims.bury(session_id)

    async def _check_at_peers(
        self, claims: Claims, session_id: str, principal: Principal
    ) -> Fault | None:
        """Check a session without the store, as `check` does."""
        question = HomeQuestion(session_id, self._peers.address)
        told = [each for _, each in await self._peers.ask_all(question, principal)]
        answers = [each for each in told if each is not None]
        if told and not answers:
            return isolated()
        for each in answers:
            if each.answer is PeerAnswer.ADOPTING:
                return replica_unreachable()
            home = home_in(each)
            if home is not None:
                self._copies.give_up(session_id, home)
                return None
        claims.vouch(session_id)
        return None
