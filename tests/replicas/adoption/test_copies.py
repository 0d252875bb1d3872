"""The end of the copy of a session that another replica has taken over."""

from __future__ import annotations

from mcpbridge.replicas.adoption.adoptions import Adoptions
from mcpbridge.replicas.adoption.copies import Copies
from mcpbridge.replicas.peer_messages import HomeAnswer, HomeQuestion
from mcpbridge.rules.access.principals import ANONYMOUS
from mcpbridge.rules.homes.adoption import PeerAnswer
from tests.support.replica_world import LOST, World


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


async def test_a_copy_that_is_given_up_is_known_to_be_elsewhere() -> None:
    """The replica that has taken the session over names itself."""
    world = World(1)
    (own,) = world.replicas.values()
    world.hosts[own.address].sessions.add("m1")
    order = HomeQuestion("m1", "10.0.0.9:8001", home=str(LOST))
    assert await own.answer(order, ANONYMOUS) == HomeAnswer(PeerAnswer.HAS_NOT)
    assert world.homes == []
    assert own.known_homes.elsewhere("m1") == LOST


async def test_an_adoption_that_goes_on_gives_way_to_an_order_to_yield() -> None:
    """The order is not carried out by that, so it is repeated."""
    world = World(1)
    (own,) = world.replicas.values()
    adoptions = Adoptions(own.own)
    copies = Copies(own.peers, world.hosts[own.address], own.known_homes, adoptions)

    async def adopt() -> HomeAnswer:
        adopting = HomeAnswer(PeerAnswer.ADOPTING)
        assert copies.yielded("m1", str(LOST), ANONYMOUS) == adopting
        assert adoptions.gives_way("m1")
        return HomeAnswer(PeerAnswer.HAS_NOT)

    assert await adoptions.begin("m1", adopt()) == HomeAnswer(PeerAnswer.HAS_NOT)
    assert own.known_homes.elsewhere("m1") is None
