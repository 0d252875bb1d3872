"""Whether a session here may be served after a time in which another replica may have it."""

from __future__ import annotations

from mcpbridge.rules.access.principals import ANONYMOUS
from mcpbridge.stores.store import BEAT_FOR_S
from tests.support.replica_world import LOST, StoredWorld, three


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
