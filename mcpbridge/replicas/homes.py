"""Finds the next home of a session whose replica was lost: at a peer, or here.

A replica that receives a request for such a session asks all its peers whether they have it. If
none has, the first settled peer in rendezvous order is told to adopt it, which may be this replica.
The adopter marks the session, asks all peers itself, and gives way if another one has the session
or comes first among those that adopt it: `rules.homes.adoption` has the reasons.

With a store the adopter claims the session before that, and the first claim decides: see `claims`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING

import msgspec

from mcpbridge.replicas.adoption.host import SessionHost
from mcpbridge.replicas.adoption.known_homes import KnownHomes
from mcpbridge.replicas.adoption.out_of_reach import HomesOutOfReach
from mcpbridge.replicas.leaving import LeavingSessions
from mcpbridge.replicas.notices import Notices
from mcpbridge.replicas.peer_messages import (
    HomeAnswer,
    HomeQuestion,
    OfferedSession,
)
from mcpbridge.replicas.peers import Ask, Peers, Tell, address_of, home_in
from mcpbridge.replicas.session_id import Replica, replica_named
from mcpbridge.replicas.tombstones import Tombstones
from mcpbridge.replicas.yield_orders import YieldOrders
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.faults import Fault, Unavailable, isolated, replica_unreachable, store_away
from mcpbridge.rules.homes.adoption import (
    HomeStep,
    PeerAnswer,
    StoreView,
    adopters,
    is_revivable,
    next_step,
    yields,
)
from mcpbridge.rules.homes.on_owner_lost import OnOwnerLost
from mcpbridge.rules.homes.owner import OwnerSign, OwnerVerdict, judge_owner
from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S
from mcpbridge.rules.homes.record import is_sound

if TYPE_CHECKING:
    from mcpbridge.replicas.claims.claims import Claims

log = logging.getLogger("mcpbridge.replicas")

TAKEN_WITHIN_S = 1.5
"""Seconds in which a session that is handed over opens here, or is refused: its requests wait."""
_TRIES = 2
"""Rounds of asking, in case that an adopter has given way while it was asked."""


class Homes:
    """What one replica knows of the homes of sessions."""

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
        self._host = host
        self._wall_clock = wall_clock
        self._on_owner_lost = on_owner_lost
        self._claims = claims
        self._orders = YieldOrders(self._tell_to_yield, self._has_taken_over)
        self._adoptions: dict[str, asyncio.Future[HomeAnswer]] = {}
        self._gives_way: set[str] = set()
        """Sessions that are adopted here while another adopter that comes first has asked."""
        self._decided: set[str] = set()
        """Sessions that are adopted here for certain: an adopter that asks now gives way."""
        self.leaving = LeavingSessions()
        """The sessions that leave this replica at its end."""
        self.known_homes = KnownHomes(own, self.leaving)
        """Where sessions are by now."""
        self._out_of_reach = HomesOutOfReach(clock)
        self._tombstones = Tombstones(clock)
        self.notices = Notices(self.peers, host, self.known_homes, self._tombstones)
        """What peers are told about sessions, and what they tell."""

    def known(self, session_id: str, named: Replica) -> Replica:
        """Return the home of a session: see `KnownHomes.home`."""
        return self.known_homes.home(session_id, named)

    @property
    def has_store(self) -> bool:
        """Whether there is a store, so that sessions may have to be checked."""
        return self._claims is not None

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
        orders = asyncio.ensure_future(self._orders.run())
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
            Unavailable: None can be found or made at present.
            LookupError: It cannot be revived: its client has to begin another session.
        """
        self.known_homes.forget(session_id)
        params = await self._check(session_id, principal)
        claimed = await self._claims.home(session_id) if self._claims is not None else None
        if claimed is not None and claimed not in (lost, self.own):
            if await self.peers.serves(session_id, principal, claimed):
                self.known_homes.remember(session_id, claimed)
                return claimed
            lost, unknown = claimed, False
        step = await self._step(params, lost, unknown=unknown)
        if step is HomeStep.END:
            raise LookupError(session_id)
        fault: Fault = replica_unreachable()
        for _ in range(_TRIES if step is not HomeStep.WAIT else 0):
            await self.peers.look()
            found = await self._at_a_peer(session_id, principal, lost)
            home = found or await self._adopted(session_id, principal, lost, step, unknown=unknown)
            if isinstance(home, Replica):
                self.known_homes.remember(session_id, home)
                return home
            fault = home
        raise Unavailable(fault)

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
            return self._yielded(session_id, question.home, principal)
        if self._host.has(session_id, principal) and session_id not in self._adoptions:
            return HomeAnswer(PeerAnswer.HAS, str(self.own))
        moved_to = self.leaving.moved_to(session_id)
        if moved_to is not None and str(moved_to) != question.lost:
            return HomeAnswer(PeerAnswer.HAS, str(moved_to))
        if self._tombstones.has(session_id):
            return HomeAnswer(PeerAnswer.GONE)
        if question.adopt:
            try:
                return await self._adopt(session_id, principal, question.lost, question.may_live)
            except Unavailable:
                return HomeAnswer(PeerAnswer.HAS_NOT)
        return self._adopting(question)

    def _adopting(self, question: HomeQuestion) -> HomeAnswer:
        """Answer about a session that is adopted here, or that this replica knows nothing of."""
        session_id = question.session
        if session_id not in self._adoptions:
            return HomeAnswer(PeerAnswer.HAS_NOT)
        if question.adopts and session_id in self._decided:
            return HomeAnswer(PeerAnswer.HAS, str(self.own))
        if question.adopts:
            own, asker = self.address, question.asker
            if yields(session_id, own, asker, PeerAnswer.ADOPTING):
                self._gives_way.add(session_id)
        return HomeAnswer(PeerAnswer.ADOPTING)

    def _yielded(self, session_id: str, home: str, principal: Principal) -> HomeAnswer:
        """End this replica's copy of a session, which another one has taken over."""
        named = replica_named(home)
        if named is None or named == self.own:
            return HomeAnswer(PeerAnswer.HAS_NOT)
        if session_id in self._adoptions:
            # It is told again in a second.
            self._gives_way.add(session_id)
            return HomeAnswer(PeerAnswer.ADOPTING)
        if self._host.has(session_id, principal):
            self._give_up_copy(session_id, named)
        return HomeAnswer(PeerAnswer.HAS_NOT)

    def _give_up_copy(self, session_id: str, home: Replica | None) -> None:
        if home is not None:
            self.known_homes.remember(session_id, home)
        log.info("session.yielded")
        self._host.end_copy(session_id)

    async def _tell_to_yield(self, address: str, session_id: str, principal: Principal) -> bool:
        """Tell the last home of a session to end its copy: see `YieldOrders`."""
        question = HomeQuestion(session_id, self.address, home=str(self.own))
        answer = await self.peers.ask(address, question, principal)
        return answer is not None and answer.answer is PeerAnswer.HAS_NOT

    def _has_taken_over(self, session_id: str, address: str) -> bool:
        """Return whether a session is here and the home at an address may live: `YieldOrders`."""
        absent_s = self.peers.absent_s(address)
        verdict = judge_owner(OwnerSign.UNREACHABLE, absent_s, SETTLED_AFTER_S)
        return self._host.is_here(session_id) and verdict is OwnerVerdict.UNKNOWN

    async def tell_to_yield(self) -> None:
        """Tell each home that was replaced while it may live, once; `run` does so by itself."""
        await self._orders.tell_all()

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
            self._give_up_copy(session_id, home)
        return None

    async def _check_at_peers(
        self, claims: Claims, session_id: str, principal: Principal
    ) -> Fault | None:
        """Check a session without the store, as `check` does."""
        question = HomeQuestion(session_id, self.address)
        told = [each for _, each in await self.peers.ask_all(question, principal)]
        answers = [each for each in told if each is not None]
        if told and not answers:
            return isolated()
        for each in answers:
            if each.answer is PeerAnswer.ADOPTING:
                return replica_unreachable()
            home = home_in(each)
            if home is not None:
                self._give_up_copy(session_id, home)
                return None
        claims.vouch(session_id)
        return None

    async def bury(self, session_id: str) -> None:
        """Take note in the store that a client deletes its session: no replica revives it."""
        if self._claims is not None:
            await self._claims.bury(session_id)

    async def _check(self, session_id: str, principal: Principal) -> bytes:
        """Return the params of a session that may be revived.

        Raises:
            LookupError: It may not.
            Unavailable: The store has them, and is away.
        """
        read = self._host.opened_id(session_id, principal)
        if read is None or read.one_stream:
            raise LookupError(session_id)
        if self._tombstones.has(session_id):
            raise LookupError(session_id)
        if not is_revivable(read.issued_s, self._wall_clock()):
            raise LookupError(session_id)
        params = read.params
        if params is None and self._claims is not None:
            params = await self._claims.params(session_id)
        if params is None:
            raise LookupError(session_id)
        return params

    async def _at_a_peer(
        self, session_id: str, principal: Principal, lost: Replica
    ) -> Replica | None:
        """Return the home of a session, if a replica has it; wait for one that adopts it.

        Raises:
            LookupError: Its client has deleted it.
        """
        if self._host.has(session_id, principal) or session_id in self._adoptions:
            answer = await self._adopt(session_id, principal, str(lost))
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
    ) -> Replica | Fault:
        """Have a replica adopt a session; return it, or why none has."""
        may_live = unknown and step in (HomeStep.TAKE_OVER, HomeStep.CLAIM)
        question = HomeQuestion(
            session_id, self.address, adopt=True, lost=str(lost), may_live=may_live
        )
        order = adopters(session_id, self.peers, address_of(lost))
        if step is HomeStep.CLAIM:
            # The first claim wins, so the nearest replica does as well as any.
            order = [self.address, *(each for each in order if each != self.address)]
        for address in order:
            if address == self.address:
                try:
                    answer: HomeAnswer | None
                    answer = await self._adopt(session_id, principal, str(lost), may_live)
                except Unavailable as error:
                    return error.fault
            else:
                answer = await self.peers.ask(address, question, principal)
            found = home_in(answer)
            if found is not None:
                return found
        return replica_unreachable()

    async def _adopt(
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
        going_on = self._adoptions.get(session_id)
        if going_on is not None:
            return await asyncio.shield(going_on)
        if self._host.has(session_id, principal):
            return HomeAnswer(PeerAnswer.HAS, str(self.own))
        if not self._may_adopt(claims=bool(lost)):
            return HomeAnswer(PeerAnswer.HAS_NOT)
        adopting = self._revived(session_id, principal, lost, may_live)
        return await self._begun(session_id, adopting)

    async def _begun(
        self, session_id: str, adopting: Coroutine[object, object, HomeAnswer]
    ) -> HomeAnswer:
        """Adopt a session in a task, which goes on if the replica that has asked leaves."""
        adoption = asyncio.ensure_future(adopting)
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

    async def _revived(
        self,
        session_id: str,
        principal: Principal,
        lost: str,
        may_live: bool,
    ) -> HomeAnswer:
        try:
            params = await self._check(session_id, principal)
            # It is marked by now: a peer that asks from here on learns that it is being adopted.
            await self.peers.look()
            claimed = await self._claim(session_id, params, lost)
        except LookupError:
            return HomeAnswer(PeerAnswer.HAS_NOT)
        if claimed is not None and claimed != self.own:
            serves = await self.peers.serves(session_id, principal, claimed)
            return HomeAnswer(PeerAnswer.HAS if serves else PeerAnswer.HAS_NOT, str(claimed))
        question = HomeQuestion(session_id, self.address, adopts=True, lost=lost)
        answers = await self.peers.ask_all(question, principal)
        if self._tombstones.learn(session_id, answers):
            await self._give_up_claim(session_id)
            return HomeAnswer(PeerAnswer.GONE)
        for address, answer in answers:
            if answer is not None and yields(session_id, self.address, address, answer.answer):
                if answer.answer is PeerAnswer.HAS:
                    await self._give_up_claim(session_id)
                    return answer
                self._gives_way.add(session_id)
        if session_id in self._gives_way and claimed is None:
            return HomeAnswer(PeerAnswer.HAS_NOT)
        # In the turn of the check above: an adopter has asked before it, or finds this one decided.
        self._decided.add(session_id)
        await self._open_again(session_id, params, principal)
        log.info("session.adopted")
        if lost and may_live:
            self._orders.add(session_id, lost.partition("/")[0], principal)
        return HomeAnswer(PeerAnswer.HAS, str(self.own))

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

    async def take(self, offered: OfferedSession, principal: Principal) -> HomeAnswer:
        """Take a session from a replica that ends; return whether it is here."""
        session_id = offered.session
        self.peers.met(offered.asker)
        if self._host.has(session_id, principal) and session_id not in self._adoptions:
            return HomeAnswer(PeerAnswer.HAS, str(self.own))
        if self._tombstones.has(session_id):
            return HomeAnswer(PeerAnswer.GONE)
        read = self._host.opened_id(session_id, principal)
        if read is None or read.one_stream or not is_sound(offered.record):
            return HomeAnswer(PeerAnswer.HAS_NOT)
        if session_id in self._adoptions or not self._host.may_take(principal):
            return HomeAnswer(PeerAnswer.HAS_NOT)
        # The one that has it gives it: adopters that ask have lost their way to it, and give way.
        self._decided.add(session_id)
        return await self._begun(session_id, self._taken(offered, principal))

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
        self.known_homes.forget(session_id)
        log.info("session.taken_over", extra={"before": offered.asker})
        return HomeAnswer(PeerAnswer.HAS, str(self.own))

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

    def moved(self, session_id: str, home: Replica) -> None:
        """Take note that the last home of a session has handed it over."""
        self.known_homes.remember(session_id, home)

    def _may_adopt(self, *, claims: bool) -> bool:
        if not self._host.may_adopt():
            return False
        # A claim is safe at once; without one all must know each other.
        decides = claims and self._claims is not None and self._claims.up
        return decides or self.peers.settled
