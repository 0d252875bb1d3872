"""Homes and a store: several replicas in one process, with one store in memory."""

from __future__ import annotations

import asyncio

import pytest

from mcpbridge.replicas.peers import address_of
from mcpbridge.replicas.session_id import Replica, SessionId
from mcpbridge.rules.access.principals import ANONYMOUS
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S
from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.stores.store import BEAT_FOR_S
from tests.support.replica_world import CHANGED, KEEP_S, LOST, NOW_S, StoredWorld, three


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
