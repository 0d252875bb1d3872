"""The next home of a session whose replica was lost: several replicas in one process."""

from __future__ import annotations

import asyncio

import pytest

from mcpbridge.replicas.homes import Homes, NoneSettled
from mcpbridge.replicas.peer_messages import HomeAnswer, HomeQuestion
from mcpbridge.replicas.peers import address_of
from mcpbridge.replicas.session_id import Replica, SessionId
from mcpbridge.rules.access.principals import ANONYMOUS
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.homes.adoption import HELD_BACK_S, PeerAnswer, adopters
from mcpbridge.rules.homes.on_owner_lost import OnOwnerLost
from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S, KnownPeer
from mcpbridge.rules.homes.rendezvous import rendezvous_order
from tests.support.replica_world import LOST, NOT_REVIVABLE, World


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


async def test_a_replica_that_began_a_moment_ago_finds_those_that_are_settled() -> None:
    """It cannot tell which are; it asks each, and what others find at the same time is the same."""
    world = World(3)
    await world.settle()
    late = world.start(Replica("10.0.0.77", 8001, 77))
    asking = [late, *world.replicas.values(), late]
    found = await asyncio.gather(*(each.next_home("m1", ANONYMOUS, LOST) for each in asking))
    assert [address_of(each) for each in set(found)] == world.homes
    assert late.own not in found


async def test_no_replica_adopts_before_it_is_settled() -> None:
    """The asker learns when the first one will be; afterwards there is a home."""
    world = World(2)
    asker = world.replicas["10.0.0.0:8001"]
    with pytest.raises(NoneSettled, match="cannot be reached") as none:
        await asker.next_home("m1", ANONYMOUS, LOST)
    assert none.value.after_s == SETTLED_AFTER_S
    world.now += SETTLED_AFTER_S - 1
    world.start(Replica("10.0.0.77", 8001, 77))
    with pytest.raises(NoneSettled) as none:
        await asker.next_home("m1", ANONYMOUS, LOST)
    assert none.value.after_s == 1.0
    told = HomeQuestion("m1", "10.0.0.50:8001", adopt=True)
    answer = await world.replicas["10.0.0.1:8001"].answer(told, ANONYMOUS)
    assert answer == HomeAnswer(PeerAnswer.HAS_NOT, adopts_in_s=1.0)
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


async def test_nothing_is_gained_by_waiting_for_replicas_that_refuse_for_good() -> None:
    """All of them end: none says when it would adopt."""
    world = World(2)
    await world.settle()
    for host in world.hosts.values():
        host.ending = True
    with pytest.raises(Unavailable) as refused:
        await world.replicas["10.0.0.0:8001"].next_home("m1", ANONYMOUS, LOST)
    assert not isinstance(refused.value, NoneSettled)


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


@pytest.mark.parametrize("read", NOT_REVIVABLE, ids=repr)
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
    """And if no client has asked for a time in which the home may have been back."""
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
