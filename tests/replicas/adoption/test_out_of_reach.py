"""For how long a replica counts a home as out of reach."""

from __future__ import annotations

import pytest

from mcpbridge.replicas.adoption import out_of_reach
from mcpbridge.replicas.adoption.out_of_reach import HomesOutOfReach
from mcpbridge.replicas.session_id import Replica
from mcpbridge.rules.homes.adoption import HELD_BACK_S
from mcpbridge.rules.homes.owner import OwnerVerdict

HOMES = [Replica(f"10.0.0.{number}", 8001, number) for number in range(3)]


class Silent:
    """Homes that are out of reach, at a time that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.homes = HomesOutOfReach(lambda: self.now)

    def after(self, s: float, home: Replica = HOMES[0]) -> float:
        """How long a home has been out of reach if a client asks for it some seconds later."""
        self.now += s
        return self.homes.seconds(home, OwnerVerdict.UNKNOWN)


def test_the_time_runs_from_the_first_attempt_as_long_as_clients_ask() -> None:
    """After a pause in which the home may have been within reach it begins again."""
    silent = Silent()
    assert not silent.homes
    assert silent.after(0.0) == 0.0
    assert silent.homes
    assert silent.after(HELD_BACK_S) == HELD_BACK_S
    assert silent.after(HELD_BACK_S) == 2 * HELD_BACK_S
    assert silent.after(0.0, HOMES[1]) == 0.0, "each home has its own"
    assert silent.after(HELD_BACK_S + 1) == 0.0


def test_a_home_that_answers_or_is_certainly_lost_is_not_out_of_reach() -> None:
    """The next time begins with nothing."""
    silent = Silent()
    for verdict in (None, OwnerVerdict.DEAD, OwnerVerdict.ALIVE):
        assert (silent.after(0.0), silent.after(5.0)) == (0.0, 5.0)
        if verdict is None:
            silent.homes.answered(HOMES[0])
        else:
            assert silent.homes.seconds(HOMES[0], verdict) == 0.0
        assert not silent.homes
    silent.homes.answered(HOMES[1])


def test_the_number_of_homes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was asked for first is forgotten."""
    monkeypatch.setattr(out_of_reach, "_MOST_HOMES", 2)
    silent = Silent()
    for home in HOMES:
        silent.after(0.0, home)
    assert silent.after(5.0, HOMES[0]) == 0.0
