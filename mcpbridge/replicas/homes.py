"""Finds the next home of a session whose replica was lost: at a peer, or here.

A replica that receives a request for such a session asks all its peers whether they have it. If
none has, the first settled peer in rendezvous order is told to adopt it, which may be this replica.
`rules.homes.adoption` has the reasons, and `adoption.adopter` what the adopter does then.

`Homes` makes the parts of the package `adoption` for one replica, and answers its peers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from mcpbridge.replicas.adoption.adopter import Adopter
from mcpbridge.replicas.adoption.adoptions import Adoptions
from mcpbridge.replicas.adoption.checks import SessionChecks
from mcpbridge.replicas.adoption.copies import Copies
from mcpbridge.replicas.adoption.host import SessionHost
from mcpbridge.replicas.adoption.known_homes import KnownHomes
from mcpbridge.replicas.adoption.out_of_reach import HomesOutOfReach
from mcpbridge.replicas.adoption.revivable import RevivableSessions
from mcpbridge.replicas.adoption.taker import Taker
from mcpbridge.replicas.leaving import LeavingSessions
from mcpbridge.replicas.notices import Notices
from mcpbridge.replicas.peer_messages import HomeAnswer, HomeQuestion
from mcpbridge.replicas.peers import Ask, Peers, Tell, address_of, home_in
from mcpbridge.replicas.session_id import Replica
from mcpbridge.replicas.tombstones import Tombstones
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.faults import Unavailable, replica_unreachable
from mcpbridge.rules.homes.adoption import HomeStep, PeerAnswer, StoreView, adopters, next_step
from mcpbridge.rules.homes.on_owner_lost import OnOwnerLost
from mcpbridge.rules.homes.owner import OwnerSign, judge_owner
from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S

if TYPE_CHECKING:
    from mcpbridge.replicas.claims.claims import Claims

_TRIES = 2
"""Rounds of asking, in case that an adopter has given way while it was asked."""


class NoneSettled(Unavailable):
    """A session that no replica may adopt yet: none has run for long enough."""

    def __init__(self, after_s: float) -> None:
        super().__init__(replica_unreachable())
        self.after_s = after_s
        """Seconds until the first one may."""


class Homes:
    """What one replica knows of the homes of sessions, and how it finds them."""

    def __init__(
        self,
        own: Replica,
        host: SessionHost,
        ask: Ask,
        tell: Tell,
        resolve: Callable[[], Awaitable[Iterable[str] | None]],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        on_owner_lost: OnOwnerLost = OnOwnerLost.RESTART,
        claims: Claims | None = None,
    ) -> None:
        """Begin with a view of this replica alone.

        Args:
            own: This replica.
            host: Has its sessions.
            ask: Asks a peer.
            tell: Tells a peer.
            resolve: Returns the addresses of all replicas' peer ports; None: they are not known.
            clock: Returns monotonic seconds.
            wall_clock: Returns seconds since the epoch.
            on_owner_lost: What becomes of a session whose home may live, without a store.
            claims: Asks the store; None: there is none.
        """
        self.own = own
        self.address = address_of(own)
        self.peers = Peers(own, ask, tell, resolve, clock)
        """The replicas in view."""
        self.leaving = LeavingSessions()
        """The sessions that leave this replica at its end."""
        self.known_homes = KnownHomes(own, self.leaving)
        """Where sessions are by now."""
        self._host = host
        self._on_owner_lost = on_owner_lost
        self._claims = claims
        self._out_of_reach = HomesOutOfReach(clock)
        self._tombstones = Tombstones(clock)
        self._adoptions = Adoptions(own)
        self.notices = Notices(self.peers, host, self.known_homes, self._tombstones)
        """What peers are told about sessions, and what they tell."""
        self.copies = Copies(self.peers, host, self.known_homes, self._adoptions)
        """Ends the second copy of a session that has two."""
        self.checks = SessionChecks(self.peers, self.copies, claims)
        """Checks that sessions here have no other home."""
        self._revivable = RevivableSessions(host, self._tombstones, wall_clock, claims)
        parts = (self.peers, host, self._adoptions)
        self._adopter = Adopter(*parts, self.copies, self._tombstones, self._revivable, claims)
        self.taker = Taker(*parts, self.known_homes, self._tombstones, claims)
        """Takes the sessions of replicas that end."""

    def known(self, session_id: str, named: Replica) -> Replica:
        """Return the home of a session: see `KnownHomes.home`."""
        return self.known_homes.home(session_id, named)

    def moved(self, session_id: str, home: Replica) -> None:
        """Take note that the last home of a session has handed it over."""
        self.known_homes.remember(session_id, home)

    @property
    def has_doubts(self) -> bool:
        """Whether a home was out of reach lately: see `answered`."""
        return bool(self._out_of_reach)

    def answered(self, home: Replica) -> None:
        """Take note of a home that answers: it is not out of reach."""
        self._out_of_reach.answered(home)

    async def run(self) -> None:
        """Resolve the name of all replicas from time to time, until cancelled."""
        # They ask it about sessions from now on, whenever they resolve the name the next time: it
        # may be given sessions before.
        await self.peers.reach()
        orders = asyncio.ensure_future(self.copies.run())
        try:
            await self.peers.keep_looking()
        finally:
            orders.cancel()

    async def next_home(
        self, session_id: str, principal: Principal, lost: Replica, *, unknown: bool = False
    ) -> Replica:
        """Return the home of a session after its last one was lost; this replica if it is here.

        Args:
            session_id: The id that the client sends.
            principal: The client.
            lost: The last home.
            unknown: Whether that could not be reached, but may live.

        Raises:
            NoneSettled: None can be made yet.
            Unavailable: None can be found or made at present.
            LookupError: It cannot be revived: its client has to begin another session.
        """
        self.known_homes.forget(session_id)
        params = await self._revivable.params(session_id, principal)
        claimed = await self._claims.home(session_id) if self._claims is not None else None
        if claimed is not None and claimed not in (lost, self.own):
            if await self.peers.serves(session_id, principal, claimed):
                self.known_homes.remember(session_id, claimed)
                return claimed
            lost, unknown = claimed, False
        step = await self._step(params, lost, unknown=unknown)
        if step is HomeStep.END:
            raise LookupError(session_id)
        error = Unavailable(replica_unreachable())
        for _ in range(_TRIES if step is not HomeStep.WAIT else 0):
            await self.peers.look()
            found = await self._at_a_peer(session_id, principal, lost)
            home = found or await self._adopted(session_id, principal, lost, step, unknown=unknown)
            if isinstance(home, Replica):
                self.known_homes.remember(session_id, home)
                return home
            error = home
            if isinstance(error, NoneSettled):
                break  # a second round cannot help before the first replica may
        raise error

    async def _step(self, params: bytes, lost: Replica, *, unknown: bool) -> HomeStep:
        """Return what follows for a session whose home is lost, or may be."""
        sign = OwnerSign.UNREACHABLE if unknown else OwnerSign.REFUSED
        absent_s = self.peers.absent_s(address_of(lost))
        verdict = judge_owner(sign, absent_s, SETTLED_AFTER_S)
        unknown_s = self._out_of_reach.seconds(lost, verdict)
        store = StoreView.NONE
        if self._claims is not None:
            store = await self._claims.view(str(lost))
        own_child = self._host.needs_own_child(params)
        choice = self._on_owner_lost
        return next_step(
            verdict, store, own_child=own_child, unknown_s=unknown_s, on_owner_lost=choice
        )

    async def answer(self, question: HomeQuestion, principal: Principal) -> HomeAnswer:
        """Answer a peer."""
        session_id = question.session
        self.peers.met(question.asker)
        if not session_id:
            return HomeAnswer(PeerAnswer.HAS_NOT, str(self.own))
        if question.home:
            return self.copies.yielded(session_id, question.home, principal)
        if self._host.has(session_id, principal) and session_id not in self._adoptions:
            return HomeAnswer(PeerAnswer.HAS, str(self.own))
        moved_to = self.leaving.moved_to(session_id)
        if moved_to is not None and str(moved_to) != question.lost:
            return HomeAnswer(PeerAnswer.HAS, str(moved_to))
        if self._tombstones.has(session_id):
            return HomeAnswer(PeerAnswer.GONE)
        if question.adopt:
            try:
                return await self._adopter.adopt(
                    session_id, principal, question.lost, question.may_live
                )
            except Unavailable:
                return HomeAnswer(PeerAnswer.HAS_NOT)
        return self._adoptions.answer(question)

    async def _at_a_peer(
        self, session_id: str, principal: Principal, lost: Replica
    ) -> Replica | None:
        """Return the home of a session, if a replica has it; wait for one that adopts it.

        Raises:
            LookupError: Its client has deleted it.
        """
        if self._host.has(session_id, principal) or session_id in self._adoptions:
            answer = await self._adopter.adopt(session_id, principal, str(lost))
            return home_in(answer)
        question = HomeQuestion(session_id, self.address, lost=str(lost))
        answers = await self.peers.ask_all(question, principal)
        for _, each in answers:
            home = home_in(each)
            if home is not None:
                return home
        if self._tombstones.learn(session_id, answers):
            raise LookupError(session_id)
        for address, each in answers:
            if each is not None and each.answer is PeerAnswer.ADOPTING:
                told = msgspec.structs.replace(question, adopt=True)
                found = home_in(await self.peers.ask(address, told, principal))
                if found is not None:
                    return found
        return None

    async def _adopted(
        self,
        session_id: str,
        principal: Principal,
        lost: Replica,
        step: HomeStep,
        *,
        unknown: bool,
    ) -> Replica | Unavailable:
        """Have a replica adopt a session; return it, or why none has."""
        may_live = unknown and step in (HomeStep.TAKE_OVER, HomeStep.CLAIM)
        question = HomeQuestion(
            session_id, self.address, adopt=True, lost=str(lost), may_live=may_live
        )
        order = adopters(session_id, self.peers, address_of(lost))
        if step is HomeStep.CLAIM:
            # The first claim wins, so the nearest replica does as well as any.
            order = [self.address, *(each for each in order if each != self.address)]
        waits: list[float] = []
        for address in order:
            if address == self.address:
                try:
                    answer: HomeAnswer | None
                    answer = await self._adopter.adopt(session_id, principal, str(lost), may_live)
                except Unavailable as error:
                    return error
            else:
                answer = await self.peers.ask(address, question, principal)
            found = home_in(answer)
            if found is not None:
                return found
            if answer is not None and answer.adopts_in_s > 0:
                waits.append(answer.adopts_in_s)
        return NoneSettled(min(waits)) if waits else Unavailable(replica_unreachable())
