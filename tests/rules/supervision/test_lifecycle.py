"""The states of session, child, exchange and drain: all pairs, and the tables people read."""

from __future__ import annotations

import enum
import itertools
import re
from typing import Any, TypeVar

import pytest

from mcpbridge.rules.supervision import lifecycle
from mcpbridge.rules.supervision.lifecycle import (
    CHILD,
    DRAIN,
    EXCHANGE,
    SESSION,
    ChildEvent,
    ChildState,
    DrainEvent,
    DrainState,
    ExchangeEvent,
    ExchangeState,
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


CHILD_PAIRS = {
    ("STARTING", "INTRODUCED"): "READY",
    ("STARTING", "RETIRED"): "RETIRING",
    ("STARTING", "LOST"): "GONE",
    ("READY", "INTRODUCED"): "READY",
    ("READY", "RETIRED"): "RETIRING",
    ("READY", "LOST"): "GONE",
    ("RETIRING", "INTRODUCED"): "RETIRING",
    ("RETIRING", "RETIRED"): "RETIRING",
    ("RETIRING", "LOST"): "GONE",
    ("GONE", "INTRODUCED"): "GONE",
    ("GONE", "RETIRED"): "GONE",
    ("GONE", "LOST"): "GONE",
}

EXCHANGE_PAIRS = {
    ("WAITING", "SUBMITTED"): "SENT",
    ("WAITING", "ATTEMPT_OVER"): "WAITING",
    ("WAITING", "ANSWERED"): "ANSWERED",
    ("SENT", "SUBMITTED"): "SENT",
    ("SENT", "ATTEMPT_OVER"): "WAITING",
    ("SENT", "ANSWERED"): "ANSWERED",
    ("ANSWERED", "SUBMITTED"): "ANSWERED",
    ("ANSWERED", "ATTEMPT_OVER"): "ANSWERED",
    ("ANSWERED", "ANSWERED"): "ANSWERED",
}

TABLES: list[tuple[Any, dict[tuple[str, str], str], type[enum.Enum], type[enum.Enum]]] = [
    (SESSION, SESSION_PAIRS, SessionState, SessionEvent),
    (CHILD, CHILD_PAIRS, ChildState, ChildEvent),
    (EXCHANGE, EXCHANGE_PAIRS, ExchangeState, ExchangeEvent),
    (DRAIN, DRAIN_PAIRS, DrainState, DrainEvent),
]


@pytest.mark.parametrize(
    ("table", "pairs", "state", "event"),
    [
        (table, pairs, state, event)
        for table, pairs, states, events in TABLES
        for state, event in itertools.product(states, events)
    ],
    ids=lambda each: str(each) if isinstance(each, enum.Enum) else "",
)
def test_every_pair(
    table: Any, pairs: dict[tuple[str, str], str], state: enum.Enum, event: enum.Enum
) -> None:
    """Each goes where it must on what may happen, and all else is a bug."""
    expected = pairs.get((state.name, event.name))
    if expected is None:
        with pytest.raises(KeyError):
            step(table, state, event)
    else:
        assert step(table, state, event) is type(state)[expected]


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
    assert documented() == [rows(SESSION), rows(CHILD), rows(EXCHANGE), rows(DRAIN)]


def reachable(table: dict[tuple[State, Event], State], start: State) -> set[str]:
    """Where one can get to."""
    found, waiting = {start}, [start]
    while waiting:
        state = waiting.pop()
        new = {after for (before, _), after in table.items() if before is state} - found
        found |= new
        waiting += new
    return {state.name for state in found}


@pytest.mark.parametrize(
    ("table", "first", "last"),
    [
        (SESSION, SessionState.OPENING, SessionState.CLOSED),
        (CHILD, ChildState.STARTING, ChildState.GONE),
        (EXCHANGE, ExchangeState.WAITING, ExchangeState.ANSWERED),
        (DRAIN, DrainState.SERVING, DrainState.ENDED),
    ],
    ids=("session", "child", "exchange", "drain"),
)
def test_every_state_leads_to_the_end(table: Any, first: enum.Enum, last: enum.Enum) -> None:
    """All states can be reached, and the last one from each of them and never left."""
    assert reachable(table, first) == {state.name for state in type(first)}
    for state in type(first):
        assert last.name in reachable(table, state)
    assert reachable(table, last) == {last.name}


@pytest.mark.parametrize(
    "state", [DrainState.LAME_DUCK, DrainState.DRAINING, DrainState.CUTOFF], ids=lambda s: s.name
)
def test_a_second_signal_goes_to_the_cutoff(state: DrainState) -> None:
    """Once the end has begun, a further signal ends all waiting."""
    assert step(DRAIN, state, DrainEvent.SIGNAL) is DrainState.CUTOFF
