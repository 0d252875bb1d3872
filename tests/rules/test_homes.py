"""Which replica has a session: orders, verdicts, tables, and many runs of many replicas."""

from __future__ import annotations

import collections
import itertools
import random
import re
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.rules.homes import adoption, owner, states
from mcpbridge.rules.homes.adoption import (
    HELD_BACK_S,
    REVIVABLE_S,
    SKEW_S,
    HomeStep,
    PeerAnswer,
    StoreView,
    adopters,
    is_isolated,
    is_revivable,
    next_step,
    yields,
)
from mcpbridge.rules.homes.lost_calls import REPEATABLE, is_repeatable
from mcpbridge.rules.homes.on_owner_lost import OnOwnerLost
from mcpbridge.rules.homes.owner import OWNER, OwnerSign, OwnerVerdict, judge_owner
from mcpbridge.rules.homes.peer_view import (
    FORGOTTEN_AFTER_S,
    SETTLED_AFTER_S,
    KnownPeer,
    PeerView,
)
from mcpbridge.rules.homes.record import SessionRecord, read_record, write_record
from mcpbridge.rules.homes.rendezvous import precedes, rendezvous_order
from mcpbridge.rules.homes.states import ARRIVAL, HOME, HomeEvent, HomeState
from mcpbridge.rules.mcp.methods import KNOWN_REQUESTS, LOG_LEVELS
from mcpbridge.rules.supervision.lifecycle import step
from mcpbridge.wire.json_object import with_members
from tests.rules.homes_simulation import Simulation

ADDRESSES = st.lists(
    st.integers(0, 40).map(lambda last: f"10.0.0.{last}:8001"), max_size=12, unique=True
)
IDS = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=1, max_size=200)


def rows(module: ModuleType, first: str) -> list[list[str]]:
    """Return the rows of the table in a module's docstring whose heading begins with `first`."""
    table = re.search(rf"^\| {first} \|.*\n\|[-|]*\|\n((?:\|.*\|\n?)+)", module.__doc__ or "", re.M)
    assert table is not None
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table[1].splitlines()]


# The order.


@given(IDS, ADDRESSES, st.randoms(use_true_random=False))
def test_all_replicas_find_the_same_order(
    session: str, addresses: list[str], dice: random.Random
) -> None:
    """However their views are sorted, and whether or not one names a peer twice."""
    order = rendezvous_order(session, addresses)
    shuffled = [*addresses, *addresses]
    dice.shuffle(shuffled)
    assert rendezvous_order(session, shuffled) == order
    assert sorted(order) == sorted(addresses)


@given(IDS, ADDRESSES, st.data())
def test_a_replica_that_goes_moves_no_other(
    session: str, addresses: list[str], data: st.DataObject
) -> None:
    """So views that differ by one peer differ by nothing else."""
    order = rendezvous_order(session, addresses)
    gone = data.draw(st.sampled_from(addresses)) if addresses else ""
    left = rendezvous_order(session, [each for each in addresses if each != gone])
    assert left == [each for each in order if each != gone]


def test_sessions_are_spread_over_the_replicas() -> None:
    """Those of a replica that died do not all go to one other."""
    addresses = [f"10.0.0.{last}:8001" for last in range(5)]
    firsts = collections.Counter(
        rendezvous_order(f"m{number}", addresses)[0] for number in range(1000)
    )
    assert set(firsts) == set(addresses)
    assert min(firsts.values()) > 140


@given(IDS, ADDRESSES)
def test_of_two_one_comes_first(session: str, addresses: list[str]) -> None:
    """As in the order of all; none comes before itself."""
    order = rendezvous_order(session, addresses)
    for one, other in itertools.product(order, order):
        assert precedes(session, one, other) == (order.index(one) < order.index(other))


# The owner.


@pytest.mark.parametrize("row", rows(owner, "sign"), ids=lambda row: row[0])
def test_the_verdict_on_an_owner(row: list[str]) -> None:
    """As the table says; silence is proof only once the address has been gone for two TTLs."""
    sign, verdict = OwnerSign[row[0]], row[1]
    at_once, _, gone = verdict.partition("; DEAD if its address is gone")
    assert judge_owner(sign, None, 10.0).name == verdict.split(";")[0]
    later = "DEAD" if "gone" in verdict else at_once
    assert judge_owner(sign, 19.9, 10.0).name == at_once
    assert judge_owner(sign, 20.0, 10.0).name == later
    assert gone == ""


def test_each_sign_has_its_row() -> None:
    """Also one that is added."""
    assert {row[0] for row in rows(owner, "sign")} == {sign.name for sign in OwnerSign}
    assert set(OWNER) == set(OwnerSign)


# Calls whose owner was lost.


@pytest.mark.parametrize("method", sorted(KNOWN_REQUESTS | {"vendor/unknown"}))
def test_what_may_have_been_delivered_is_repeated_by_its_method(method: str) -> None:
    """A tool is never called twice, nor is anything whose effect is not known."""
    assert is_repeatable("request", method) is (method in REPEATABLE)


def test_the_methods_that_are_repeated() -> None:
    """Reads, and those that say a second time what was said."""
    assert {"tools/call", "initialize", "tasks/cancel", "tasks/result"} & REPEATABLE == set()
    assert {"ping", "tools/list", "resources/read", "logging/setLevel"} <= REPEATABLE


def test_what_has_no_answer_is_repeated() -> None:
    """Notifications, and replies to requests that ended with their server."""
    assert is_repeatable("notification", None)
    assert is_repeatable("reply", None)


# Who adopts.


def steps_in(cell: str) -> tuple[str, str, str]:
    """Return the step at first, and those after 30 s if sessions restart or end."""
    first, _, later = cell.partition("; after 30 s ")
    restart, _, end = later.partition(" or ")
    return first, restart or first, end or first


def test_the_step_is_that_of_the_table() -> None:
    """Every child, owner, store, choice and time has one row, and its step is that of the code."""
    expected: dict[tuple[bool, str, str], tuple[str, str, str]] = {}
    for child, verdict, store, cell in rows(adoption, "child"):
        owns = {"own": [True], "shared": [False], "any": [False, True]}[child]
        stores = [each.name for each in StoreView] if store == "any" else [store]
        for key in itertools.product(owns, [verdict], stores):
            assert key not in expected
            expected[key] = steps_in(cell)
    for own, alive, view in itertools.product((False, True), OwnerVerdict, StoreView):
        first, restart, end = expected.pop((own, alive.name, view.name))
        for choice, unknown_s in itertools.product(OnOwnerLost, (0.0, HELD_BACK_S)):
            found = next_step(alive, view, own_child=own, unknown_s=unknown_s, on_owner_lost=choice)
            later = restart if choice is OnOwnerLost.RESTART else end
            assert found.name == (later if unknown_s else first)
    assert expected == {}


def test_a_child_of_its_own_never_begins_elsewhere_while_its_owner_may_live() -> None:
    """Not before the time is over, and not while a store says that the owner lives."""
    for view, choice in itertools.product(StoreView, OnOwnerLost):
        found = next_step(
            OwnerVerdict.UNKNOWN, view, own_child=True, unknown_s=29.9, on_owner_lost=choice
        )
        assert found is (HomeStep.CLAIM if view is StoreView.LAPSED else HomeStep.WAIT)


KNOWN = st.builds(
    KnownPeer,
    st.integers(0, 9).map(lambda last: f"10.0.0.{last}:8001"),
    st.floats(0, 100),
    st.none() | st.floats(0, 30),
)


@given(IDS, st.lists(KNOWN, max_size=8, unique_by=lambda each: each.address), st.integers(0, 9))
def test_settled_peers_adopt_first_and_the_dead_address_only_if_it_is_alone(
    session: str, peers: list[KnownPeer], last: int
) -> None:
    """Those that are there, for 10 s or more, then the others, each in rendezvous order."""
    dead = f"10.0.0.{last}:8001"
    found = adopters(session, peers, dead)
    may = {
        each.address
        for each in peers
        if each.seen_s >= 10 and each.absent_s is None and each.address != dead
    }
    present = {each.address for each in peers if each.absent_s is None}
    new = present - may - {dead}
    in_order = [*rendezvous_order(session, may), *rendezvous_order(session, new)]
    assert found == ([dead] if present == {dead} else in_order)
    assert set(adopters(session, peers, None)) == present


@given(IDS, ADDRESSES)
def test_of_several_adopters_one_goes_on(session: str, addresses: list[str]) -> None:
    """Each pair agrees on which of them gives way, whichever asks."""
    assert not any(
        yields(session, one, other, PeerAnswer.HAS_NOT)
        or yields(session, one, other, PeerAnswer.SILENT)
        or not yields(session, one, other, PeerAnswer.HAS)
        for one, other in itertools.permutations(addresses, 2)
    )
    stay = [
        one
        for one in addresses
        if not any(
            yields(session, one, other, PeerAnswer.ADOPTING) for other in addresses if other != one
        )
    ]
    assert len(stay) == min(1, len(addresses))


def test_an_id_is_revivable_for_a_day() -> None:
    """A clock that is a little behind makes no id invalid."""
    now = 1_900_000_000.0
    assert is_revivable(now - REVIVABLE_S, now)
    assert is_revivable(now + SKEW_S, now)
    assert not is_revivable(now - REVIVABLE_S - 1, now)
    assert not is_revivable(now + SKEW_S + 1, now)


def test_a_replica_is_isolated_without_store_and_peers() -> None:
    """One way is enough, and a replica that is alone by itself is not cut off."""
    assert is_isolated(StoreView.AWAY, 2, 0)
    assert not is_isolated(StoreView.AWAY, 2, 1)
    assert not is_isolated(StoreView.AWAY, 0, 0)
    assert not is_isolated(StoreView.BEATS, 2, 0)
    assert not is_isolated(StoreView.LAPSED, 2, 0)
    assert not is_isolated(StoreView.NONE, 2, 0)


# The view.


def test_a_peer_settles_and_is_forgotten() -> None:
    """One answer that lacks it does not make it unknown, nor new again."""
    view = PeerView("me", 0.0)
    view.resolved(["a", "b"], 1.0)
    assert view.absent_s("a", 1.0) is None
    view.resolved(["b"], 9.0)
    assert view.absent_s("a", 12.0) == 11.0
    (a,) = [each for each in view.peers(12.0) if each.address == "a"]
    assert not a.settled
    view.resolved(["a", "b"], 13.0)
    assert [each for each in view.peers(13.0) if each.settled] == [
        KnownPeer("me", 13.0),
        KnownPeer("a", 12.0),
        KnownPeer("b", 12.0),
    ]
    view.resolved(["b"], 14.0)
    view.resolved(["b"], 13.0 + FORGOTTEN_AFTER_S)
    assert "a" in {each.address for each in view.peers(33.0)}
    view.resolved(["b"], 13.1 + FORGOTTEN_AFTER_S)
    assert "a" not in {each.address for each in view.peers(33.1)}
    assert view.absent_s("a", 33.1) == 33.1 > FORGOTTEN_AFTER_S
    assert view.absent_s("never seen", 33.1) == 33.1


def test_a_peer_that_asks_is_known() -> None:
    """But it does not adopt before it has been known for long enough."""
    view = PeerView("me", 0.0)
    view.met("new", 5.0)
    (_, new) = view.peers(5.0 + SETTLED_AFTER_S - 0.1)
    assert new.absent_s is None
    assert not new.settled
    assert view.peers(5.0 + SETTLED_AFTER_S)[1].settled


# The states.


HOME_PAIRS = {(row[0], row[1]): row[2] for row in rows(states, "state")}


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(HomeState, HomeEvent)), ids=lambda each: each.name
)
def test_every_pair_of_a_home(state: HomeState, event: HomeEvent) -> None:
    """It goes where the table that people read says, and all else is a bug."""
    expected = HOME_PAIRS.get((state.name, event.name))
    if expected is None:
        with pytest.raises(KeyError):
            step(HOME, state, event)
    else:
        assert step(HOME, state, event) is HomeState[expected]


def test_the_way_of_a_home() -> None:
    """It leaves only from HERE, comes back only if refused, ends from everywhere and for good."""
    assert len(HOME_PAIRS) == len(HOME)
    leads_to = collections.defaultdict(set)
    for (before, event), after in HOME.items():
        leads_to[after].add((before, event))
    assert leads_to[HomeState.LEAVING] == {(HomeState.HERE, HomeEvent.LEAVE)}
    assert leads_to[HomeState.MOVED] == {(HomeState.LEAVING, HomeEvent.ACCEPTED)}
    assert leads_to[HomeState.HERE] == {
        (HomeState.OPENING, HomeEvent.OPENED),
        (HomeState.LEAVING, HomeEvent.REFUSED),
    }
    for state in HomeState:
        assert HOME[state, HomeEvent.END] is HomeState.GONE
    arrivals = re.findall(r"^\| (\w+) \| (\w+) \|$", states.__doc__ or "", re.M)
    assert dict(arrivals[1:]) == {state.name: then.name for state, then in ARRIVAL.items()}


# What travels.


@given(
    st.booleans(),
    st.none() | st.sampled_from(LOG_LEVELS),
    st.lists(st.text(max_size=30), max_size=5).map(tuple),
)
def test_what_a_session_asked_for_travels_whole(
    initialized: bool, level: str | None, subscriptions: tuple[str, ...]
) -> None:
    """What was written is read; a member of a later release changes nothing."""
    record = SessionRecord(initialized, level, subscriptions)
    data = write_record(record)
    assert read_record(data) == record
    assert read_record(with_members(data, {"later": b'{"a":[1]}'})) == record


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"level":"loud"}', b'{"level":5}', b'{"subscriptions":"a"}', b"\xff{}"]
)
def test_what_is_no_record_counts_as_none(data: bytes) -> None:
    """The session is then revived without it."""
    assert read_record(data) is None


# Many replicas.


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_no_session_has_two_homes(seed: int) -> None:
    """Over rollouts, scaling, crashes and stale names; once it is calm each has one."""
    run = Simulation(seed, asked=None)
    run.run(90.0, calm_s=45.0)
    assert run.adoptions > 5
    assert run.doubles == 0
    assert {run.living_homes(session) for session in run.owners} == {1}


@pytest.mark.slow
def test_asking_only_three_gives_some_sessions_two_homes() -> None:
    """The simulation finds what asking all prevents."""
    found = 0
    for seed in range(10):
        run = Simulation(seed, asked=3)
        run.run(90.0)
        found += run.doubles > 0
    assert found > 2, f"{found} of 10 runs"
