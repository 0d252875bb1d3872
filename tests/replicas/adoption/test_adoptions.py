"""The adoptions that go on at a replica, and what it says about them to another adopter."""

from __future__ import annotations

import asyncio
import gc

import pytest

from mcpbridge.replicas.adoption.adoptions import Adoptions
from mcpbridge.replicas.peer_messages import HomeAnswer, HomeQuestion
from mcpbridge.replicas.peers import address_of
from mcpbridge.replicas.session_id import Replica
from mcpbridge.rules.faults import Unavailable, draining
from mcpbridge.rules.homes.adoption import PeerAnswer
from mcpbridge.rules.homes.rendezvous import rendezvous_order
from tests.support.bridge_process import eventually

REPLICAS = {address_of(each): each for each in (Replica(f"10.0.0.{n}", 8001, n) for n in range(2))}
FIRST, LAST = rendezvous_order("m1", REPLICAS)
HAS_NOT = HomeAnswer(PeerAnswer.HAS_NOT)
ADOPTING = HomeAnswer(PeerAnswer.ADOPTING)


class Adopting:
    """One adoption at a replica, which ends when the test says so."""

    def __init__(self, own: str) -> None:
        self.adoptions = Adoptions(REPLICAS[own])
        self.begins = asyncio.Event()
        self.ends = asyncio.Event()
        self.fails = False

    async def adopt(self) -> HomeAnswer:
        """Wait for the test."""
        self.begins.set()
        await self.ends.wait()
        if self.fails:
            raise Unavailable(draining())
        return HAS_NOT

    async def begun(self) -> asyncio.Task[HomeAnswer]:
        """Begin it; what the one that began it waits for."""
        self.begins.clear()
        begun = asyncio.ensure_future(self.adoptions.begin("m1", self.adopt()))
        await self.begins.wait()
        return begun


def question(asker: str, *, adopts: bool = True) -> HomeQuestion:
    """What a replica asks about the session."""
    return HomeQuestion("m1", asker, adopts=adopts)


@pytest.mark.parametrize(("own", "asker", "gives_way"), [(LAST, FIRST, True), (FIRST, LAST, False)])
async def test_an_adopter_gives_way_to_one_that_comes_first(
    own: str, asker: str, gives_way: bool
) -> None:
    """Not to a replica that only asks; nothing of it is left for the next adoption."""
    made = Adopting(own)
    adoptions = made.adoptions
    assert adoptions.answer(question(asker)) == HAS_NOT
    assert not adoptions.gives_way("m1")
    begun = await made.begun()
    assert "m1" in adoptions
    assert adoptions.answer(question(asker, adopts=False)) == ADOPTING
    assert not adoptions.gives_way("m1")
    assert adoptions.answer(question(asker)) == ADOPTING
    assert adoptions.gives_way("m1") is gives_way
    made.ends.set()
    assert await begun == HAS_NOT
    assert "m1" not in adoptions
    assert not adoptions.gives_way("m1")


async def test_a_decided_adoption_gives_way_to_none() -> None:
    """An adopter that asks is told that the session is here; others wait until it is open."""
    made = Adopting(LAST)
    begun = await made.begun()
    made.adoptions.decide("m1")
    here = HomeAnswer(PeerAnswer.HAS, str(REPLICAS[LAST]))
    assert made.adoptions.answer(question(FIRST)) == here
    assert made.adoptions.answer(question(FIRST, adopts=False)) == ADOPTING
    assert not made.adoptions.gives_way("m1")
    made.ends.set()
    await begun
    made.ends.clear()
    again = await made.begun()
    assert made.adoptions.answer(question(FIRST)) == ADOPTING, "the next one is not decided"
    made.ends.set()
    await again


async def test_an_adoption_goes_on_without_those_that_wait_for_it() -> None:
    """All that wait have its outcome, whichever of them leaves."""
    made = Adopting(LAST)
    assert made.adoptions.outcome("m1") is None
    begun = await made.begun()
    first, second = (made.adoptions.outcome("m1") for _ in range(2))
    assert first is not None
    assert second is not None
    begun.cancel()
    first.cancel()
    await asyncio.wait([begun, first])
    assert "m1" in made.adoptions
    made.ends.set()
    assert await second == HAS_NOT


@pytest.mark.parametrize("waits", [True, False])
async def test_a_failure_is_the_outcome_for_all_and_no_error_if_all_have_left(waits: bool) -> None:
    """The event loop would report an exception that no task has seen."""
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    made = Adopting(LAST)
    made.fails = True
    begun = await made.begun()
    waiting = made.adoptions.outcome("m1") if waits else None
    begun.cancel()
    await asyncio.wait([begun])
    made.ends.set()
    if waiting is not None:
        with pytest.raises(Unavailable, match="shutting down"):
            await waiting
    await eventually(lambda: "m1" not in made.adoptions, "it is over")
    del begun, waiting
    gc.collect()
    assert reported == []
