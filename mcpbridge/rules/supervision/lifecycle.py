"""The states of a session and of the process's end, one table each.

A session is OPENING while its `initialize` is with the child, OPEN from the answer on, and CLOSED
for good when it is deleted, expires, or its opening fails. It does not end with its child: the
next request of an OPEN session is served by a new one.

The process SERVES until the first signal. In the LAME_DUCK phase everything is still served while
load balancers take notice; DRAINING refuses new sessions and lets calls in flight finish; at the
CUTOFF whatever is left gets its one error, and then the process is ENDED. A second signal goes to
the cutoff from wherever it is.

| state | event | next |
|---|---|---|
| OPENING | OPENED | OPEN |
| OPENING | CLOSE | CLOSED |
| OPEN | CLOSE | CLOSED |
| CLOSED | CLOSE | CLOSED |

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
    """Where a session is in its life."""

    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"


class SessionEvent(enum.Enum):
    """What happens to a session."""

    OPENED = "opened"
    CLOSE = "close"


SESSION: dict[tuple[SessionState, SessionEvent], SessionState] = {
    (SessionState.OPENING, SessionEvent.OPENED): SessionState.OPEN,
    (SessionState.OPENING, SessionEvent.CLOSE): SessionState.CLOSED,
    (SessionState.OPEN, SessionEvent.CLOSE): SessionState.CLOSED,
    (SessionState.CLOSED, SessionEvent.CLOSE): SessionState.CLOSED,
}


class DrainState(enum.Enum):
    """Where the process is on its way to the end."""

    SERVING = "serving"
    LAME_DUCK = "lame_duck"
    DRAINING = "draining"
    CUTOFF = "cutoff"
    ENDED = "ended"


class DrainEvent(enum.Enum):
    """What moves the process on."""

    SIGNAL = "signal"
    LAME_DUCK_OVER = "lame_duck_over"
    IDLE = "idle"
    """No call is in flight any more."""
    DEADLINE = "deadline"
    STOPPED = "stopped"
    """Streams are closed and children are gone."""


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
    """The next state; a pair that the table does not have is a bug and raises KeyError."""
    return table[state, event]
