"""Homes and a store: several replicas in one process, with one store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from mcpbridge.replicas.claims.changes import SessionChanges
from mcpbridge.replicas.claims.claims import Claims
from mcpbridge.replicas.homes import Homes
from mcpbridge.replicas.peer_messages import HomeAnswer, OfferedSession
from mcpbridge.replicas.peers import address_of
from mcpbridge.replicas.session_id import Replica, SessionId
from mcpbridge.rules.access.principals import ANONYMOUS
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.homes.adoption import PeerAnswer
from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S
from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.stores.fence import Fence
from mcpbridge.stores.memory import MemoryStore
from mcpbridge.stores.store import BEAT_FOR_S, StoreAway
from tests.replicas.test_homes import LOST, NOW_S, Host, World

KEEP_S = 1800.0
CHANGED = SessionRecord(initialized=True, level="error", subscriptions=("a://b",))


class SwitchedStore(MemoryStore):
    """A store that is away at times."""

    away = False

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.was_claimed = asyncio.Event()

    def _get(self, key: str) -> bytes | None:
        self._check()
        return super()._get(key)

    def _set(self, key: str, value: bytes, keep_s: float) -> None:
        self._check()
        super()._set(key, value, keep_s)
        if key.startswith("home:"):
            self.was_claimed.set()

    def _check(self) -> None:
        if self.away:
            raise StoreAway("no answer")


class StoredWorld(World):
    """Replicas with a store."""

    def __init__(self, count: int = 3, *, owns: bool = True) -> None:
        self.store = SwitchedStore(lambda: self.now)
        self.fences: dict[str, Fence] = {}
        self.changes: dict[str, SessionChanges] = {}
        self.claims: dict[str, Claims] = {}
        super().__init__(count)
        for host in self.hosts.values():
            host.owns = owns

    def claims_of(self, replica: Replica, host: Host) -> Claims:
        """Of the one store."""
        address, home, clock = address_of(replica), str(replica), (lambda: self.now)
        self.fences[address] = Fence(self.store, home, KEEP_S, clock)
        self.changes[address] = SessionChanges(self.store, KEEP_S)
        parts = (self.fences[address], self.changes[address], host, clock)
        self.claims[address] = Claims(self.store, home, KEEP_S, *parts)
        return self.claims[address]

    async def beat(self, *homes: Homes) -> None:
        """Let replicas write their heartbeats, and do what is due then."""
        for each in homes or self.replicas.values():
            await self.claims[each.address].beat()

    def homes_of(self, *replicas: Homes) -> list[Homes]:
        """Those of some replicas that have the session."""
        return [each for each in replicas if "m1" in self.hosts[each.address].sessions]


def three(world: StoredWorld) -> tuple[Homes, Homes, Homes]:
    """The replicas of a world."""
    first, second, third = world.replicas.values()
    return first, second, third


async def test_the_first_claim_wins_and_no_replica_has_to_be_settled() -> None:
    """All are asked at once, right after their start; all find the same."""
    world = StoredWorld()
    await world.beat()
    asking = [each.next_home("m1", ANONYMOUS, LOST) for each in world.replicas.values()]
    found = set[Replica]()
    for first in asyncio.as_completed(asking):
        home = await first
        assert world.homes == [address_of(home)], "a home that is named serves by then"
        found.add(home)
    assert {address_of(each) for each in found} == set(world.homes)
    assert len(world.homes) == 1
    assert await world.store.home("m1") == str(found.pop())


async def test_the_claim_of_a_home_that_is_lost_is_replaced() -> None:
    """By one of those that ask at once."""
    world = StoredWorld()
    await world.beat()
    first, second, third = three(world)
    home = await first.next_home("m1", ANONYMOUS, LOST)
    assert home == first.own, "the one that is asked claims it"
    world.kill(first.address)
    found = await asyncio.gather(
        *(each.next_home("m1", ANONYMOUS, home) for each in (second, third, second))
    )
    assert len(set(found)) == 1
    assert world.homes == [address_of(found[0])]
    assert await second.next_home("m1", ANONYMOUS, LOST) == found[0], "whatever was lost before"


async def test_a_replica_that_ends_has_another_one_claim() -> None:
    """It may not take further sessions itself."""
    world = StoredWorld()
    await world.settle()
    await world.beat()
    first, *_ = three(world)
    world.hosts[first.address].ending = True
    home = await first.next_home("m1", ANONYMOUS, LOST)
    assert home != first.own
    assert await world.store.home("m1") == str(home)


async def test_a_home_out_of_reach_is_replaced_once_its_heartbeat_is_gone() -> None:
    """Not before, though its address may have any number of silent seconds."""
    world = StoredWorld()
    await world.settle()
    await world.beat()
    first, second, third = three(world)
    world.hosts[first.address].sessions.add("m1")
    world.cut.add(first.address)
    for _ in range(10):
        world.now += BEAT_FOR_S / 3
        await world.beat()
        with pytest.raises(Unavailable, match="cannot be reached"):
            await second.next_home("m1", ANONYMOUS, first.own, unknown=True)
    world.now += BEAT_FOR_S
    await world.beat(second, third)
    home = await second.next_home("m1", ANONYMOUS, first.own, unknown=True)
    assert world.homes_of(second, third) == [world.replicas[address_of(home)]]
    # The old home comes back: it must not serve, and ends its copy once it has looked.
    assert first.checks.must_check("m1")
    assert await first.checks.check("m1", ANONYMOUS) is None
    assert world.homes == [address_of(home)]
    assert first.known_homes.elsewhere("m1") == home
    assert first.known("m1", first.own) == home


async def test_a_copy_that_no_client_asks_for_ends_with_the_next_heartbeat() -> None:
    """Its child would live on for half an hour otherwise."""
    world = StoredWorld()
    await world.beat()
    first, second, third = three(world)
    world.hosts[first.address].sessions.add("m1")
    world.now += BEAT_FOR_S
    await world.beat(second, third)
    world.cut.add(first.address)
    await second.next_home("m1", ANONYMOUS, first.own)
    assert first.address in world.homes
    await world.beat(first)
    assert world.homes == [second.address]


async def test_after_a_lapse_a_session_that_is_not_claimed_is_served() -> None:
    """It is checked once; it is claimed by that, so that no other replica takes it."""
    world = StoredWorld()
    await world.beat()
    first, second, _ = three(world)
    world.hosts[first.address].sessions.add("m1")
    assert not first.checks.must_check("m1")
    world.now += BEAT_FOR_S
    assert first.checks.must_check("m1")
    assert await first.checks.check("m1", ANONYMOUS) is None
    assert first.checks.must_check("m1"), "its heartbeat is not there yet"
    await world.beat()
    assert not first.checks.must_check("m1")
    assert world.homes == [first.address]
    assert await second.next_home("m1", ANONYMOUS, LOST) == first.own
    world.hosts[first.address].owns = False
    world.now += 10 * BEAT_FOR_S
    assert not first.checks.must_check("m1"), "two homes on the shared process do no harm"


async def test_a_store_that_is_away_leaves_sessions_where_they_are() -> None:
    """Peers say whether another one has it; one that reaches no peer either is isolated."""
    world = StoredWorld()
    await world.settle()
    await world.beat()
    first, second, _ = three(world)
    world.hosts[first.address].sessions.add("m1")
    world.store.away = True
    world.now += BEAT_FOR_S
    assert first.checks.must_check("m1")
    assert await first.checks.check("m1", ANONYMOUS) is None
    assert not first.checks.must_check("m1"), "for a while"
    assert await first.peers.reach() == (2, 2)
    world.cut.add(first.address)
    assert await first.peers.reach() == (2, 0)
    world.now += BEAT_FOR_S
    assert first.checks.must_check("m1")
    fault = await first.checks.check("m1", ANONYMOUS)
    assert fault is not None
    assert fault.reason == "isolated"
    assert world.homes == [first.address]
    # Another one has it, and says so once it can be reached.
    world.hosts[second.address].sessions.add("m1")
    world.cut.clear()
    assert await first.checks.check("m1", ANONYMOUS) is None
    assert world.homes == [second.address]
    assert first.known("m1", first.own) == second.own


async def test_without_its_store_only_shared_sessions_find_another_home() -> None:
    """By asking all peers, as replicas without a store do; the others wait."""
    world = StoredWorld()
    await world.settle()
    world.store.away = True
    first, *_ = three(world)
    with pytest.raises(Unavailable):
        await first.next_home("m1", ANONYMOUS, LOST)
    assert world.homes == []
    for host in world.hosts.values():
        host.owns = False
    home = await first.next_home("m1", ANONYMOUS, LOST)
    assert world.homes == [address_of(home)]
    assert await first.next_home("m1", ANONYMOUS, LOST) == home


async def test_a_store_that_forgot_all_makes_no_second_home() -> None:
    """Restarted empty: peers are asked, too; and the home claims again."""
    world = StoredWorld()
    await world.settle()
    await world.beat()
    first, second, third = three(world)
    home = await first.next_home("m1", ANONYMOUS, LOST)
    await world.store.close()
    assert await second.next_home("m1", ANONYMOUS, LOST) == home
    assert world.homes == [first.address]
    await third.next_home("m1", ANONYMOUS, LOST)
    assert world.homes == [first.address]


async def test_a_session_that_is_handed_over_takes_its_claim_along() -> None:
    """The fence would take that of the last home for one against the new one."""
    world = StoredWorld()
    await world.settle()
    await world.beat()
    first, second, third = three(world)
    await first.next_home("m1", ANONYMOUS, LOST)
    offered = OfferedSession("m1", first.address, b"{}", CHANGED)
    answer = await second.taker.take(offered, ANONYMOUS)
    assert answer == HomeAnswer(PeerAnswer.HAS, str(second.own))
    world.hosts[first.address].end_copy("m1")
    world.kill(first.address)
    assert await world.store.home("m1") == str(second.own)
    world.now += BEAT_FOR_S
    await world.beat(second, third)
    assert second.checks.must_check("m1") is False, "it was checked with the heartbeat"
    assert world.homes == [second.address]
    assert await third.next_home("m1", ANONYMOUS, first.own) == second.own
    await third.checks.bury("m1")
    answer = await third.taker.take(offered, ANONYMOUS)
    assert answer == HomeAnswer(PeerAnswer.GONE)


async def test_a_deleted_session_is_not_revived() -> None:
    """By any replica, whichever home was lost; while the store is away the word waits for it."""
    for away in (False, True):
        world = StoredWorld()
        await world.beat()
        first, second, _ = three(world)
        world.store.away = away
        await first.checks.bury("m1")
        with pytest.raises(LookupError):
            await first.next_home("m1", ANONYMOUS, LOST)
        world.store.away = False
        await world.beat(first)
        with pytest.raises(LookupError):
            await second.next_home("m1", ANONYMOUS, LOST)
        assert world.homes == []


async def test_a_claim_on_what_cannot_be_opened_is_given_up() -> None:
    """Another replica may do better."""
    world = StoredWorld()
    await world.beat()
    first, second, _ = three(world)
    world.hosts[first.address].fails = True
    with pytest.raises(Unavailable):
        await first.next_home("m1", ANONYMOUS, LOST)
    assert await world.store.home("m1") is None
    assert await second.next_home("m1", ANONYMOUS, LOST) == second.own


async def test_a_home_that_has_claimed_is_waited_for_until_it_serves() -> None:
    """The claim comes first; one that has no such session, and will not, is replaced."""
    world = StoredWorld()
    await world.settle()
    await world.beat()
    first, second, _ = three(world)
    adopting = asyncio.create_task(first.next_home("m1", ANONYMOUS, LOST))
    await world.store.was_claimed.wait()
    assert world.homes == []
    assert await second.next_home("m1", ANONYMOUS, LOST) == first.own
    assert world.homes == [first.address]
    assert await adopting == first.own
    world.hosts[first.address].sessions.clear()
    world.hosts[first.address].ending = True
    home = await second.next_home("m1", ANONYMOUS, LOST)
    assert home == second.own
    assert await world.store.home("m1") == str(home)


async def test_a_claim_is_kept_as_long_as_its_session_is_here() -> None:
    """Renewed before it ends, and not afterwards."""
    world = StoredWorld(1)
    (own,) = world.replicas.values()
    await world.beat()
    await own.next_home("m1", ANONYMOUS, LOST)
    for _ in range(4):
        world.now += KEEP_S / 2
        await world.beat()
        assert await world.store.home("m1") == str(own.own)
    world.hosts[own.address].end_copy("m1")
    for _ in range(2):
        await world.beat()
        world.now += KEEP_S / 2 + 1
    await world.beat()
    assert await world.store.home("m1") is None


async def test_the_next_home_knows_what_changed() -> None:
    """Level and subscriptions; what changed while the store was away is written when it comes."""
    world = StoredWorld()
    await world.beat()
    first, second, _ = three(world)
    host = world.hosts[first.address]
    host.sessions.add("m1")
    host.records["m1"] = CHANGED
    world.store.away = True
    world.changes[first.address].changed("m1")
    await world.changes[first.address].write(host)
    world.store.away = False
    await world.changes[first.address].write(host)
    world.kill(first.address)
    await second.next_home("m1", ANONYMOUS, first.own)
    assert world.hosts[second.address].records["m1"] == CHANGED
    # It is written again before it ends, by the new home.
    for _ in range(3):
        world.now += KEEP_S / 2
        await world.beat(second)
        await world.changes[second.address].write(world.hosts[second.address])
        assert await world.store.load("m1") == CHANGED


async def test_what_says_nothing_is_not_written() -> None:
    """A session that has only initialized; but one that changed back is."""
    world = StoredWorld(1)
    (own,) = world.replicas.values()
    host, changes = world.hosts[own.address], world.changes[own.address]
    host.sessions.add("m1")
    host.records["m1"] = SessionRecord()
    for record in (SessionRecord(), SessionRecord(initialized=True)):
        host.records["m1"] = record
        changes.changed("m1")
        await changes.write(host)
        assert await world.store.load("m1") is None
    for record in (CHANGED, SessionRecord(initialized=True)):
        host.records["m1"] = record
        changes.changed("m1")
        await changes.write(host)
        assert await world.store.load("m1") == record


async def test_the_params_of_an_id_that_has_no_room_are_in_the_store() -> None:
    """Without a store such a session cannot be revived; while it is away its client waits."""
    world = StoredWorld()
    await world.beat()
    first, second, _ = three(world)
    world.ids["m1"] = SessionId(LOST, int(NOW_S))
    with pytest.raises(LookupError):
        await second.next_home("m1", ANONYMOUS, LOST)
    host, changes = world.hosts[first.address], world.changes[first.address]
    host.sessions.add("m1")
    host.records["m1"] = SessionRecord()
    changes.needs_params("m1")
    await changes.write(host)
    assert await world.store.load("m1") is None
    host.sessions.clear()
    world.store.away = True
    with pytest.raises(Unavailable, match="store"):
        await second.next_home("m1", ANONYMOUS, LOST)
    world.store.away = False
    assert await second.next_home("m1", ANONYMOUS, LOST) == second.own


async def test_a_replica_is_isolated_while_it_reaches_neither_store_nor_peer() -> None:
    """It says so after each heartbeat that fails, and goes on as soon as one of them answers."""
    world = StoredWorld()
    await world.settle()
    first, *_ = three(world)
    said: list[bool] = []
    for away, cut in ((False, False), (True, False), (True, True), (False, True), (True, True)):
        world.store.away = away
        world.cut = {first.address} if cut else set()
        said.append(await world.claims[first.address].beat(first.peers.reach))
    assert said == [False, False, True, False, True]
    alone = StoredWorld(1)
    alone.store.away = True
    (own,) = alone.replicas.values()
    alone.now += SETTLED_AFTER_S
    assert not await alone.claims[own.address].beat(own.peers.reach), "there is no other"
