"""What a replica asks and tells those that it sees."""

from __future__ import annotations

import pytest

from mcpbridge.replicas.peer_messages import EndedSessions, HomeAnswer, HomeQuestion
from mcpbridge.replicas.peers import address_of, home_in
from mcpbridge.replicas.session_id import Replica
from mcpbridge.rules.access.principals import ANONYMOUS
from mcpbridge.rules.homes.adoption import PeerAnswer
from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S
from mcpbridge.rules.homes.rendezvous import rendezvous_order
from tests.support.replica_world import Network

OWN = Replica("10.0.0.0", 8001, 0)
OTHERS = [Replica(f"10.0.0.{number}", 8001, number) for number in (1, 2, 3)]
ADDRESSES = [address_of(each) for each in OTHERS]


def network_of_all() -> Network:
    """The network in which all are named."""
    return Network(OWN, [address_of(OWN), *ADDRESSES])


async def test_the_view_holds_this_replica_and_those_that_were_named_or_asked() -> None:
    """A failed look-up changes nothing; one that is named no more is absent at first."""
    network = network_of_all()
    peers = network.peers
    assert [each.address for each in peers] == [address_of(OWN)]
    await peers.look()
    peers.met("10.0.0.9:8001")
    assert [each.address for each in peers] == [address_of(OWN), *ADDRESSES, "10.0.0.9:8001"]
    assert len(peers) == 5
    network.names = None
    network.now += 3.0
    await peers.look()
    assert peers.absent_s(ADDRESSES[0]) is None
    network.names = ADDRESSES[1:]
    await peers.look()
    assert [peers.absent_s(each) for each in ADDRESSES] == [3.0, None, None]


async def test_a_replica_is_settled_once_all_others_have_resolved_their_name() -> None:
    """They know it from then on."""
    network = network_of_all()
    network.now += SETTLED_AFTER_S - 1
    assert network.peers.settles_in_s == 1.0
    network.now += 1
    assert network.peers.settles_in_s == 0.0
    network.now += 1
    assert network.peers.settles_in_s == 0.0


async def test_all_peers_are_asked_in_the_order_of_the_session() -> None:
    """Each answer stands beside its address; the replica does not ask itself."""
    network = network_of_all()
    await network.peers.look()
    network.answers[ADDRESSES[1]] = HomeAnswer(PeerAnswer.HAS_NOT)
    session_id = next(
        each
        for each in (f"m{number}" for number in range(100))
        if rendezvous_order(each, ADDRESSES) not in (ADDRESSES, ADDRESSES[::-1])
    )
    question = HomeQuestion(session_id, address_of(OWN))
    order = rendezvous_order(session_id, ADDRESSES)
    expected = [(each, network.answers.get(each)) for each in order]
    assert await network.peers.ask_all(question, ANONYMOUS) == expected
    assert network.asked == [(each, question) for each in order]


async def test_a_sign_is_asked_of_those_that_are_named_now() -> None:
    """The result is how many there are, and how many have answered."""
    network = network_of_all()
    network.answers[ADDRESSES[1]] = HomeAnswer(PeerAnswer.HAS_NOT)
    assert await network.peers.reach() == (3, 1)
    assert {question for _, question in network.asked} == {HomeQuestion("", address_of(OWN))}


async def test_messages_go_to_each_other_replica_one_after_the_other() -> None:
    """None is told to this one."""
    network = network_of_all()
    await network.peers.look()
    messages = [EndedSessions(address_of(OWN), (bytes([number]),)) for number in range(2)]
    await network.peers.tell_all(messages)
    assert network.told == [(each, said) for said in messages for each in ADDRESSES]


@pytest.mark.parametrize(
    ("answer", "serves"),
    [
        (None, True),
        (HomeAnswer(PeerAnswer.HAS, str(OTHERS[0])), True),
        (HomeAnswer(PeerAnswer.HAS, str(OTHERS[1])), False),
        (HomeAnswer(PeerAnswer.HAS_NOT), False),
    ],
    ids=["silent", "it has it", "another has it", "it has not"],
)
async def test_a_home_that_has_claimed_a_session_serves_it_unless_it_says_otherwise(
    answer: HomeAnswer | None, serves: bool
) -> None:
    """It is told to adopt the session, which it does already; silence may be its end or not."""
    network = network_of_all()
    network.answers[ADDRESSES[0]] = answer
    assert await network.peers.serves("m1", ANONYMOUS, OTHERS[0]) is serves
    ((address, question),) = network.asked
    assert (address, question.adopt, question.lost) == (ADDRESSES[0], True, str(OTHERS[0]))


@pytest.mark.parametrize(
    ("answer", "home"),
    [
        (None, None),
        (HomeAnswer(PeerAnswer.HAS), None),
        (HomeAnswer(PeerAnswer.HAS, "nowhere"), None),
        (HomeAnswer(PeerAnswer.HAS_NOT, str(OWN)), None),
        (HomeAnswer(PeerAnswer.HAS, str(OWN)), OWN),
    ],
)
def test_the_home_in_an_answer(answer: HomeAnswer | None, home: Replica | None) -> None:
    """Only one that says that a replica has the session, and names it."""
    assert home_in(answer) == home
