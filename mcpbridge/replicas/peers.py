"""The replicas that one of them sees: which there are, and what it asks and tells them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator

from mcpbridge.replicas.peer_messages import EndedSessions, HomeAnswer, HomeQuestion, MovedSessions
from mcpbridge.replicas.session_id import Replica, replica_named
from mcpbridge.rules.access.principals import ANONYMOUS, Principal
from mcpbridge.rules.homes.adoption import PeerAnswer, takers
from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S, KnownPeer, PeerView
from mcpbridge.rules.homes.rendezvous import rendezvous_order

Ask = Callable[[str, HomeQuestion, Principal], Awaitable[HomeAnswer | None]]
"""Asks the peer at an address in the name of a client; returns None if it does not answer."""
Tell = Callable[[str, EndedSessions | MovedSessions, Principal], Awaitable[object]]
"""Tells the peer at an address which sessions have ended or moved."""


class Peers:
    """The replicas in the view of one of them, this one included."""

    def __init__(
        self,
        own: Replica,
        ask: Ask,
        tell: Tell,
        resolve: Callable[[], Awaitable[Iterable[str] | None]],
        clock: Callable[[], float],
    ) -> None:
        """Begin with a view of this replica alone.

        Args:
            own: This replica.
            ask: Asks a peer.
            tell: Tells a peer.
            resolve: Returns the addresses of all replicas' peer ports; None: they are not known.
            clock: Returns monotonic seconds.
        """
        self.own = own
        self.address = address_of(own)
        self._ask = ask
        self._tell = tell
        self._resolve = resolve
        self._clock = clock
        self._began_at = clock()
        self._view = PeerView(self.address, self._began_at)

    def __iter__(self) -> Iterator[KnownPeer]:
        return iter(self._view.peers(self._clock()))

    def __len__(self) -> int:
        return len(self._view.peers(self._clock()))

    async def keep_looking(self) -> None:
        """Resolve the name of all replicas from time to time, until cancelled."""
        while True:
            await asyncio.sleep(SETTLED_AFTER_S)
            await self.look()

    async def look(self) -> None:
        """Resolve the name of all replicas."""
        found = await self._resolve()
        if found is not None:
            self._view.resolved(found, self._clock())

    def met(self, address: str) -> None:
        """Take note of a peer that asks or tells something."""
        self._view.met(address, self._clock())

    @property
    def settles_in_s(self) -> float:
        """Seconds until this replica has run long enough that all others know it; 0 if it has."""
        return max(0.0, self._began_at + SETTLED_AFTER_S - self._clock())

    def absent_s(self, address: str) -> float | None:
        """Return how long ago a name server last named a replica: see `PeerView`."""
        return self._view.absent_s(address, self._clock())

    def takers(self, session_id: str) -> list[str]:
        """Return the addresses of the peers that may take a session, in order of preference."""
        return takers(session_id, self, self.address)

    async def ask(
        self, address: str, question: HomeQuestion, principal: Principal
    ) -> HomeAnswer | None:
        """Ask one peer in the name of a client; return None if it does not answer."""
        return await self._ask(address, question, principal)

    async def asked(self, address: str, session_id: str, principal: Principal) -> HomeAnswer | None:
        """Ask one peer whether it has a session; return None if it does not answer."""
        return await self._ask(address, HomeQuestion(session_id, self.address), principal)

    async def serves(self, session_id: str, principal: Principal, claimed: Replica) -> bool:
        """Return whether a session is at the home that has claimed it, or may be.

        A claim comes before the session, so that home is told to adopt it, which it does already.
        """
        question = HomeQuestion(session_id, self.address, adopt=True, lost=str(claimed))
        answer = await self._ask(address_of(claimed), question, principal)
        # Without an answer the request itself shows whether it has ended.
        return answer is None or home_in(answer) == claimed

    async def ask_all(
        self, question: HomeQuestion, principal: Principal
    ) -> list[tuple[str, HomeAnswer | None]]:
        """Ask all peers; return the answer of each with its address, in rendezvous order."""
        order = rendezvous_order(question.session, self._others())
        answers = await asyncio.gather(*(self._ask(each, question, principal) for each in order))
        return list(zip(order, answers, strict=True))

    async def reach(self) -> tuple[int, int]:
        """Ask all peers for a sign; return how many there are and how many have answered."""
        await self.look()
        answers = await self.ask_all(HomeQuestion("", self.address), ANONYMOUS)
        return len(answers), sum(answer is not None for _, answer in answers)

    async def tell(
        self, address: str, said: EndedSessions | MovedSessions, principal: Principal
    ) -> None:
        """Tell one peer which sessions have ended or moved, in the name of a client."""
        await self._tell(address, said, principal)

    async def tell_all(self, messages: Iterable[EndedSessions | MovedSessions]) -> None:
        """Tell the peers that are in view now each of some messages, one after the other."""
        others = self._others()
        for said in messages:
            await asyncio.gather(*(self._tell(each, said, ANONYMOUS) for each in others))

    def _others(self) -> list[str]:
        return [each.address for each in self if each.address != self.address]


def address_of(replica: Replica) -> str:
    """Return the address of a replica's peer port, spelled alike by all."""
    return str(replica).partition("/")[0]


def home_in(answer: HomeAnswer | None) -> Replica | None:
    """Return the replica that has a session by the answer of a peer; None if none has."""
    if answer is None or answer.answer is not PeerAnswer.HAS or answer.home is None:
        return None
    return replica_named(answer.home)
