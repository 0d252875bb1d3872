"""The life of a session on one replica, its home, and what becomes of requests that arrive.

A home is OPENING while its child is introduced, then HERE. At the end of its pod the session is
LEAVING: a peer was asked to take it, and requests that arrive are held until the peer has answered,
since in either copy they could miss the other. MOVED names the peer that has it, and what arrives
is forwarded there. If the peer refuses, it is HERE again. GONE is a session that ended; its id is
kept for a while as a tombstone, so that no replica revives it.

A session that ends while it is LEAVING is GONE at once: an acceptance that comes later changes
nothing, and the peer is told to end its copy.

| state | event | next |
|---|---|---|
| OPENING | OPENED | HERE |
| OPENING | END | GONE |
| HERE | LEAVE | LEAVING |
| HERE | END | GONE |
| LEAVING | ACCEPTED | MOVED |
| LEAVING | REFUSED | HERE |
| LEAVING | END | GONE |
| MOVED | END | GONE |
| GONE | OPENED | GONE |
| GONE | ACCEPTED | GONE |
| GONE | REFUSED | GONE |
| GONE | END | GONE |

| state | arrivals |
|---|---|
| OPENING | QUEUE |
| HERE | SERVE |
| LEAVING | HOLD |
| MOVED | FORWARD |
| GONE | REFUSE |
"""

from __future__ import annotations

import enum

HELD_S = 2.0
"""Most seconds that an arrival waits for a session that is LEAVING; then it gets 503."""
HAND_OVER_AT = 0.5
"""The part of the lame duck after which sessions without a call are handed over."""


class HomeState(enum.Enum):
    """The states of a home."""

    OPENING = "opening"
    HERE = "here"
    LEAVING = "leaving"
    MOVED = "moved"
    GONE = "gone"


class HomeEvent(enum.Enum):
    """The events of a home."""

    OPENED = "opened"
    """Its child is introduced."""
    LEAVE = "leave"
    """A peer is asked to take it."""
    ACCEPTED = "accepted"
    """The peer has it and serves it."""
    REFUSED = "refused"
    """The peer will not have it: it is ending, full or gone."""
    END = "end"
    """Its client deleted it, it expired, or this replica yields it."""


HOME: dict[tuple[HomeState, HomeEvent], HomeState] = {
    (HomeState.OPENING, HomeEvent.OPENED): HomeState.HERE,
    (HomeState.OPENING, HomeEvent.END): HomeState.GONE,
    (HomeState.HERE, HomeEvent.LEAVE): HomeState.LEAVING,
    (HomeState.HERE, HomeEvent.END): HomeState.GONE,
    (HomeState.LEAVING, HomeEvent.ACCEPTED): HomeState.MOVED,
    (HomeState.LEAVING, HomeEvent.REFUSED): HomeState.HERE,
    (HomeState.LEAVING, HomeEvent.END): HomeState.GONE,
    (HomeState.MOVED, HomeEvent.END): HomeState.GONE,
    (HomeState.GONE, HomeEvent.OPENED): HomeState.GONE,
    (HomeState.GONE, HomeEvent.ACCEPTED): HomeState.GONE,
    (HomeState.GONE, HomeEvent.REFUSED): HomeState.GONE,
    (HomeState.GONE, HomeEvent.END): HomeState.GONE,
}


class Arrival(enum.Enum):
    """What a replica does with a request for a session that it has or had."""

    QUEUE = "queue"
    """It waits for the child, as everything does that is sent before a child is ready."""
    SERVE = "serve"
    HOLD = "hold"
    """It waits, at most `HELD_S`, for what the peer answers."""
    FORWARD = "forward"
    """It is forwarded to the peer that has the session."""
    REFUSE = "refuse"
    """404."""


ARRIVAL: dict[HomeState, Arrival] = {
    HomeState.OPENING: Arrival.QUEUE,
    HomeState.HERE: Arrival.SERVE,
    HomeState.LEAVING: Arrival.HOLD,
    HomeState.MOVED: Arrival.FORWARD,
    HomeState.GONE: Arrival.REFUSE,
}
