"""Which replica opens a session again, and which gives way."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from mcpbridge.replicas.adoption.adopter import Adopter
from mcpbridge.replicas.adoption.adoptions import Adoptions
from mcpbridge.replicas.adoption.copies import Copies
from mcpbridge.replicas.adoption.known_homes import KnownHomes
from mcpbridge.replicas.adoption.revivable import RevivableSessions
from mcpbridge.replicas.leaving import LeavingSessions
from mcpbridge.replicas.peer_messages import HomeAnswer, HomeQuestion
from mcpbridge.replicas.session_id import Replica
from mcpbridge.replicas.tombstones import Tombstones
from mcpbridge.rules.access.principals import ANONYMOUS
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.homes.adoption import PeerAnswer
from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S
from mcpbridge.rules.homes.rendezvous import rendezvous_order
from tests.support.replica_world import (
    LOST,
    NOW_S,
    Host,
    Network,
    StoredWorld,
    World,
    three,
    told_after,
)


class Alone:
    """The adopter of one replica, with one peer that answers as the test says."""

    def __init__(self, own: str, peer: str, answer: HomeAnswer | None) -> None:
        replica = Replica(own.partition(":")[0], 8001, 1)
        self.network = Network(replica, [peer])
        self.network.answers[peer] = answer
        self.host = Host(World(0))
        self.tombstones = Tombstones(lambda: self.network.now)
        peers, adoptions = self.network.peers, Adoptions(replica)
        copies = Copies(peers, self.host, KnownHomes(replica, LeavingSessions()), adoptions)
        revivable = RevivableSessions(self.host, self.tombstones, lambda: NOW_S, None)
        parts = (adoptions, copies, self.tombstones, revivable, None)
        self.adopter = Adopter(peers, self.host, *parts)
        self.here = HomeAnswer(PeerAnswer.HAS, str(replica))

    async def adopt(self) -> HomeAnswer:
        """Adopt the session."""
        return await self.adopter.adopt("m1", ANONYMOUS, str(LOST))


FIRST, LAST = rendezvous_order("m1", ("10.0.0.1:8001", "10.0.0.2:8001"))
HAS = HomeAnswer(PeerAnswer.HAS, "10.0.0.3:8001/00000003")
ADOPTING = HomeAnswer(PeerAnswer.ADOPTING)
HAS_NOT = HomeAnswer(PeerAnswer.HAS_NOT)
GONE = HomeAnswer(PeerAnswer.GONE)


@pytest.mark.parametrize(
    ("own", "peer", "said", "answer"),
    [
        (FIRST, LAST, HAS, HAS),
        (FIRST, LAST, GONE, GONE),
        (LAST, FIRST, ADOPTING, HAS_NOT),
        (FIRST, LAST, ADOPTING, None),
        (LAST, FIRST, HAS_NOT, None),
        (LAST, FIRST, None, None),
    ],
)
async def test_what_a_peer_says_decides_whether_a_session_is_opened(
    own: str, peer: str, said: HomeAnswer | None, answer: HomeAnswer | None
) -> None:
    """It is opened here unless a peer has it, knows that it was deleted, or adopts it first."""
    alone = Alone(own, peer, said)
    soon = HomeAnswer(PeerAnswer.HAS_NOT, adopts_in_s=SETTLED_AFTER_S)
    assert await alone.adopt() == soon, "not before all can know this replica"
    assert alone.network.asked == []
    alone.network.now += SETTLED_AFTER_S
    assert await alone.adopt() == (answer or alone.here)
    question = HomeQuestion("m1", own, adopts=True, lost=str(LOST))
    assert alone.network.asked == [(peer, question)]
    assert alone.host.sessions == (set() if answer else {"m1"})
    assert alone.tombstones.has("m1") is (said == GONE)
    if not answer:
        assert await alone.adopt() == alone.here
        assert len(alone.network.asked) == 1, "it is here"


@pytest.mark.parametrize("turns", range(8))
async def test_adopters_at_once_give_way_to_one_of_them(turns: int) -> None:
    """Each was told to adopt, by a replica with another view."""
    for first in (0, turns):
        world = World()
        await world.settle()
        waits = itertools.cycle((first, turns - first))
        await asyncio.gather(*(told_after(world, each, next(waits)) for each in world.replicas))
        assert len(world.homes) == 1


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
