"""The two copies of a session that was replaced while its home may live: the old one has to end.

The new home tells the old one until it has answered: see `yield_orders`. With a store the old one
finds out by itself: see `checks`.
"""

from __future__ import annotations

import logging

from mcpbridge.replicas.adoption.adoptions import Adoptions
from mcpbridge.replicas.adoption.host import SessionHost
from mcpbridge.replicas.adoption.known_homes import KnownHomes
from mcpbridge.replicas.adoption.yield_orders import YieldOrders
from mcpbridge.replicas.peer_messages import HomeAnswer, HomeQuestion
from mcpbridge.replicas.peers import Peers
from mcpbridge.replicas.session_id import Replica, replica_named
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.homes.adoption import PeerAnswer
from mcpbridge.rules.homes.owner import OwnerSign, OwnerVerdict, judge_owner
from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S

log = logging.getLogger("mcpbridge.replicas")


class Copies:
    """The copies that one replica gives up, and those that it tells others to give up."""

    def __init__(
        self, peers: Peers, host: SessionHost, known_homes: KnownHomes, adoptions: Adoptions
    ) -> None:
        """Begin with none; `run` tells others.

        Args:
            peers: They have the other copies.
            host: Has the sessions of this replica.
            known_homes: Remembers where a session is whose copy was given up.
            adoptions: Those that go on here.
        """
        self._peers = peers
        self._host = host
        self._known_homes = known_homes
        self._adoptions = adoptions
        self._orders = YieldOrders(self._tell_to_yield, self._has_taken_over)

    async def run(self) -> None:
        """Tell homes that were replaced while they may live, until cancelled."""
        await self._orders.run()

    async def tell_to_yield(self) -> None:
        """Tell each home that was replaced while it may live, once; `run` does so by itself."""
        await self._orders.tell_all()

    def replaced(self, session_id: str, address: str, principal: Principal) -> None:
        """Have the home at an address, which may live, end its copy of a session."""
        self._orders.add(session_id, address, principal)

    def yielded(self, session_id: str, home: str, principal: Principal) -> HomeAnswer:
        """End this replica's copy of a session, which another one has taken over."""
        named = replica_named(home)
        if named is None or named == self._peers.own:
            return HomeAnswer(PeerAnswer.HAS_NOT)
        if session_id in self._adoptions:
            # It is told again in a second.
            self._adoptions.give_way(session_id)
            return HomeAnswer(PeerAnswer.ADOPTING)
        if self._host.has(session_id, principal):
            self.give_up(session_id, named)
        return HomeAnswer(PeerAnswer.HAS_NOT)

    def give_up(self, session_id: str, home: Replica | None) -> None:
        """End this replica's copy of a session; `home` has the other one, if that is known."""
        if home is not None:
            self._known_homes.remember(session_id, home)
        log.info("session.yielded")
        self._host.end_copy(session_id)

    async def _tell_to_yield(self, address: str, session_id: str, principal: Principal) -> bool:
        """Tell the last home of a session to end its copy: see `YieldOrders`."""
        question = HomeQuestion(session_id, self._peers.address, home=str(self._peers.own))
        answer = await self._peers.ask(address, question, principal)
        return answer is not None and answer.answer is PeerAnswer.HAS_NOT

    def _has_taken_over(self, session_id: str, address: str) -> bool:
        """Return whether a session is here and the home at an address may live: `YieldOrders`."""
        absent_s = self._peers.absent_s(address)
        verdict = judge_owner(OwnerSign.UNREACHABLE, absent_s, SETTLED_AFTER_S)
        return self._host.is_here(session_id) and verdict is OwnerVerdict.UNKNOWN
