"""The end of a replica: which sessions are offered, to which peers, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from mcpbridge.bridge.drain import Drain
from mcpbridge.replicas.handover import HandOver
from mcpbridge.replicas.homes import Homes
from mcpbridge.replicas.peer_messages import (
    MAX_HANDOVER_BYTES,
    HomeAnswer,
    HomeQuestion,
    OfferedSession,
)
from mcpbridge.replicas.peers import address_of
from mcpbridge.replicas.session_id import Replica
from mcpbridge.rules.access.principals import ANONYMOUS, Principal
from mcpbridge.rules.homes.adoption import PeerAnswer, takers
from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S, KnownPeer
from mcpbridge.rules.homes.record import SessionRecord, StreamRecord
from mcpbridge.rules.homes.rendezvous import rendezvous_order
from mcpbridge.rules.homes.states import Arrival
from mcpbridge.rules.supervision.lifecycle import DrainEvent
from mcpbridge.telemetry.metrics import Meters
from tests.support.bridge_process import eventually
from tests.support.replica_world import LOST, World

RECORD = SessionRecord(initialized=True, level="warning", subscriptions=("file:///a",), used=True)


class Leaving:
    """The sessions of the replica that ends."""

    def __init__(self, world: World, own: str) -> None:
        self.world = world
        self.own = own
        self.quiet: dict[str, bool] = {}
        self.record = RECORD
        self.own_child: set[str] = set()

    def leavers(self) -> Iterator[tuple[str, Principal, bool]]:
        """Those that the test has put there."""
        for session_id, quiet in list(self.quiet.items()):
            yield session_id, ANONYMOUS, quiet

    def content(self, session_id: str, principal: Principal) -> tuple[bytes, SessionRecord] | None:
        """What is known of it."""
        return (b"{}", self.record) if session_id in self.quiet else None

    def with_own_child(self) -> set[str]:
        """Those of which the test says so."""
        return self.own_child & self.quiet.keys()

    def moved(self, session_id: str, principal: Principal) -> bool:
        """It is not here any more."""
        self.world.hosts[self.own].sessions.discard(session_id)
        return self.quiet.pop(session_id, None) is not None


class Ending:
    """One replica of a world, at its end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.address = next(iter(world.replicas))
        self.homes: Homes = world.replicas[self.address]
        self.host = Leaving(world, self.address)
        self.drain = Drain()
        self.meters = Meters()
        self.offers: list[tuple[str, OfferedSession]] = []
        self.silent: set[str] = set()
        self.lost_answers = False
        parts = (self.drain, self.meters, asyncio.get_running_loop().time)
        self.hand_over = HandOver(self.homes, self.host, self.offer, *parts)

    def has(self, session_id: str, *, quiet: bool = True) -> None:
        """Put a session there."""
        self.host.quiet[session_id] = quiet
        self.world.hosts[self.address].sessions.add(session_id)

    async def offer(self, address: str, body: bytes, principal: Principal) -> HomeAnswer | None:
        """Offer it to a replica of the world."""
        offered = msgspec.json.decode(body, type=OfferedSession)
        self.offers.append((address, offered))
        if address in self.silent:
            return None
        answer = await self.world.replicas[address].taker.take(offered, principal)
        return None if self.lost_answers else answer

    def order(self, session_id: str) -> list[str]:
        """The peers in the order in which they are asked."""
        return rendezvous_order(session_id, (a for a in self.world.replicas if a != self.address))

    def outcomes(self) -> dict[str, int]:
        """What was counted."""
        return {str(label): count for label, count in self.meters.tallies["handovers"].items()}

    async def until_idle(self) -> None:
        """Wait until the cutoff would not wait any more."""
        async with asyncio.timeout(10):
            await self.drain.until_idle()


@asynccontextmanager
async def ending(count: int = 3) -> AsyncIterator[Ending]:
    """A replica that ends while the block runs, once the test has begun its end."""
    world = World(count)
    await world.settle()
    made = Ending(world)
    running = asyncio.ensure_future(made.hand_over.run())
    try:
        yield made
    finally:
        made.hand_over.begin(0.0)
        made.drain.advance(DrainEvent.SIGNAL)
        made.drain.advance(DrainEvent.SIGNAL)
        await running


async def test_a_session_goes_to_the_first_peer_with_what_is_known_of_it() -> None:
    """It is at one replica; what is asked of it afterwards is led there."""
    async with ending() as made:
        made.has("m1")
        made.hand_over.begin(0.0)
        await made.until_idle()
        (first, _) = made.order("m1")
        assert made.world.homes == [first]
        assert made.world.hosts[first].records["m1"] == RECORD
        home = made.world.replicas[first].own
        assert made.homes.known("m1", LOST) == home
        assert made.homes.leaving.moved == 1
        assert made.outcomes() == {"moved": 1}
        # All know it before this replica ends.
        (_, second) = made.order("m1")
        assert made.world.replicas[second].known("m1", LOST) == home
        asked = await made.homes.answer(HomeQuestion("m1", "10.0.0.50:8001"), ANONYMOUS)
        assert asked == HomeAnswer(PeerAnswer.HAS, str(home))


async def test_a_session_that_was_adopted_here_is_led_to_its_taker() -> None:
    """This replica has found itself as its home before."""
    async with ending(2) as made:
        (other,) = made.order("m1")
        made.world.hosts[other].ending = True
        assert await made.homes.next_home("m1", ANONYMOUS, LOST) == made.homes.own
        made.world.hosts[other].ending = False
        made.has("m1")
        made.hand_over.begin(0.0)
        await made.until_idle()
        assert made.world.homes == [other]
        assert made.homes.known("m1", LOST) == made.world.replicas[other].own


async def test_a_session_with_a_call_goes_when_it_has_none() -> None:
    """The cutoff waits for it."""
    async with ending() as made:
        made.has("m1", quiet=False)
        made.hand_over.begin(0.0)
        idle = asyncio.ensure_future(made.until_idle())
        await asyncio.wait([idle], timeout=0.2)
        assert (made.offers, idle.done()) == ([], False)
        made.has("m1")
        await idle
        assert made.world.homes == made.order("m1")[:1]


async def test_a_session_with_a_process_alone_is_held_for_a_time() -> None:
    """The others go at once; the end waits for it, and it goes when the time is over."""
    async with ending() as made:
        made.world.ids["m2"] = made.world.ids["m1"]
        made.has("m1")
        made.has("m2")
        made.host.own_child = {"m1"}
        made.hand_over.begin(0.0, hold_s=0.4)
        assert made.homes.leaving.holds("m1")
        held_until = asyncio.get_running_loop().time() + 0.4
        await eventually(lambda: "m2" not in made.host.quiet, "the other one goes")
        assert ("m1" in made.host.quiet) or asyncio.get_running_loop().time() >= held_until
        await made.until_idle()
        assert asyncio.get_running_loop().time() >= held_until
        assert sorted(offered.session for _, offered in made.offers) == ["m1", "m2"]
        assert not made.homes.leaving.holds("m1")


@pytest.mark.parametrize("ends", ["the session", "its process"])
async def test_a_session_is_held_no_longer_than_there_is_a_reason(ends: str) -> None:
    """One that ends is not waited for; one whose process has ended goes to another replica."""
    async with ending() as made:
        made.has("m1")
        made.host.own_child = {"m1"}
        made.hand_over.begin(0.0, hold_s=3600.0)
        idle = asyncio.ensure_future(made.until_idle())
        await asyncio.wait([idle], timeout=0.2)
        assert (made.offers, idle.done()) == ([], False)
        if ends == "the session":
            del made.host.quiet["m1"]
        else:
            made.host.own_child.clear()
        await idle
        assert len(made.offers) == (0 if ends == "the session" else 1)


async def test_the_first_part_of_the_lame_duck_passes_before_sessions_go() -> None:
    """Load balancers take notice in it; the cutoff waits from the signal on."""
    async with ending() as made:
        made.has("m1")
        began = asyncio.get_running_loop().time()
        made.hand_over.begin(0.4)
        await made.until_idle()
        assert made.world.homes == made.order("m1")[:1]
        assert asyncio.get_running_loop().time() - began >= 0.2


async def test_peers_that_end_are_full_or_silent_are_passed_over() -> None:
    """The first that takes it has it."""
    async with ending(5) as made:
        ends, full, silent, takes = made.order("m1")
        made.world.hosts[ends].ending = True
        made.world.hosts[full].full = True
        made.silent.add(silent)
        made.has("m1")
        made.hand_over.begin(0.0)
        await made.until_idle()
        assert [address for address, _ in made.offers] == [ends, full, silent, takes]
        assert made.world.homes == [takes]


async def test_a_session_that_all_refuse_stays_and_is_served() -> None:
    """The cutoff does not wait for it, and it is offered again."""
    async with ending(2) as made:
        (other,) = made.order("m1")
        made.world.hosts[other].full = True
        made.has("m1")
        made.hand_over.begin(0.0)
        await made.until_idle()
        assert made.homes.leaving.arrival("m1") is Arrival.SERVE
        assert made.world.homes == [made.address]
        assert made.outcomes()["refused"] >= 3, "it was offered again before the end"
        made.world.hosts[other].full = False
        await eventually(lambda: made.world.homes == [other], "it is taken")


async def test_a_lost_answer_is_asked_for() -> None:
    """The peer has taken the session: it must not be served here too."""
    async with ending(2) as made:
        made.lost_answers = True
        made.has("m1")
        made.hand_over.begin(0.0)
        await made.until_idle()
        assert made.world.homes == made.order("m1")
        assert made.outcomes() == {"moved": 1}


async def test_a_session_that_ends_while_it_is_offered_ends_at_its_taker_too() -> None:
    """As one that has been idle for too long."""
    async with ending(2) as made:
        (other,) = made.order("m1")
        made.has("m1")
        take = made.world.replicas[other].taker.take

        async def ended_then_taken(address: str, body: bytes, principal: Principal) -> HomeAnswer:
            made.host.moved("m1", ANONYMOUS)
            return await take(msgspec.json.decode(body, type=OfferedSession), principal)

        parts = (made.drain, made.meters, asyncio.get_running_loop().time)
        hand_over = HandOver(made.homes, made.host, ended_then_taken, *parts)
        running = asyncio.ensure_future(hand_over.run())
        hand_over.begin(0.0)
        await made.until_idle()
        await eventually(lambda: made.world.homes == [], "its copy has ended")
        assert made.homes.leaving.moved == 0
        running.cancel()


async def test_a_session_that_is_too_large_goes_without_its_answers_or_stays() -> None:
    """What a peer port reads is bounded."""
    answers = (StreamRecord("ab", 1, 0, (b"x" * MAX_HANDOVER_BYTES,)),)
    for record, taken in (
        (msgspec.structs.replace(RECORD, answers=answers), RECORD),
        (SessionRecord(subscriptions=("x" * MAX_HANDOVER_BYTES,)), None),
    ):
        async with ending(2) as made:
            (other,) = made.order("m1")
            made.host.record = record
            made.has("m1")
            made.hand_over.begin(0.0)
            await made.until_idle()
            assert made.world.hosts[other].records.get("m1") == taken
            assert set(made.outcomes()) == {"moved" if taken else "too_large"}


async def test_a_home_that_was_handed_a_session_and_is_lost_is_replaced() -> None:
    """The one that ends does not name it any more to those who know that it is lost."""
    async with ending(4) as made:
        made.has("m1")
        made.hand_over.begin(0.0)
        await made.until_idle()
        (lost,) = made.world.homes
        gone = made.world.replicas[lost].own
        made.world.kill(lost)
        # An ending replica adopts none; it serves nothing that the test asks it for either.
        made.world.hosts[made.address].ending = True
        asker = next(a for a in made.world.replicas if a != made.address)
        found = await made.world.replicas[asker].next_home("m1", ANONYMOUS, gone)
        assert made.world.homes == [address_of(found)]
        assert found != gone
        assert await made.homes.next_home("m1", ANONYMOUS, gone) == found
        assert made.homes.leaving.moved_to("m1") == found


async def test_a_replica_that_ends_tells_the_others_what_was_deleted() -> None:
    """They may have begun since."""
    async with ending(2) as made:
        made.homes.notices.deleted("m1")
        late = made.world.start(Replica("10.0.0.77", 8001, 77))
        made.hand_over.begin(0.0)
        await made.until_idle()
        made.world.kill(made.address)
        question = HomeQuestion("m1", "10.0.0.50:8001")
        assert await late.answer(question, ANONYMOUS) == HomeAnswer(PeerAnswer.GONE)


def test_settled_peers_are_offered_a_session_before_new_ones() -> None:
    """One that no answer names any more is offered none, and neither is the replica itself."""
    own = KnownPeer("own:1", 99.0)
    settled = [KnownPeer(f"10.0.0.{number}:1", SETTLED_AFTER_S) for number in range(4)]
    new = [KnownPeer(f"10.0.1.{number}:1", 1.0) for number in range(4)]
    away = KnownPeer("10.0.2.1:1", 99.0, 5.0)
    found = takers("m1", [own, *new, away, *settled], "own:1")
    first, last = found[:4], found[4:]
    assert first == rendezvous_order("m1", (each.address for each in settled))
    assert last == rendezvous_order("m1", (each.address for each in new))
