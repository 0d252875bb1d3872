"""Adopts a session whose home is lost: it is opened here again, unless another replica has it.

The adopter marks the session, asks all peers itself, and gives way if another one has the session
or comes first among those that adopt it: `rules.homes.adoption` has the reasons.

With a store the adopter claims the session before that, and the first claim decides: see `claims`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mcpbridge.replicas.adoption.adoptions import Adoptions
from mcpbridge.replicas.adoption.copies import Copies
from mcpbridge.replicas.adoption.host import SessionHost
from mcpbridge.replicas.adoption.revivable import RevivableSessions
from mcpbridge.replicas.peer_messages import HomeAnswer, HomeQuestion
from mcpbridge.replicas.peers import Peers
from mcpbridge.replicas.session_id import Replica
from mcpbridge.replicas.tombstones import Tombstones
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.faults import Unavailable, store_away
from mcpbridge.rules.homes.adoption import PeerAnswer, yields

if TYPE_CHECKING:
    from mcpbridge.replicas.claims.claims import Claims

log = logging.getLogger("mcpbridge.replicas")


class Adopter:
    """One replica, as it adopts sessions."""

    def __init__(
        self,
        peers: Peers,
        host: SessionHost,
        adoptions: Adoptions,
        copies: Copies,
        tombstones: Tombstones,
        revivable: RevivableSessions,
        claims: Claims | None,
    ) -> None:
        """Make it; nothing is adopted yet.

        Args:
            peers: They are asked before a session is opened here.
            host: Has the sessions of this replica.
            adoptions: Those that go on here.
            copies: Has homes that may live end theirs.
            tombstones: Remembers which sessions were deleted.
            revivable: Knows which sessions may be revived.
            claims: Asks the store; None: there is none.
        """
        self._peers = peers
        self._host = host
        self._adoptions = adoptions
        self._copies = copies
        self._tombstones = tombstones
        self._revivable = revivable
        self._claims = claims

    async def adopt(
        self,
        session_id: str,
        principal: Principal,
        lost: str,
        may_live: bool = False,
    ) -> HomeAnswer:
        """Adopt a session, or wait for the adoption that goes on.

        Args:
            session_id: The id that the client sends.
            principal: The client.
            lost: The last home; empty if that is not known.
            may_live: Whether that home may live.

        Raises:
            Unavailable: It cannot be opened here now.
        """
        going_on = self._adoptions.outcome(session_id)
        if going_on is not None:
            return await going_on
        if self._host.has(session_id, principal):
            return HomeAnswer(PeerAnswer.HAS, str(self._peers.own))
        if not self._host.may_adopt():
            return HomeAnswer(PeerAnswer.HAS_NOT)
        wait_s = self._adopts_in_s(claims=bool(lost))
        if wait_s:
            return HomeAnswer(PeerAnswer.HAS_NOT, adopts_in_s=wait_s)
        adopting = self._revived(session_id, principal, lost, may_live)
        return await self._adoptions.begin(session_id, adopting)

    def _adopts_in_s(self, *, claims: bool) -> float:
        """Return the seconds until this replica may adopt a session; 0 if it may now."""
        # A claim is safe at once; without one all must know each other.
        decides = claims and self._claims is not None and self._claims.up
        return 0.0 if decides else self._peers.settles_in_s

    async def _revived(
        self,
        session_id: str,
        principal: Principal,
        lost: str,
        may_live: bool,
    ) -> HomeAnswer:
        try:
            params = await self._revivable.params(session_id, principal)
            # It is marked by now: a peer that asks from here on learns that it is being adopted.
            await self._peers.look()
            claimed = await self._claim(session_id, params, lost)
        except LookupError:
            return HomeAnswer(PeerAnswer.HAS_NOT)
        if claimed is not None and claimed != self._peers.own:
            serves = await self._peers.serves(session_id, principal, claimed)
            return HomeAnswer(PeerAnswer.HAS if serves else PeerAnswer.HAS_NOT, str(claimed))
        own = self._peers.address
        question = HomeQuestion(session_id, own, adopts=True, lost=lost)
        answers = await self._peers.ask_all(question, principal)
        if self._tombstones.learn(session_id, answers):
            await self._give_up_claim(session_id)
            return HomeAnswer(PeerAnswer.GONE)
        for address, answer in answers:
            if answer is not None and yields(session_id, own, address, answer.answer):
                if answer.answer is PeerAnswer.HAS:
                    await self._give_up_claim(session_id)
                    return answer
                self._adoptions.give_way(session_id)
        if self._adoptions.gives_way(session_id) and claimed is None:
            return HomeAnswer(PeerAnswer.HAS_NOT)
        # In the turn of the check above: an adopter has asked before it, or finds this one decided.
        self._adoptions.decide(session_id)
        await self._open_again(session_id, params, principal)
        log.info("session.adopted")
        if lost and may_live:
            self._copies.replaced(session_id, lost.partition("/")[0], principal)
        return HomeAnswer(PeerAnswer.HAS, str(self._peers.own))

    async def _claim(self, session_id: str, params: bytes, lost: str) -> Replica | None:
        """Claim a session; return its home, None if there is no store that could say it.

        Raises:
            Unavailable: The store is away, and the session must not have two homes.
            LookupError: It has ended for good.
        """
        if self._claims is None:
            return None
        home = await self._claims.take(session_id, lost)
        if home is None and self._host.needs_own_child(params):
            raise Unavailable(store_away())
        return home

    async def _open_again(self, session_id: str, params: bytes, principal: Principal) -> None:
        claims = self._claims
        if claims is None:
            await self._host.revive(session_id, params, principal)
            return
        record = await claims.record(session_id)
        try:
            await self._host.revive(session_id, params, principal, record)
        except Unavailable:
            await claims.give_up(session_id)
            raise
        read = self._host.opened_id(session_id, principal)
        left_out = read is not None and read.params is None
        claims.adopted(session_id, record=record is not None, params=left_out)

    async def _give_up_claim(self, session_id: str) -> None:
        if self._claims is not None:
            await self._claims.give_up(session_id)
