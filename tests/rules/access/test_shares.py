"""Who gives way when memory is short."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.rules.access.shares import (
    LEAST_CUT_BYTES,
    Account,
    Pressure,
    heaviest,
    pressure,
    ranked,
    reserved,
    within_share,
)

KIB, MIB = 1 << 10, 1 << 20
SIZES = st.dictionaries(st.integers(), st.integers(0, 1000 * KIB), max_size=20)


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(1, 1000))
def test_more_bytes_never_ask_for_less(held: int, more: int, limit: int) -> None:
    """The steps come in their order, and beyond the limit is the last."""
    assert pressure(held, limit) <= pressure(held + more, limit)
    assert (pressure(held, limit) is Pressure.CUT) == (held > limit)


def test_each_step_has_its_part_of_the_limit() -> None:
    """Shed above three quarters, refuse above seven eighths, cut above all."""
    steps = [pressure(held, 800) for held in (600, 601, 700, 701, 800, 801)]
    assert steps == [
        Pressure.NONE,
        Pressure.SHED,
        Pressure.SHED,
        Pressure.REFUSE,
        Pressure.REFUSE,
        Pressure.CUT,
    ]


@given(SIZES, st.integers(-10, 5000 * KIB))
def test_the_heaviest_give_way_and_no_more_of_them_than_needed(
    sizes: dict[int, int], excess: int
) -> None:
    """No holder is ended while a heavier one of its kind stays, nor once enough is freed."""
    ended = heaviest([sizes], excess)
    assert len(set(ended)) == len(ended)
    stay = [size for holder, size in sizes.items() if holder not in ended]
    assert all(sizes[each] >= max(stay, default=0) for each in ended)
    freed = sum(sizes[each] for each in ended)
    if ended:
        assert freed - sizes[ended[-1]] < excess
    if excess > 0 and max(sizes.values(), default=0) >= LEAST_CUT_BYTES:
        assert ended, "a client can give way"


def test_many_small_holders_of_one_kind_give_way_before_a_larger_one_of_another() -> None:
    """Else 200 requests in arrival would end the session of a client that does nothing wrong."""
    connections = {f"connection {number}": 4 * MIB for number in range(200)}
    ended = heaviest([connections, {"session": 40 * MIB}, {}], 100 * MIB)
    assert len(ended) == 25
    assert "session" not in ended


def test_a_light_holder_stays_whatever_is_missing() -> None:
    """Heavy ones that have been ended may take a moment to let their bytes go."""
    sessions = {"heavy": 9 * MIB, "light": MIB}
    assert heaviest([sessions], 100 * MIB) == ["heavy"]
    assert heaviest([sessions, {"child": 8 * MIB}], 100 * MIB) == ["heavy", "child"]
    assert heaviest([{"a": 9 * MIB, "b": 5 * MIB}, {"child": 3 * MIB}], 100 * MIB) == ["a"]
    assert heaviest([{"idle": 16 * KIB}, {}], MIB) == []
    assert heaviest([{"a": 0}, {}], 5) == [], "nothing is held"


def test_an_account_counts_in_those_above_it_and_ends_with_its_holder() -> None:
    """What was not let go by then is let go at that moment."""
    whole = Account()
    tenant = Account(whole)
    session, other = Account(tenant), Account(tenant)
    session.charge(5)
    other.charge(2)
    assert (session.held, other.held, tenant.held, whole.held) == (5, 2, 7, 7)
    session.charge(-1)
    del session
    gc.collect()
    assert (tenant.held, whole.held) == (2, 2)


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ({}, []),
        ({"a": 1}, ["a"]),
        ({"a": 0}, []),
        ({"me": 3}, ["me"]),
        ({"a": 3, "me": 3}, ["me"]),
        ({"a": 2, "b": 9, "me": 1, "c": 1}, ["b", "a", "me"]),
        ({"a": 2, "b": 2}, ["a", "b"]),
    ],
)
def test_a_client_takes_no_place_of_one_that_has_as_few(
    counts: dict[str, int], wanted: list[str]
) -> None:
    """The heaviest first, the newcomer itself last; the lighter ones never."""
    assert ranked(counts, "me") == wanted


def test_the_last_places_are_for_clients_with_less_than_their_share() -> None:
    """A lone client leaves half of all to the one that may come; the more come, the less each."""
    assert [reserved(most) for most in (1, 15, 16, 1024)] == [0, 0, 1, 64]
    assert within_share({}, "a", 8)
    assert [within_share({"a": held}, "a", 8) for held in (3, 4)] == [True, False]
    assert [within_share({"a": 7, "b": held}, "b", 8) for held in (0, 1, 2)] == [True, True, False]
    assert not within_share({"a": 7, "b": 1}, "a", 8)
    assert within_share({"a": 3, "gone": 0}, "a", 8), "who has none is not one to divide with"


@given(st.dictionaries(st.integers(0, 5), st.integers(0, 20)), st.integers(0, 5))
def test_clients_within_their_shares_never_have_all_places_together(
    counts: dict[int, int], newcomer: int
) -> None:
    """So the one that comes next has one too, if there are enough for that."""
    most = 40
    if all(within_share({**counts, each: counts[each] - 1}, each, most) for each in counts):
        assert sum(counts.values()) < most or not counts
        assert within_share(counts, newcomer, most) or counts.get(newcomer, 0) > 0
