"""The states of a session and of the drain: all pairs, and the tables that people read."""

from __future__ import annotations

import enum
import itertools
import re
from typing import TypeVar

import pytest

from mcpbridge.rules.supervision import lifecycle
from mcpbridge.rules.supervision.lifecycle import (
    DRAIN,
    SESSION,
    DrainEvent,
    DrainState,
    SessionEvent,
    SessionState,
    step,
)

State = TypeVar("State", bound=enum.Enum)
Event = TypeVar("Event", bound=enum.Enum)

SESSION_PAIRS = {
    ("OPENING", "OPENED"): "OPEN",
    ("OPENING", "CLOSE"): "CLOSED",
    ("OPEN", "CLOSE"): "CLOSED",
    ("CLOSED", "CLOSE"): "CLOSED",
}

DRAIN_PAIRS = {
    ("SERVING", "SIGNAL"): "LAME_DUCK",
    ("LAME_DUCK", "LAME_DUCK_OVER"): "DRAINING",
    ("LAME_DUCK", "SIGNAL"): "CUTOFF",
    ("DRAINING", "IDLE"): "CUTOFF",
    ("DRAINING", "DEADLINE"): "CUTOFF",
    ("DRAINING", "SIGNAL"): "CUTOFF",
    ("CUTOFF", "SIGNAL"): "CUTOFF",
    ("CUTOFF", "STOPPED"): "ENDED",
}


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(SessionState, SessionEvent)), ids=lambda e: e.name
)
def test_every_pair_of_a_session(state: SessionState, event: SessionEvent) -> None:
    """A session goes where it must on what may happen, and all else is a bug."""
    expected = SESSION_PAIRS.get((state.name, event.name))
    if expected is None:
        with pytest.raises(KeyError):
            step(SESSION, state, event)
    else:
        assert step(SESSION, state, event) is SessionState[expected]


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(DrainState, DrainEvent)), ids=lambda e: e.name
)
def test_every_pair_of_the_drain(state: DrainState, event: DrainEvent) -> None:
    """The process goes where it must on what may happen, and all else is a bug."""
    expected = DRAIN_PAIRS.get((state.name, event.name))
    if expected is None:
        with pytest.raises(KeyError):
            step(DRAIN, state, event)
    else:
        assert step(DRAIN, state, event) is DrainState[expected]


def documented() -> list[list[tuple[str, ...]]]:
    """The rows of the tables in the module's docstring."""
    blocks = re.findall(
        r"^\| state \|.*\n\|[-|]*\|\n((?:\|.*\|\n?)+)", lifecycle.__doc__ or "", re.M
    )
    return [
        [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in block.splitlines()]
        for block in blocks
    ]


def rows(table: dict[tuple[State, Event], State]) -> list[tuple[str, ...]]:
    """A table of the code as rows of names."""
    return [(state.name, event.name, after.name) for (state, event), after in table.items()]


def test_the_tables_in_the_docstring_are_the_tables_of_the_code() -> None:
    """Each table that people read has the same rows as the one that runs, in the same order."""
    assert documented() == [rows(SESSION), rows(DRAIN)]


def reachable(table: dict[tuple[State, Event], State], start: State) -> set[str]:
    """Where one can get to."""
    found, waiting = {start}, [start]
    while waiting:
        state = waiting.pop()
        new = {after for (before, _), after in table.items() if before is state} - found
        found |= new
        waiting += new
    return {state.name for state in found}


def test_every_state_leads_to_the_end() -> None:
    """All states can be reached, and the last one from each of them and never left."""
    assert reachable(SESSION, SessionState.OPENING) == {state.name for state in SessionState}
    assert reachable(DRAIN, DrainState.SERVING) == {state.name for state in DrainState}
    for session_state in SessionState:
        assert "CLOSED" in reachable(SESSION, session_state)
    for drain_state in DrainState:
        assert "ENDED" in reachable(DRAIN, drain_state)
    assert reachable(SESSION, SessionState.CLOSED) == {"CLOSED"}
    assert reachable(DRAIN, DrainState.ENDED) == {"ENDED"}


@pytest.mark.parametrize(
    "state", [DrainState.LAME_DUCK, DrainState.DRAINING, DrainState.CUTOFF], ids=lambda s: s.name
)
def test_a_second_signal_goes_to_the_cutoff(state: DrainState) -> None:
    """Once the end has begun, a further signal ends all waiting."""
    assert step(DRAIN, state, DrainEvent.SIGNAL) is DrainState.CUTOFF
