"""Which replica gets a session that another one has no room for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.http.peers.questions import taken_part
from mcpbridge.replicas.peer_messages import HomeAnswer, HomeQuestion
from mcpbridge.replicas.placement import AGAIN_S, FULL, MOST_ASKED, Placement
from mcpbridge.replicas.session_id import Replica
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.homes.adoption import PeerAnswer
from tests.support.replica_world import World


class Peers:
    """The peers of the first replica of a world, as it finds them when it asks."""

    def __init__(self, world: World) -> None:
        own, *others = world.replicas
        self.others = others
        self.names = {each: world.replicas[each].own for each in others}
        self.answers: dict[str, HomeAnswer | None] = {}
        self.asked: list[str] = []
        self.now = 0.0
        self.placement = Placement(world.replicas[own], self.ask, lambda: self.now, list.sort)

    def fill(self, number: int, fill: float) -> None:
        """Set the fill level of a peer, by its place in the order in which they are asked."""
        address = sorted(self.others)[number]
        name = str(self.names[address])
        self.answers[address] = HomeAnswer(PeerAnswer.HAS_NOT, name, fill)

    def replica(self, number: int) -> Replica:
        """The peer at a place in that order."""
        return self.names[sorted(self.others)[number]]

    async def ask(
        self, address: str, question: HomeQuestion, principal: Principal
    ) -> HomeAnswer | None:
        """Answer as the test says."""
        assert question.session == ""
        self.asked.append(address)
        return self.answers.get(address)


async def peers(count: int) -> Peers:
    """Return `count` peers, all of which are silent."""
    world = World(count + 1)
    await world.settle()
    return Peers(world)


async def test_the_emptier_of_two_is_taken_and_no_other_is_asked() -> None:
    """A third may be emptier still."""
    made = await peers(3)
    for number, fill in enumerate((0.6, 0.5, 0.0)):
        made.fill(number, fill)
    assert await made.placement.emptier() == made.replica(1)
    assert made.asked == sorted(made.others)[:2]


async def test_full_and_silent_peers_are_passed_over() -> None:
    """So is one of an earlier release, which does not tell how full it is."""
    made = await peers(5)
    made.fill(0, FULL)
    made.answers[sorted(made.others)[2]] = HomeAnswer(PeerAnswer.HAS_NOT)
    made.fill(4, 0.9)
    assert await made.placement.emptier() == made.replica(4)


@pytest.mark.parametrize("count", [0, 1, 2 * MOST_ASKED])
async def test_without_room_anywhere_only_some_are_asked(count: int) -> None:
    """The client of the session waits for the answer."""
    made = await peers(count)
    for number in range(count):
        made.fill(number, FULL)
    assert await made.placement.emptier() is None
    assert len(made.asked) == min(count, MOST_ASKED)


async def test_while_none_has_room_none_is_asked_for_each_session() -> None:
    """Clients that are refused come back, all of them."""
    made = await peers(1)
    made.fill(0, FULL)
    assert await made.placement.emptier() is None
    made.fill(0, 0.0)
    assert await made.placement.emptier() is None
    assert len(made.asked) == 1
    made.now = AGAIN_S
    assert await made.placement.emptier() == made.replica(0)


@pytest.mark.parametrize(
    ("ending", "no_memory", "fill", "part"),
    [
        (False, False, 0.3, 0.3),
        (False, False, 1.2, FULL),
        (True, False, 0.3, FULL),
        (False, True, 0.9, FULL),
    ],
)
def test_what_a_replica_says_of_itself(
    ending: bool, no_memory: bool, fill: float, part: float
) -> None:
    """It is full too if it ends, or has no memory for another session."""
    drain, budget = SimpleNamespace(ending=ending), SimpleNamespace(full=no_memory)
    bridge = SimpleNamespace(drain=drain, budget=budget, fill=fill)
    assert taken_part(cast(Bridge, bridge)) == part
