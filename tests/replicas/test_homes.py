"""The next home of a session whose replica was lost: several replicas in one process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable

import pytest

from mcpbridge.replicas.claims.claims import Claims
from mcpbridge.replicas.homes import Homes
from mcpbridge.replicas.peer_messages import (
    EndedSessions,
    HomeAnswer,
    HomeQuestion,
    MovedSessions,
)
from mcpbridge.replicas.peers import address_of
from mcpbridge.replicas.session_id import Replica, SessionId
from mcpbridge.rules.access.principals import ANONYMOUS, Principal
from mcpbridge.rules.faults import Unavailable, draining
from mcpbridge.rules.homes.adoption import HELD_BACK_S, REVIVABLE_S, PeerAnswer, adopters
from mcpbridge.rules.homes.on_owner_lost import OnOwnerLost
from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S, KnownPeer
from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.rules.homes.rendezvous import rendezvous_order

NOW_S = 1_900_000_000.0
LOST = Replica("10.0.0.99", 8001, 99)


class Host:
    """The sessions of one replica, and what becomes of those that it is to revive."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sessions: set[str] = set()
        self.ending = False
        self.full = False
        self.fails = False
        self.records: dict[str, SessionRecord] = {}
        self.owns = False

    def has(self, session_id: str, principal: Principal) -> bool:
        """Whether it is here."""
        return session_id in self.sessions

    def opened_id(self, session_id: str, principal: Principal) -> SessionId | None:
        """What the id says."""
        return self.world.ids.get(session_id)

    def needs_own_child(self, params: bytes) -> bool:
        """What the test says."""
        return self.owns

    def may_adopt(self) -> bool:
        """Not at the end."""
        return not self.ending

    def may_take(self, principal: Principal) -> bool:
        """Not at the end, and not if it is full."""
        return not self.ending and not self.full

    def end(self, session_id: str, principal: Principal) -> None:
        """It is not here any more."""
        self.sessions.discard(session_id)

    def is_here(self, session_id: str) -> bool:
        """Whether it is here."""
        return session_id in self.sessions

    def has_own_child(self, session_id: str) -> bool:
        """What the test says."""
        return self.owns and session_id in self.sessions

    def own_child_sessions(self) -> list[str]:
        """What the test says."""
        return sorted(self.sessions) if self.owns else []

    def record(self, session_id: str) -> SessionRecord | None:
        """What a client has asked for."""
        return self.records.get(session_id) if session_id in self.sessions else None

    def params(self, session_id: str) -> bytes | None:
        """The same of all clients."""
        return b"{}" if session_id in self.sessions else None

    def end_copy(self, session_id: str) -> None:
        """It is not here any more."""
        self.sessions.remove(session_id)

    async def revive(
        self,
        session_id: str,
        params: bytes,
        principal: Principal,
        record: SessionRecord | None = None,
    ) -> None:
        """It takes a few turns of the loop."""
        assert params == b"{}"
        for _ in range(3):
            await asyncio.sleep(0)
        if self.fails:
            raise Unavailable(draining())
        assert session_id not in self.sessions
        self.sessions.add(session_id)
        self.records[session_id] = record or SessionRecord(initialized=True)


class World:
    """Replicas that ask each other, at a time that the test sets."""

    def __init__(self, count: int = 4) -> None:
        self.now = 0.0
        self.ids = {"m1": SessionId(LOST, int(NOW_S), params=b"{}")}
        self.asked: list[tuple[str, HomeQuestion]] = []
        self.replicas: dict[str, Homes] = {}
        self.hosts: dict[str, Host] = {}
        self.unresolved = False
        self.cut: set[str] = set()
        """Those that cannot be reached, and reach no other."""
        for number in range(count):
            self.start(Replica(f"10.0.0.{number}", 8001, number))

    def start(self, replica: Replica, choice: OnOwnerLost = OnOwnerLost.RESTART) -> Homes:
        """Start another one."""
        address, host = address_of(replica), Host(self)
        clock, wall_clock = (lambda: self.now), (lambda: NOW_S)
        claims = self.claims_of(replica, host)
        ways = (self.ask, self.tell, self.resolve)
        homes = Homes(replica, host, *ways, clock, wall_clock, choice, claims)
        self.replicas[address], self.hosts[address] = homes, host
        return homes

    def claims_of(self, replica: Replica, host: Host) -> Claims | None:
        """Without a store there are none."""
        return None

    def kill(self, address: str) -> None:
        """It does not answer any more."""
        del self.replicas[address], self.hosts[address]

    async def ask(
        self, address: str, question: HomeQuestion, principal: Principal
    ) -> HomeAnswer | None:
        """Ask one, which takes a turn of the loop."""
        self.asked.append((address, question))
        await asyncio.sleep(0)
        if question.asker != address and self.cut & {question.asker, address}:
            return None
        peer = self.replicas.get(address)
        return await peer.answer(question, principal) if peer is not None else None

    async def tell(
        self, address: str, said: EndedSessions | MovedSessions, principal: Principal
    ) -> None:
        """Tell one, which takes a turn of the loop."""
        await asyncio.sleep(0)
        if address in self.replicas:
            self.replicas[address].notices.told(said, principal)

    async def resolve(self) -> Iterable[str] | None:
        """What the name server says."""
        return None if self.unresolved else list(self.replicas)

    async def settle(self) -> None:
        """Let all have seen all others for long enough."""
        for _ in range(2):
            for each in self.replicas.values():
                await each.peers.look()
            self.now += SETTLED_AFTER_S

    @property
    def homes(self) -> list[str]:
        """Where the session is."""
        return [address for address, host in self.hosts.items() if "m1" in host.sessions]


async def test_the_first_settled_replica_adopts_whoever_is_asked() -> None:
    """All find the same, also at once; the next one that asks finds it there."""
    world = World()
    await world.settle()
    (first, *_) = adopters("m1", [KnownPeer(each, 99.0) for each in world.replicas], None)
    asking = [each.next_home("m1", ANONYMOUS, LOST) for each in world.replicas.values()]
    found = await asyncio.gather(
        *asking, *(each.next_home("m1", ANONYMOUS, LOST) for each in world.replicas.values())
    )
    assert {address_of(each) for each in found} == {first}
    assert world.homes == [first]
    late = world.start(Replica("10.0.0.77", 8001, 77))
    assert address_of(await late.next_home("m1", ANONYMOUS, LOST)) == first
    assert address_of(late.known("m1", LOST)) == first
    assert late.known("m2", LOST) == LOST


async def told_after(world: World, address: str, turns: int) -> None:
    """Tell a replica to adopt, some turns of the loop from now."""
    for _ in range(turns):
        await asyncio.sleep(0)
    await world.ask(address, HomeQuestion("m1", "10.0.0.50:8001", adopt=True), ANONYMOUS)


@pytest.mark.parametrize("turns", range(8))
async def test_adopters_at_once_give_way_to_one_of_them(turns: int) -> None:
    """Each was told to adopt, by a replica with another view."""
    for first in (0, turns):
        world = World()
        await world.settle()
        waits = itertools.cycle((first, turns - first))
        await asyncio.gather(*(told_after(world, each, next(waits)) for each in world.replicas))
        assert len(world.homes) == 1


async def test_none_adopts_before_it_is_settled() -> None:
    """The client is told to come again; afterwards there is a home."""
    world = World(2)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await world.replicas["10.0.0.0:8001"].next_home("m1", ANONYMOUS, LOST)
    world.now += SETTLED_AFTER_S - 1
    told = HomeQuestion("m1", "10.0.0.50:8001", adopt=True)
    answer = await world.replicas["10.0.0.1:8001"].answer(told, ANONYMOUS)
    assert answer == HomeAnswer(PeerAnswer.HAS_NOT)
    assert world.homes == []
    world.now += 1
    await world.replicas["10.0.0.0:8001"].next_home("m1", ANONYMOUS, LOST)
    assert len(world.homes) == 1


async def test_a_peer_that_refuses_or_fails_is_passed_over() -> None:
    """One that ends, one that cannot open it, and one that does not answer."""
    world = World(4)
    await world.settle()
    ending, failing, dead, last = rendezvous_order("m1", world.replicas)
    world.hosts[ending].ending = True
    world.hosts[failing].fails = True
    asker = world.replicas[last]
    world.kill(dead)
    assert address_of(await asker.next_home("m1", ANONYMOUS, LOST)) == last
    assert world.homes == [last]


async def test_a_home_that_is_lost_again_is_replaced() -> None:
    """What was known of it is forgotten."""
    world = World(4)
    await world.settle()
    asker = world.replicas[rendezvous_order("m1", world.replicas)[3]]
    first = await asker.next_home("m1", ANONYMOUS, LOST)
    world.kill(address_of(first))
    second = await asker.next_home("m1", ANONYMOUS, first)
    assert second != first
    assert world.homes == [address_of(second)]
    assert asker.known("m1", LOST) == second


async def test_the_name_may_be_unknown_for_a_while() -> None:
    """Those that were seen before are asked."""
    world = World(3)
    await world.settle()
    world.unresolved = True
    await world.replicas["10.0.0.0:8001"].next_home("m1", ANONYMOUS, LOST)
    assert len(world.homes) == 1
    assert len({address for address, _ in world.asked}) >= 2


@pytest.mark.parametrize(
    "read",
    [
        None,
        SessionId(LOST, int(NOW_S)),
        SessionId(LOST, int(NOW_S), one_stream=True, params=b"{}"),
        SessionId(LOST, int(NOW_S - REVIVABLE_S - 1), params=b"{}"),
        SessionId(LOST, int(NOW_S + 100), params=b"{}"),
    ],
    ids=repr,
)
async def test_what_cannot_be_revived_is_over(read: SessionId | None) -> None:
    """No peer is asked: its client begins another session."""
    world = World(2)
    await world.settle()
    world.ids.clear()
    if read is not None:
        world.ids["m1"] = read
    with pytest.raises(LookupError):
        await world.replicas["10.0.0.0:8001"].next_home("m1", ANONYMOUS, LOST)
    told = HomeQuestion("m1", "10.0.0.50:8001", adopt=True)
    answer = await world.replicas["10.0.0.1:8001"].answer(told, ANONYMOUS)
    assert answer == HomeAnswer(PeerAnswer.HAS_NOT)
    assert world.asked == []
    assert world.homes == []


async def test_a_home_that_may_live_is_replaced_for_shared_children_only() -> None:
    """Two homes of the others are two servers; until its address is gone from DNS they wait."""
    world = World(3)
    await world.settle()
    own = world.replicas["10.0.0.0:8001"]
    home = world.replicas["10.0.0.1:8001"].own
    world.cut.add(address_of(home))

    async def found() -> Replica:
        return await own.next_home("m1", ANONYMOUS, home, unknown=True)

    for host in world.hosts.values():
        host.owns = True
    for _ in range(2):
        with pytest.raises(Unavailable, match="cannot be reached"):
            await found()
    world.kill(address_of(home))
    world.now += SETTLED_AFTER_S / 2
    await own.peers.look()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await found()
    assert world.homes == [], "gone for 15 s"
    world.now += SETTLED_AFTER_S / 2
    second = await found()
    assert world.homes == [address_of(second)]
    world = World(3)
    await world.settle()
    own = world.replicas["10.0.0.0:8001"]
    home = world.replicas["10.0.0.1:8001"].own
    world.cut.add(address_of(home))
    second = await found()
    assert world.homes == [address_of(second)], "at once on the shared process"


async def test_a_replica_alone_adopts_what_its_last_start_had() -> None:
    """At the same address: there is no other."""
    world = World(1)
    own = world.replicas["10.0.0.0:8001"]
    world.now += SETTLED_AFTER_S
    before = Replica("10.0.0.0", 8001, 1234)
    assert await own.next_home("m1", ANONYMOUS, before) == own.own
    assert world.homes == ["10.0.0.0:8001"]


async def test_a_client_that_leaves_ends_no_adoption() -> None:
    """Others wait for it too."""
    world = World(1)
    own = world.replicas["10.0.0.0:8001"]
    world.now += SETTLED_AFTER_S
    first = asyncio.create_task(own.next_home("m1", ANONYMOUS, LOST))
    second = asyncio.create_task(own.next_home("m1", ANONYMOUS, LOST))
    for _ in range(4):
        await asyncio.sleep(0)
    first.cancel()
    assert await second == own.own
    with pytest.raises(asyncio.CancelledError):
        await first


async def taken_over_after_30_s(world: World, choice: OnOwnerLost) -> tuple[Homes, Homes]:
    """A home that is cut off, and another replica that is asked for its session for 30 s."""
    for number in range(3):
        world.start(Replica(f"10.0.0.{number}", 8001, number), choice)
    for host in world.hosts.values():
        host.owns = True
    await world.settle()
    old, asked = world.replicas["10.0.0.1:8001"], world.replicas["10.0.0.0:8001"]
    world.hosts[old.address].sessions.add("m1")
    world.cut.add(old.address)
    for _ in range(6):
        with pytest.raises(Unavailable, match="cannot be reached"):
            await asked.next_home("m1", ANONYMOUS, old.own, unknown=True)
        world.now += HELD_BACK_S / 6
    return old, asked


async def test_a_home_that_stays_out_of_reach_is_replaced_and_ends_its_copy_when_told() -> None:
    """After 30 s; it is told until it has answered, and knows then where the session is."""
    world = World(0)
    old, asked = await taken_over_after_30_s(world, OnOwnerLost.RESTART)
    home = await asked.next_home("m1", ANONYMOUS, old.own, unknown=True)
    adopter = world.replicas[address_of(home)]
    assert sorted(world.homes) == sorted([old.address, adopter.address])
    await adopter.copies.tell_to_yield()
    assert len(world.homes) == 2, "it cannot be told"
    assert old.known_homes.elsewhere("m1") is None
    world.cut.clear()
    await adopter.copies.tell_to_yield()
    assert world.homes == [adopter.address]
    assert old.known_homes.elsewhere("m1") == home
    assert old.known("m1", old.own) == home
    asked_before = len(world.asked)
    await adopter.copies.tell_to_yield()
    assert len(world.asked) == asked_before, "once is enough"


async def test_the_time_out_of_reach_begins_again_once_a_home_has_answered() -> None:
    """And if no client has asked for so long that it may have been there in between."""
    for answered in (True, False):
        world = World(0)
        old, asked = await taken_over_after_30_s(world, OnOwnerLost.RESTART)
        assert asked.has_doubts
        if answered:
            asked.answered(old.own)
        else:
            world.now += HELD_BACK_S
        with pytest.raises(Unavailable, match="cannot be reached"):
            await asked.next_home("m1", ANONYMOUS, old.own, unknown=True)
        assert world.homes == [old.address]


async def test_the_operator_may_choose_that_such_sessions_end() -> None:
    """Their clients begin others."""
    world = World(0)
    old, asked = await taken_over_after_30_s(world, OnOwnerLost.END)
    with pytest.raises(LookupError):
        await asked.next_home("m1", ANONYMOUS, old.own, unknown=True)
    assert world.homes == [old.address]


async def test_a_wrong_order_to_yield_ends_nothing() -> None:
    """One that names no replica, or this one; and one for a session that is not here."""
    world = World(2)
    own = world.replicas["10.0.0.0:8001"]
    world.hosts[own.address].sessions.add("m1")
    for session_id, home in (("m1", "nowhere"), ("m1", str(own.own)), ("m2", str(LOST))):
        order = HomeQuestion(session_id, "10.0.0.1:8001", home=home)
        assert await own.answer(order, ANONYMOUS) == HomeAnswer(PeerAnswer.HAS_NOT)
    assert world.homes == [own.address]
    assert own.known_homes.elsewhere("m2") is None
