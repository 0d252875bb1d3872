"""Finds the next home of a session whose replica was lost: at a peer, or here.

A replica that receives a request for such a session asks all its peers whether they have it. If
none has, the first settled peer in rendezvous order is told to adopt it, which may be this replica.
The adopter marks the session, asks all peers itself, and gives way if another one has the session
or comes first among those that adopt it: `rules.homes.adoption` has the reasons.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from mcpbridge.replicas.leaving import LeavingSessions
from mcpbridge.replicas.peer_messages import (
    EndedSessions,
    HomeAnswer,
    HomeQuestion,
    MovedSessions,
    OfferedSession,
)
from mcpbridge.replicas.session_id import Replica, SessionId, replica_named
from mcpbridge.replicas.tombstones import MOST_TOMBSTONES, Tombstones, digest_of
from mcpbridge.rules.access.principals import ANONYMOUS, Principal
from mcpbridge.rules.faults import Fault, Unavailable, replica_unreachable
from mcpbridge.rules.homes.adoption import (
    HomeStep,
    OnOwnerLost,
    PeerAnswer,
    StoreView,
    adopters,
    is_revivable,
    next_step,
    takers,
    yields,
)
from mcpbridge.rules.homes.owner import OwnerSign, judge_owner
from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S, KnownPeer, PeerView
from mcpbridge.rules.homes.record import SessionRecord, is_sound
from mcpbridge.rules.homes.rendezvous import rendezvous_order

log = logging.getLogger("mcpbridge.replicas")

_MOST_KNOWN = 4096
"""Sessions whose present home is remembered."""
TAKEN_WITHIN_S = 1.5
"""Seconds in which a session that is handed over opens here, or is refused: its requests wait."""
_TOLD_AT_ONCE = 4096
_MOVED_AT_ONCE = 512
_TRIES = 2
"""Rounds of asking, in case that an adopter has given way while it was asked."""


Ask = Callable[[str, HomeQuestion, Principal], Awaitable[HomeAnswer | None]]
"""Asks the peer at an address in the name of a client; returns None if it does not answer."""
Tell = Callable[[str, EndedSessions | MovedSessions, Principal], Awaitable[object]]
"""Tells the peer at an address which sessions have ended or moved."""


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

    def may_take(self, principal: Principal) -> bool:
        """Return whether it takes another session of this client, and ends none for it."""

    async def revive(
        self,
        session_id: str,
        params: bytes,
        principal: Principal,
        record: SessionRecord | None = None,
    ) -> None:
        """Open a session again, with what is known of it.

        Raises:
            Unavailable: It cannot be opened here now.
        """

    def end(self, session_id: str, principal: Principal) -> None:
        """End a session, if it is here."""


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
        """
        self.own = own
        self.address = address_of(own)
        self._host = host
        self._ask = ask
        self._tell = tell
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
        self.leaving = LeavingSessions()
        """The sessions that leave this replica at its end."""
        self._tombstones = Tombstones(clock)
        self._untold: list[bytes] = []
        """Deleted sessions of which the peers do not know yet."""
        self._telling: asyncio.Task[None] | None = None
        self._ending_copies: set[asyncio.Task[None]] = set()

    def known(self, session_id: str, named: Replica) -> Replica:
        """Return the home of a session: the one that was found last, else the one in its id."""
        return self._known.get(session_id) or self.leaving.moved_to(session_id) or named

    async def run(self) -> None:
        """Resolve the name of all replicas from time to time, until cancelled."""
        await self.look()
        # They ask it about sessions from now on, whenever they resolve the name the next time: it
        # may be given sessions before.
        await self._all(HomeQuestion("", self.address), ANONYMOUS)
        while True:
            await asyncio.sleep(SETTLED_AFTER_S)
            await self.look()

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
            found = await self._at_a_peer(session_id, principal, lost)
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
        moved_to = self.leaving.moved_to(session_id)
        if moved_to is not None and str(moved_to) != question.lost:
            return HomeAnswer(PeerAnswer.HAS, str(moved_to))
        if self._tombstones.has(session_id):
            return HomeAnswer(PeerAnswer.GONE)
        if question.adopt:
            try:
                return await self._adopt(session_id, principal, question.lost)
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
        if self._tombstones.has(session_id):
            raise LookupError(session_id)
        if not is_revivable(read.issued_s, self._wall_clock()):
            raise LookupError(session_id)
        return read.params

    async def _at_a_peer(
        self, session_id: str, principal: Principal, lost: Replica
    ) -> Replica | None:
        """Return the home of a session, if a replica has it; wait for one that adopts it.

        Raises:
            LookupError: Its client has deleted it.
        """
        if self._host.has(session_id, principal) or session_id in self._adoptions:
            answer = await self._adopt(session_id, principal, str(lost))
            return _home_in(answer)
        question = HomeQuestion(session_id, self.address, lost=str(lost))
        answers = await self._all(question, principal)
        for _, each in answers:
            home = _home_in(each)
            if home is not None:
                return home
        if self._learn_deleted(session_id, answers):
            raise LookupError(session_id)
        for address, each in answers:
            if each is not None and each.answer is PeerAnswer.ADOPTING:
                told = msgspec.structs.replace(question, adopt=True)
                found = _home_in(await self._ask(address, told, principal))
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
                    answer: HomeAnswer | None
                    answer = await self._adopt(session_id, principal, str(lost))
                except Unavailable as error:
                    return error.fault
            else:
                question = HomeQuestion(session_id, self.address, adopt=True, lost=str(lost))
                answer = await self._ask(address, question, principal)
            found = _home_in(answer)
            if found is not None:
                return found
        return replica_unreachable()

    async def _adopt(self, session_id: str, principal: Principal, lost: str) -> HomeAnswer:
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
        return await self._begun(session_id, self._revived(session_id, principal, lost))

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

    async def _revived(self, session_id: str, principal: Principal, lost: str) -> HomeAnswer:
        try:
            params = self._check(session_id, principal)
        except LookupError:
            return HomeAnswer(PeerAnswer.HAS_NOT)
        # It is marked by now: a peer that asks from here on learns that it is being adopted.
        await self.look()
        question = HomeQuestion(session_id, self.address, adopts=True, lost=lost)
        answers = await self._all(question, principal)
        if self._learn_deleted(session_id, answers):
            return HomeAnswer(PeerAnswer.GONE)
        for address, answer in answers:
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
        self, question: HomeQuestion, principal: Principal
    ) -> list[tuple[str, HomeAnswer | None]]:
        """Ask all peers; return the answer of each with its address, in rendezvous order."""
        known = (each.address for each in self._view.peers(self._clock()))
        others = (each for each in known if each != self.address)
        order = rendezvous_order(question.session, others)
        answers = await asyncio.gather(*(self._ask(each, question, principal) for each in order))
        return list(zip(order, answers, strict=True))

    async def take(self, offered: OfferedSession, principal: Principal) -> HomeAnswer:
        """Take a session from a replica that ends; return whether it is here."""
        session_id = offered.session
        self._view.met(offered.asker, self._clock())
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
                await self._host.revive(session_id, offered.params, principal, offered.record)
        except (Unavailable, TimeoutError):
            return HomeAnswer(PeerAnswer.HAS_NOT)
        self._known.pop(session_id, None)
        log.info("session.taken_over", extra={"before": offered.asker})
        return HomeAnswer(PeerAnswer.HAS, str(self.own))

    def takers(self, session_id: str) -> list[str]:
        """Return the addresses of the peers that may take a session, in order of preference."""
        return takers(session_id, self.peers, self.address)

    async def asked(self, address: str, session_id: str, principal: Principal) -> HomeAnswer | None:
        """Ask one peer whether it has a session; return None if it does not answer."""
        return await self._ask(address, HomeQuestion(session_id, self.address), principal)

    def moved(self, session_id: str, home: Replica) -> None:
        """Take note that the last home of a session has handed it over."""
        self._remember(session_id, home)

    def home_in(self, answer: HomeAnswer) -> Replica | None:
        """Return the replica that has a session by the answer of a peer; None if none has."""
        return _home_in(answer)

    def deleted(self, session_id: str) -> None:
        """Take note that a client has deleted its session here, and tell all peers."""
        digest = digest_of(session_id)
        self._tombstones.add((digest,))
        self._untold.append(digest)
        del self._untold[:-MOST_TOMBSTONES]
        if self._telling is None:
            self._telling = asyncio.ensure_future(self._tell_untold())

    def told(self, said: EndedSessions | MovedSessions, principal: Principal) -> HomeAnswer:
        """Take note of what a peer says of sessions that have ended or moved."""
        self._view.met(said.asker, self._clock())
        if isinstance(said, MovedSessions):
            for session_id, text in said.homes.items():
                home = replica_named(text)
                if home is not None and home != self.own:
                    self._remember(session_id, home)
            return HomeAnswer(PeerAnswer.HAS_NOT)
        self._tombstones.add(said.digests)
        if said.session:
            self._host.end(said.session, principal)
        return HomeAnswer(PeerAnswer.HAS_NOT)

    async def tell_moved(self, homes: Mapping[str, Replica]) -> None:
        """Tell all peers where sessions are that have left this replica.

        A request that is on its way to a process that ends may be lost with it.
        """
        moved = list(homes.items())
        others = [each.address for each in self.peers if each.address != self.address]
        for start in range(0, len(moved), _MOVED_AT_ONCE):
            some = {key: str(home) for key, home in moved[start : start + _MOVED_AT_ONCE]}
            said = MovedSessions(self.address, some)
            await asyncio.gather(*(self._tell(each, said, ANONYMOUS) for each in others))

    async def tell_deleted(self) -> None:
        """Tell all peers of every deleted session: they may have begun since it was deleted."""
        await self._tell_peers(self._tombstones.digests)

    def end_copy(self, session_id: str, home: Replica, principal: Principal) -> None:
        """Have a replica end a session that it has taken, since it has ended here."""
        ended = EndedSessions(self.address, (), session_id)

        async def tell() -> None:
            await self._tell(address_of(home), ended, principal)

        task = asyncio.ensure_future(tell())
        self._ending_copies.add(task)
        task.add_done_callback(self._ending_copies.discard)

    async def _tell_untold(self) -> None:
        try:
            # More may be deleted while the peers are told.
            while self._untold:
                digests, self._untold = tuple(self._untold), []
                await self._tell_peers(digests)
        finally:
            self._telling = None

    async def _tell_peers(self, digests: Sequence[bytes]) -> None:
        others = [each.address for each in self.peers if each.address != self.address]
        for start in range(0, len(digests), _TOLD_AT_ONCE):
            ended = EndedSessions(self.address, tuple(digests[start : start + _TOLD_AT_ONCE]))
            await asyncio.gather(*(self._tell(each, ended, ANONYMOUS) for each in others))

    def _learn_deleted(
        self, session_id: str, answers: Iterable[tuple[str, HomeAnswer | None]]
    ) -> bool:
        """Return whether a peer knows that a session was deleted; remember it then."""
        deleted = any(each is not None and each.answer is PeerAnswer.GONE for _, each in answers)
        if deleted:
            self._tombstones.add((digest_of(session_id),))
        return deleted

    def _may_adopt(self) -> bool:
        runs_s = self._clock() - self._began_at
        return runs_s >= SETTLED_AFTER_S and self._host.may_adopt()

    def _remember(self, session_id: str, home: Replica) -> None:
        if len(self._known) >= _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[session_id] = home
        self.leaving.follow(session_id, home)

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
