"""Finds the next home of a session whose replica was lost: at a peer, or here.

A replica that receives a request for such a session asks all its peers whether they have it. If
none has, the first settled peer in rendezvous order is told to adopt it, which may be this replica.
The adopter marks the session, asks all peers itself, and gives way if another one has the session
or comes first among those that adopt it: `rules.homes.adoption` has the reasons.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import msgspec

from mcpbridge.replicas.session_id import Replica, SessionId, replica_named
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.faults import Fault, Unavailable, replica_unreachable
from mcpbridge.rules.homes.adoption import (
    HomeStep,
    OnOwnerLost,
    PeerAnswer,
    StoreView,
    adopters,
    is_revivable,
    next_step,
    yields,
)
from mcpbridge.rules.homes.owner import OwnerSign, judge_owner
from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S, KnownPeer, PeerView
from mcpbridge.rules.homes.rendezvous import rendezvous_order

log = logging.getLogger("mcpbridge.replicas")

_MOST_KNOWN = 4096
"""Sessions whose present home is remembered."""
_TRIES = 2
"""Rounds of asking, in case that an adopter has given way while it was asked."""


class HomeQuestion(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one replica asks another about a session."""

    session: str
    asker: str
    """The address of the peer port of the one that asks."""
    adopts: bool = False
    """Whether the one that asks is about to adopt the session."""
    adopt: bool = False
    """Whether the one that is asked should adopt it, if it may."""


class HomeAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What it answers."""

    answer: PeerAnswer
    home: str | None = None
    """The replica that has the session, if one has."""


Ask = Callable[[str, HomeQuestion, Principal], Awaitable[HomeAnswer | None]]
"""Asks the peer at an address in the name of a client; returns None if it does not answer."""


class SessionHost(Protocol):
    """What holds the sessions of this replica."""

    def has(self, session_id: str, principal: Principal) -> bool:
        """Return whether a session of this client is here."""

    def opened_id(self, session_id: str, principal: Principal) -> SessionId | None:
        """Return what an id says; None if it says nothing to this client."""

    def needs_own_child(self, params: bytes) -> bool:
        """Return whether a client that says this in `initialize` gets a child for itself."""

    def may_adopt(self) -> bool:
        """Return whether this replica takes further sessions."""

    async def revive(self, session_id: str, params: bytes, principal: Principal) -> None:
        """Open a session again.

        Raises:
            Unavailable: It cannot be opened here now.
        """


class Homes:
    """What one replica knows of the homes of sessions."""

    def __init__(
        self,
        own: Replica,
        host: SessionHost,
        ask: Ask,
        resolve: Callable[[], Awaitable[Iterable[str] | None]],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """Begin with a view of this replica alone.

        Args:
            own: This replica.
            host: Has its sessions.
            ask: Asks a peer.
            resolve: Returns the addresses of all replicas' peer ports; None: they are not known.
            clock: Returns monotonic seconds.
            wall_clock: Returns seconds since the epoch.
        """
        self.own = own
        self.address = address_of(own)
        self._host = host
        self._ask = ask
        self._resolve = resolve
        self._clock = clock
        self._wall_clock = wall_clock
        self._began_at = clock()
        self._view = PeerView(self.address, self._began_at)
        self._known: dict[str, Replica] = {}
        self._adoptions: dict[str, asyncio.Future[HomeAnswer]] = {}
        self._gives_way: set[str] = set()
        """Sessions that are adopted here while another adopter that comes first has asked."""
        self._decided: set[str] = set()
        """Sessions that are adopted here for certain: an adopter that asks now gives way."""

    def known(self, session_id: str, named: Replica) -> Replica:
        """Return the home of a session: the one that was found last, else the one in its id."""
        return self._known.get(session_id, named)

    async def run(self) -> None:
        """Resolve the name of all replicas from time to time, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(SETTLED_AFTER_S)

    async def look(self) -> None:
        """Resolve the name of all replicas."""
        found = await self._resolve()
        if found is not None:
            self._view.resolved(found, self._clock())

    def may_replace(self, session_id: str, principal: Principal, home: Replica) -> bool:
        """Return whether a session may have another home while its own cannot be reached.

        One on a shared child may at once; one with an own child once the address of its home has
        been gone from DNS for long enough.
        """
        try:
            params = self._check(session_id, principal)
        except LookupError:
            return False
        absent_s = self._view.absent_s(address_of(home), self._clock())
        then = next_step(
            judge_owner(OwnerSign.UNREACHABLE, absent_s, SETTLED_AFTER_S),
            StoreView.NONE,
            own_child=self._host.needs_own_child(params),
            # No replica is told to yield yet, so none takes over from one that may live.
            unknown_s=0.0,
            on_owner_lost=OnOwnerLost.END,
        )
        return then is HomeStep.ASK

    async def next_home(self, session_id: str, principal: Principal, lost: Replica) -> Replica:
        """Return the home of a session after its last one was lost; this replica if it is here.

        Raises:
            Unavailable: None can be found or made at present.
            LookupError: It cannot be revived: its client has to begin another session.
        """
        self._known.pop(session_id, None)
        self._check(session_id, principal)
        fault: Fault | None = None
        for _ in range(_TRIES):
            await self.look()
            found = await self._at_a_peer(session_id, principal)
            home = found or await self._adopted(session_id, principal, lost)
            if isinstance(home, Replica):
                self._remember(session_id, home)
                return home
            fault = home
        raise Unavailable(fault or replica_unreachable())

    async def answer(self, question: HomeQuestion, principal: Principal) -> HomeAnswer:
        """Answer a peer."""
        session_id = question.session
        self._view.met(question.asker, self._clock())
        if self._host.has(session_id, principal) and session_id not in self._adoptions:
            return HomeAnswer(PeerAnswer.HAS, str(self.own))
        if question.adopt:
            try:
                return await self._adopt(session_id, principal)
            except Unavailable:
                return HomeAnswer(PeerAnswer.HAS_NOT)
        if session_id not in self._adoptions:
            return HomeAnswer(PeerAnswer.HAS_NOT)
        if question.adopts and session_id in self._decided:
            return HomeAnswer(PeerAnswer.HAS, str(self.own))
        if question.adopts:
            own, asker = self.address, question.asker
            if yields(session_id, own, asker, PeerAnswer.ADOPTING):
                self._gives_way.add(session_id)
        return HomeAnswer(PeerAnswer.ADOPTING)

    def _check(self, session_id: str, principal: Principal) -> bytes:
        """Return the params of a session that may be revived.

        Raises:
            LookupError: It may not.
        """
        read = self._host.opened_id(session_id, principal)
        if read is None or read.params is None or read.one_stream:
            raise LookupError(session_id)
        if not is_revivable(read.issued_s, self._wall_clock()):
            raise LookupError(session_id)
        return read.params

    async def _at_a_peer(self, session_id: str, principal: Principal) -> Replica | None:
        """Return the home of a session, if a replica has it; wait for one that adopts it."""
        if self._host.has(session_id, principal) or session_id in self._adoptions:
            answer = await self._adopt(session_id, principal)
            return _home_in(answer)
        answers = await self._all(session_id, principal, adopts=False)
        for _, each in answers:
            home = _home_in(each)
            if home is not None:
                return home
        for address, each in answers:
            if each is not None and each.answer is PeerAnswer.ADOPTING:
                question = HomeQuestion(session_id, self.address, adopt=True)
                found = _home_in(await self._ask(address, question, principal))
                if found is not None:
                    return found
        return None

    async def _adopted(
        self, session_id: str, principal: Principal, lost: Replica
    ) -> Replica | Fault:
        """Have a replica adopt a session; return it, or why none has."""
        peers = self._view.peers(self._clock())
        for address in adopters(session_id, peers, address_of(lost)):
            if address == self.address:
                try:
                    answer: HomeAnswer | None = await self._adopt(session_id, principal)
                except Unavailable as error:
                    return error.fault
            else:
                question = HomeQuestion(session_id, self.address, adopt=True)
                answer = await self._ask(address, question, principal)
            found = _home_in(answer)
            if found is not None:
                return found
        return replica_unreachable()

    async def _adopt(self, session_id: str, principal: Principal) -> HomeAnswer:
        """Adopt a session, or wait for the adoption that goes on.

        Raises:
            Unavailable: It cannot be opened here now.
        """
        going_on = self._adoptions.get(session_id)
        if going_on is not None:
            return await asyncio.shield(going_on)
        if self._host.has(session_id, principal):
            return HomeAnswer(PeerAnswer.HAS, str(self.own))
        if not self._may_adopt():
            return HomeAnswer(PeerAnswer.HAS_NOT)
        adoption = asyncio.ensure_future(self._revived(session_id, principal))
        self._adoptions[session_id] = adoption
        adoption.add_done_callback(lambda done: self._adoption_over(session_id, done))
        return await asyncio.shield(adoption)

    def _adoption_over(self, session_id: str, done: asyncio.Future[HomeAnswer]) -> None:
        del self._adoptions[session_id]
        self._gives_way.discard(session_id)
        self._decided.discard(session_id)
        if not done.cancelled():
            # Marks it as seen: all that waited for it may have left.
            done.exception()

    async def _revived(self, session_id: str, principal: Principal) -> HomeAnswer:
        try:
            params = self._check(session_id, principal)
        except LookupError:
            return HomeAnswer(PeerAnswer.HAS_NOT)
        # It is marked by now: a peer that asks from here on learns that it is being adopted.
        await self.look()
        for address, answer in await self._all(session_id, principal, adopts=True):
            if answer is not None and yields(session_id, self.address, address, answer.answer):
                self._gives_way.add(session_id)
                if answer.answer is PeerAnswer.HAS:
                    return answer
        if session_id in self._gives_way:
            return HomeAnswer(PeerAnswer.HAS_NOT)
        # In the turn of the check above: an adopter has asked before it, or finds this one decided.
        self._decided.add(session_id)
        await self._host.revive(session_id, params, principal)
        log.info("session.adopted")
        return HomeAnswer(PeerAnswer.HAS, str(self.own))

    async def _all(
        self, session_id: str, principal: Principal, *, adopts: bool
    ) -> list[tuple[str, HomeAnswer | None]]:
        """Ask all peers; return the answer of each with its address, in rendezvous order."""
        known = (each.address for each in self._view.peers(self._clock()))
        order = rendezvous_order(session_id, (each for each in known if each != self.address))
        question = HomeQuestion(session_id, self.address, adopts=adopts)
        answers = await asyncio.gather(*(self._ask(each, question, principal) for each in order))
        return list(zip(order, answers, strict=True))

    def _may_adopt(self) -> bool:
        runs_s = self._clock() - self._began_at
        return runs_s >= SETTLED_AFTER_S and self._host.may_adopt()

    def _remember(self, session_id: str, home: Replica) -> None:
        if len(self._known) >= _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[session_id] = home

    @property
    def peers(self) -> list[KnownPeer]:
        """The replicas in view, this one included."""
        return self._view.peers(self._clock())


def address_of(replica: Replica) -> str:
    """Return the address of a replica's peer port, spelled alike by all."""
    return str(replica).partition("/")[0]


def _home_in(answer: HomeAnswer | None) -> Replica | None:
    if answer is None or answer.answer is not PeerAnswer.HAS or answer.home is None:
        return None
    return replica_named(answer.home)
