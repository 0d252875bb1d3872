"""The states of a session, a child, an exchange and the process's end, one table each.

A session is OPENING while its `initialize` is with the child, OPEN after the answer, and CLOSED
when it is deleted, expires, or its opening fails. It does not end with its child: the next request
of an OPEN session is served by a new one.

A child is STARTING until its handshake, READY afterwards, and RETIRING when another one takes its
place: it finishes its calls and gets no further ones. It is GONE when its stdout has ended or it
was given up; calls that it has not answered fail.

An exchange is WAITING while no child works on it, SENT while one does, and ANSWERED when its client
has the final answer, whatever follows. A call of several attempts waits between them.

The process SERVES until the first signal. In the LAME_DUCK phase everything is still served while
load balancers take notice; DRAINING refuses new sessions and lets calls in flight finish; at the
CUTOFF each remaining call gets its one error, and then the process is ENDED. A second signal
leads to the cutoff from any state.

| state | event | next |
|---|---|---|
| OPENING | OPENED | OPEN |
| OPENING | CLOSE | CLOSED |
| OPEN | CLOSE | CLOSED |
| CLOSED | CLOSE | CLOSED |

| state | event | next |
|---|---|---|
| STARTING | INTRODUCED | READY |
| STARTING | RETIRED | RETIRING |
| STARTING | LOST | GONE |
| READY | INTRODUCED | READY |
| READY | RETIRED | RETIRING |
| READY | LOST | GONE |
| RETIRING | INTRODUCED | RETIRING |
| RETIRING | RETIRED | RETIRING |
| RETIRING | LOST | GONE |
| GONE | INTRODUCED | GONE |
| GONE | RETIRED | GONE |
| GONE | LOST | GONE |

| state | event | next |
|---|---|---|
| WAITING | SUBMITTED | SENT |
| WAITING | ATTEMPT_OVER | WAITING |
| WAITING | ANSWERED | ANSWERED |
| SENT | SUBMITTED | SENT |
| SENT | ATTEMPT_OVER | WAITING |
| SENT | ANSWERED | ANSWERED |
| ANSWERED | SUBMITTED | ANSWERED |
| ANSWERED | ATTEMPT_OVER | ANSWERED |
| ANSWERED | ANSWERED | ANSWERED |

| state | event | next |
|---|---|---|
| SERVING | SIGNAL | LAME_DUCK |
| LAME_DUCK | LAME_DUCK_OVER | DRAINING |
| LAME_DUCK | SIGNAL | CUTOFF |
| DRAINING | IDLE | CUTOFF |
| DRAINING | DEADLINE | CUTOFF |
| DRAINING | SIGNAL | CUTOFF |
| CUTOFF | SIGNAL | CUTOFF |
| CUTOFF | STOPPED | ENDED |
"""

from __future__ import annotations

import enum
from typing import TypeVar

State = TypeVar("State")
Event = TypeVar("Event")


class SessionState(enum.Enum):
    """The states of a session."""

    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"


class SessionEvent(enum.Enum):
    """The events of a session."""

    OPENED = "opened"
    CLOSE = "close"


SESSION: dict[tuple[SessionState, SessionEvent], SessionState] = {
    (SessionState.OPENING, SessionEvent.OPENED): SessionState.OPEN,
    (SessionState.OPENING, SessionEvent.CLOSE): SessionState.CLOSED,
    (SessionState.OPEN, SessionEvent.CLOSE): SessionState.CLOSED,
    (SessionState.CLOSED, SessionEvent.CLOSE): SessionState.CLOSED,
}


class ChildState(enum.Enum):
    """The states of a child."""

    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"
    GONE = "gone"


class ChildEvent(enum.Enum):
    """The events of a child."""

    INTRODUCED = "introduced"
    """It has answered its handshake."""
    RETIRED = "retired"
    """Another child takes its place."""
    LOST = "lost"
    """Its stdout has ended, or it was given up."""


CHILD: dict[tuple[ChildState, ChildEvent], ChildState] = {
    (ChildState.STARTING, ChildEvent.INTRODUCED): ChildState.READY,
    (ChildState.STARTING, ChildEvent.RETIRED): ChildState.RETIRING,
    (ChildState.STARTING, ChildEvent.LOST): ChildState.GONE,
    (ChildState.READY, ChildEvent.INTRODUCED): ChildState.READY,
    (ChildState.READY, ChildEvent.RETIRED): ChildState.RETIRING,
    (ChildState.READY, ChildEvent.LOST): ChildState.GONE,
    (ChildState.RETIRING, ChildEvent.INTRODUCED): ChildState.RETIRING,
    (ChildState.RETIRING, ChildEvent.RETIRED): ChildState.RETIRING,
    (ChildState.RETIRING, ChildEvent.LOST): ChildState.GONE,
    (ChildState.GONE, ChildEvent.INTRODUCED): ChildState.GONE,
    (ChildState.GONE, ChildEvent.RETIRED): ChildState.GONE,
    (ChildState.GONE, ChildEvent.LOST): ChildState.GONE,
}


class ExchangeState(enum.Enum):
    """The states of an exchange."""

    WAITING = "waiting"
    SENT = "sent"
    ANSWERED = "answered"


class ExchangeEvent(enum.Enum):
    """The events of an exchange."""

    SUBMITTED = "submitted"
    ATTEMPT_OVER = "attempt_over"
    """The child has answered an attempt, and its client needs another one."""
    ANSWERED = "answered"
    """Answered by the child or the bridge."""


EXCHANGE: dict[tuple[ExchangeState, ExchangeEvent], ExchangeState] = {
    (ExchangeState.WAITING, ExchangeEvent.SUBMITTED): ExchangeState.SENT,
    (ExchangeState.WAITING, ExchangeEvent.ATTEMPT_OVER): ExchangeState.WAITING,
    (ExchangeState.WAITING, ExchangeEvent.ANSWERED): ExchangeState.ANSWERED,
    (ExchangeState.SENT, ExchangeEvent.SUBMITTED): ExchangeState.SENT,
    (ExchangeState.SENT, ExchangeEvent.ATTEMPT_OVER): ExchangeState.WAITING,
    (ExchangeState.SENT, ExchangeEvent.ANSWERED): ExchangeState.ANSWERED,
    (ExchangeState.ANSWERED, ExchangeEvent.SUBMITTED): ExchangeState.ANSWERED,
    (ExchangeState.ANSWERED, ExchangeEvent.ATTEMPT_OVER): ExchangeState.ANSWERED,
    (ExchangeState.ANSWERED, ExchangeEvent.ANSWERED): ExchangeState.ANSWERED,
}


class DrainState(enum.Enum):
    """The states of the process on its way to the end."""

    SERVING = "serving"
    LAME_DUCK = "lame_duck"
    DRAINING = "draining"
    CUTOFF = "cutoff"
    ENDED = "ended"


class DrainEvent(enum.Enum):
    """The events that move the process on."""

    SIGNAL = "told_to_end"
    """By a signal, or because the server was given up."""
    LAME_DUCK_OVER = "lame_duck_over"
    IDLE = "idle"
    """No call is in flight."""
    DEADLINE = "deadline"
    STOPPED = "stopped"
    """Streams are closed and children have ended."""


DRAIN: dict[tuple[DrainState, DrainEvent], DrainState] = {
    (DrainState.SERVING, DrainEvent.SIGNAL): DrainState.LAME_DUCK,
    (DrainState.LAME_DUCK, DrainEvent.LAME_DUCK_OVER): DrainState.DRAINING,
    (DrainState.LAME_DUCK, DrainEvent.SIGNAL): DrainState.CUTOFF,
    (DrainState.DRAINING, DrainEvent.IDLE): DrainState.CUTOFF,
    (DrainState.DRAINING, DrainEvent.DEADLINE): DrainState.CUTOFF,
    (DrainState.DRAINING, DrainEvent.SIGNAL): DrainState.CUTOFF,
    (DrainState.CUTOFF, DrainEvent.SIGNAL): DrainState.CUTOFF,
    (DrainState.CUTOFF, DrainEvent.STOPPED): DrainState.ENDED,
}


def step(table: dict[tuple[State, Event], State], state: State, event: Event) -> State:
    """Return the next state; raise KeyError for a pair that the table lacks, which is a bug."""
    return table[state, event]
