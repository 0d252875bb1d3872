"""What replicas tell each other about sessions that were deleted or moved."""

from __future__ import annotations

import asyncio
import functools

import msgspec
import pytest

from mcpbridge.replicas.peer_messages import (
    EndedSessions,
    HomeAnswer,
    HomeQuestion,
    MovedSessions,
    OfferedSession,
)
from mcpbridge.replicas.session_id import Replica
from mcpbridge.replicas.tombstones import digest_of
from mcpbridge.rules.access.principals import ANONYMOUS
from mcpbridge.rules.homes.adoption import PeerAnswer
from tests.support.bridge_process import asked_until, eventually
from tests.support.replica_world import LOST, World


async def test_no_replica_revives_a_session_that_was_deleted_at_one_of_them() -> None:
    """Not one that was told, not one that has begun since, and none that is told to adopt it."""
    world = World(3)
    await world.settle()
    first, second, third = world.replicas.values()
    first.notices.deleted("m1")
    first.notices.deleted("m2")
    question = HomeQuestion("m1", third.address)

    async def told() -> bool:
        return (await second.answer(question, ANONYMOUS)).answer is PeerAnswer.GONE

    await asked_until(told, "the others are told")
    late = world.start(Replica("10.0.0.77", 8001, 77))
    for each in (first, second, third, late):
        with pytest.raises(LookupError):
            await each.next_home("m1", ANONYMOUS, LOST)
    offered = OfferedSession("m1", first.address, b"{}")
    assert await late.taker.take(offered, ANONYMOUS) == HomeAnswer(PeerAnswer.GONE)
    assert world.homes == []


async def test_ended_sessions_are_read_from_bytes_and_end_where_they_are() -> None:
    """As a peer sends them."""
    world = World(1)
    (own,) = world.replicas.values()
    world.hosts[own.address].sessions.add("m1")
    ended = EndedSessions("10.0.0.50:8001", (digest_of("m2"),), "m1")
    again = msgspec.json.decode(msgspec.json.encode(ended), type=EndedSessions)
    assert own.notices.told(again, ANONYMOUS) == HomeAnswer(PeerAnswer.HAS_NOT)
    assert world.homes == []
    assert (await own.answer(HomeQuestion("m2", own.address), ANONYMOUS)).answer is PeerAnswer.GONE


async def test_what_is_deleted_while_peers_are_told_is_told_too() -> None:
    """Once they have what was deleted before; and so is what is deleted later."""
    world = World(2)
    await world.settle()
    first, second = world.replicas.values()

    async def told(*sessions: str) -> bool:
        asked = (HomeQuestion(each, first.address) for each in sessions)
        answers = [await second.answer(each, ANONYMOUS) for each in asked]
        return {each.answer for each in answers} == {PeerAnswer.GONE}

    for session_id in ("m1", "m2", "m3"):
        first.notices.deleted(session_id)
        await asyncio.sleep(0)
    await asked_until(functools.partial(told, "m1", "m2", "m3"), "the other one knows all of them")
    first.notices.deleted("m4")
    await asked_until(functools.partial(told, "m4"), "the other one knows the last one too")


async def test_homes_of_sessions_are_told_in_parts_and_remembered() -> None:
    """Without names that no replica has, and without the name of the replica that is told."""
    world = World(3)
    await world.settle()
    first, second, third = world.replicas.values()
    await first.notices.tell_moved({f"s{number}": third.own for number in range(1000)})
    assert {second.known(f"s{number}", LOST) for number in range(1000)} == {third.own}
    assert third.known("s1", LOST) == LOST, "it has the session itself"
    second.notices.told(MovedSessions(first.address, {"m1": "nowhere"}), ANONYMOUS)
    assert second.known("m1", LOST) == LOST


async def test_the_copy_of_a_session_that_has_ended_ends_at_its_taker() -> None:
    """That is told in the background."""
    world = World(2)
    first, second = world.replicas.values()
    world.hosts[second.address].sessions.add("m1")
    first.notices.end_copy("m1", second.own, ANONYMOUS)
    await eventually(lambda: world.homes == [], "it ends there")
