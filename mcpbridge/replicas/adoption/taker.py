"""Takes sessions from a replica that ends: `replicas.handover` is the other side."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from mcpbridge.replicas.adoption.adoptions import Adoptions
from mcpbridge.replicas.adoption.host import SessionHost
from mcpbridge.replicas.adoption.known_homes import KnownHomes
from mcpbridge.replicas.peer_messages import HomeAnswer, OfferedSession
from mcpbridge.replicas.peers import Peers, address_of
from mcpbridge.replicas.session_id import Replica
from mcpbridge.replicas.tombstones import Tombstones
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.homes.adoption import PeerAnswer
from mcpbridge.rules.homes.record import is_sound

if TYPE_CHECKING:
    from mcpbridge.replicas.claims.claims import Claims

log = logging.getLogger("mcpbridge.replicas")

TAKEN_WITHIN_S = 1.5
"""Seconds in which a session that is handed over opens here, or is refused: its requests wait."""


class Taker:
    """One replica, as it takes the sessions of others."""

    def __init__(
        self,
        peers: Peers,
        host: SessionHost,
        adoptions: Adoptions,
        known_homes: KnownHomes,
        tombstones: Tombstones,
        claims: Claims | None,
    ) -> None:
        """Make it.

        Args:
            peers: They offer sessions.
            host: Has the sessions of this replica.
            adoptions: Those that go on here.
            known_homes: Forgets the last home of a session that is here.
            tombstones: Knows which sessions were deleted.
            claims: Asks the store; None: there is none.
        """
        self._peers = peers
        self._host = host
        self._adoptions = adoptions
        self._known_homes = known_homes
        self._tombstones = tombstones
        self._claims = claims

    async def take(self, offered: OfferedSession, principal: Principal) -> HomeAnswer:
        """Take a session from a replica that ends; return whether it is here."""
        session_id = offered.session
        self._peers.met(offered.asker)
        if self._host.has(session_id, principal) and session_id not in self._adoptions:
            return HomeAnswer(PeerAnswer.HAS, str(self._peers.own))
        if self._tombstones.has(session_id):
            return HomeAnswer(PeerAnswer.GONE)
        read = self._host.opened_id(session_id, principal)
        if read is None or read.one_stream or not is_sound(offered.record):
            return HomeAnswer(PeerAnswer.HAS_NOT)
        if session_id in self._adoptions or not self._host.may_take(principal):
            return HomeAnswer(PeerAnswer.HAS_NOT)
        # The one that has it gives it: adopters that ask have lost their way to it, and give way.
        self._adoptions.decide(session_id)
        return await self._adoptions.begin(session_id, self._taken(offered, principal))

    async def _taken(self, offered: OfferedSession, principal: Principal) -> HomeAnswer:
        session_id = offered.session
        try:
            async with asyncio.timeout(TAKEN_WITHIN_S):
                before = await self._claims.home(session_id) if self._claims is not None else None
                await self._host.revive(session_id, offered.params, principal, offered.record)
        except LookupError:
            return HomeAnswer(PeerAnswer.GONE)
        except (Unavailable, TimeoutError):
            return HomeAnswer(PeerAnswer.HAS_NOT)
        if self._claims is not None:
            await self._claim_taken(self._claims, offered, before, principal)
        self._known_homes.forget(session_id)
        log.info("session.taken_over", extra={"before": offered.asker})
        return HomeAnswer(PeerAnswer.HAS, str(self._peers.own))

    async def _claim_taken(
        self, claims: Claims, offered: OfferedSession, before: Replica | None, principal: Principal
    ) -> None:
        """Claim a session that was handed over here, if its last home had claimed it.

        Without that the fence would take the last home's claim for one against this replica.
        """
        if before is not None and address_of(before) == offered.asker:
            await claims.take(offered.session, str(before))
        read = self._host.opened_id(offered.session, principal)
        left_out = read is not None and read.params is None
        claims.adopted(offered.session, record=offered.record.changes, params=left_out)
