"""What a replica takes from one that ends."""

from __future__ import annotations

import pytest

from mcpbridge.replicas.peer_messages import HomeAnswer, HomeQuestion, OfferedSession
from mcpbridge.rules.access.principals import ANONYMOUS, Principal
from mcpbridge.rules.homes.adoption import PeerAnswer
from mcpbridge.rules.homes.record import SessionRecord, StreamRecord
from mcpbridge.rules.homes.rendezvous import rendezvous_order
from mcpbridge.stores.store import BEAT_FOR_S
from tests.support.replica_world import CHANGED, LOST, StoredWorld, World, three


@pytest.mark.parametrize(
    "offered",
    [
        OfferedSession("m2", "10.0.0.50:8001", b"{}"),
        OfferedSession("m1", "10.0.0.50:8001", b"{}", SessionRecord(level="loud")),
        OfferedSession(
            "m1", "10.0.0.50:8001", b"{}", SessionRecord(answers=(StreamRecord("a", 0, 0, ()),))
        ),
    ],
)
async def test_what_no_replica_can_have_offered_is_refused(offered: OfferedSession) -> None:
    """An id that opens for no client, a level and a stream that do not exist."""
    world = World(1)
    answer = await world.replicas["10.0.0.0:8001"].taker.take(offered, ANONYMOUS)
    assert answer == HomeAnswer(PeerAnswer.HAS_NOT)
    assert world.hosts["10.0.0.0:8001"].sessions == set()


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


async def test_an_adopter_that_asks_while_a_session_is_taken_gives_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The home itself gives the session, so it is here, whichever of the two comes first."""
    world = World(2)
    address, asker = rendezvous_order("m1", world.replicas)[::-1]
    taker, host = world.replicas[address], world.hosts[address]
    answers: list[HomeAnswer] = []
    revive = host.revive

    async def asked_while_it_opens(
        session_id: str,
        params: bytes,
        principal: Principal,
        record: SessionRecord | None = None,
    ) -> None:
        question = HomeQuestion(session_id, asker, adopts=True)
        answers.append(await taker.answer(question, principal))
        await revive(session_id, params, principal, record)

    monkeypatch.setattr(host, "revive", asked_while_it_opens)
    here = HomeAnswer(PeerAnswer.HAS, str(taker.own))
    assert await taker.taker.take(OfferedSession("m1", asker, b"{}"), ANONYMOUS) == here
    assert answers == [here]
    assert world.homes == [address]
