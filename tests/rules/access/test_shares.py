"""Who gives way when memory is short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.rules.access.shares import Pressure, heaviest, pressure, ranked

SIZES = st.dictionaries(st.integers(), st.integers(0, 1000), max_size=20)


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


@given(SIZES, st.integers(-10, 5000))
def test_the_heaviest_give_way_and_no_more_of_them_than_needed(
    sizes: dict[int, int], excess: int
) -> None:
    """Nobody is ended while a heavier one stays, nor once enough is freed."""
    ended = heaviest(sizes, excess)
    assert len(set(ended)) == len(ended)
    stay = [size for holder, size in sizes.items() if holder not in ended]
    assert all(sizes[each] >= max(stay, default=0) and sizes[each] for each in ended)
    freed = sum(sizes[each] for each in ended)
    assert freed >= min(excess, sum(sizes.values()))
    if ended:
        assert freed - sizes[ended[-1]] < excess


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
