"""The sessions of a replica that ends: those that it offers to others, and those that have moved.

`rules.homes.states` has the states, and what becomes of requests that arrive. A session is HERE
unless it is named here, and GONE once the bridge does not have it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from mcpbridge.replicas.session_id import Replica
from mcpbridge.rules.faults import Unavailable, draining
from mcpbridge.rules.homes.states import ARRIVAL, HELD_S, HOME, Arrival, HomeEvent, HomeState

_KEPT = (HomeState.LEAVING, HomeState.MOVED)


class LeavingSessions:
    """The states of sessions that are LEAVING or MOVED."""

    def __init__(self) -> None:
        self._states: dict[str, HomeState] = {}
        self._answered: dict[str, asyncio.Event] = {}
        """Set when a session is not LEAVING any more."""
        self._homes: dict[str, Replica] = {}
        self._held: Collection[str] = ()

    def arrival(self, session_id: str) -> Arrival:
        """Return what becomes of a request for a session."""
        return ARRIVAL[self._states.get(session_id, HomeState.HERE)]

    def moved_to(self, session_id: str) -> Replica | None:
        """Return the replica that has taken a session; None if none has."""
        return self._homes.get(session_id)

    @property
    def moved(self) -> int:
        """Number of sessions that other replicas have taken."""
        return len(self._homes)

    def hold(self, session_ids: Collection[str]) -> None:
        """Keep these sessions, and no others, although this replica ends."""
        self._held = session_ids

    def holds(self, session_id: str) -> bool:
        """Return whether a session is kept although this replica ends."""
        return session_id in self._held

    def begin(self, session_id: str) -> None:
        """Hold what arrives for a session: it is offered to another replica."""
        self._answered[session_id] = asyncio.Event()
        self._advance(session_id, HomeEvent.LEAVE)

    def accepted(self, session_id: str, home: Replica) -> None:
        """Lead what arrives to the replica that has taken the session."""
        self._homes[session_id] = home
        self._advance(session_id, HomeEvent.ACCEPTED)

    def follow(self, session_id: str, home: Replica) -> None:
        """Take note of the present home of a session, if it has left this replica."""
        if session_id in self._homes:
            self._homes[session_id] = home

    def refused(self, session_id: str) -> None:
        """Serve the session here again: no replica takes it."""
        self._advance(session_id, HomeEvent.REFUSED)

    def ended(self, session_id: str) -> None:
        """Forget a session that has ended."""
        self._homes.pop(session_id, None)
        if session_id in self._states:
            self._advance(session_id, HomeEvent.END)

    async def until_answered(self, session_id: str) -> None:
        """Wait until a session that is LEAVING has moved or stays.

        Raises:
            Unavailable: That takes longer than `HELD_S`.
        """
        answered = self._answered.get(session_id)
        if answered is None:
            return
        try:
            async with asyncio.timeout(HELD_S):
                await answered.wait()
        except TimeoutError as error:
            raise Unavailable(draining()) from error

    def _advance(self, session_id: str, event: HomeEvent) -> None:
        state = HOME[self._states.pop(session_id, HomeState.HERE), event]
        if state in _KEPT:
            self._states[session_id] = state
        if state is not HomeState.LEAVING and session_id in self._answered:
            self._answered.pop(session_id).set()
