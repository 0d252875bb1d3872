"""The adoptions that go on at one replica: an adopter marks a session before it asks its peers.

So of two adopters at once at least one knows of the other. `rules.homes.adoption.yields` says which
of them gives way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from mcpbridge.replicas.peer_messages import HomeAnswer, HomeQuestion
from mcpbridge.replicas.peers import address_of
from mcpbridge.replicas.session_id import Replica
from mcpbridge.rules.homes.adoption import PeerAnswer, yields


class Adoptions:
    """The sessions that are adopted at one replica now."""

    def __init__(self, own: Replica) -> None:
        """Begin with none; `own` is this replica."""
        self._own = own
        self._address = address_of(own)
        self._going_on: dict[str, asyncio.Future[HomeAnswer]] = {}
        self._gives_way: set[str] = set()
        """Sessions that are adopted here while another adopter that comes first has asked."""
        self._decided: set[str] = set()
        """Sessions that are adopted here for certain: an adopter that asks now gives way."""

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._going_on

    def answer(self, question: HomeQuestion) -> HomeAnswer:
        """Answer about a session that is adopted here, or that this replica knows nothing of."""
        session_id = question.session
        if session_id not in self._going_on:
            return HomeAnswer(PeerAnswer.HAS_NOT)
        if question.adopts and session_id in self._decided:
            return HomeAnswer(PeerAnswer.HAS, str(self._own))
        if question.adopts:
            own, asker = self._address, question.asker
            if yields(session_id, own, asker, PeerAnswer.ADOPTING):
                self._gives_way.add(session_id)
        return HomeAnswer(PeerAnswer.ADOPTING)

    def outcome(self, session_id: str) -> asyncio.Future[HomeAnswer] | None:
        """Return what the adoption of a session comes to; None if none goes on.

        The adoption goes on if the one that waits for it leaves.
        """
        going_on = self._going_on.get(session_id)
        return asyncio.shield(going_on) if going_on is not None else None

    async def begin(
        self, session_id: str, adopting: Coroutine[object, object, HomeAnswer]
    ) -> HomeAnswer:
        """Adopt a session in a task, which goes on if the replica that has asked leaves."""
        adoption = asyncio.ensure_future(adopting)
        self._going_on[session_id] = adoption
        adoption.add_done_callback(lambda done: self._over(session_id, done))
        return await asyncio.shield(adoption)

    def give_way(self, session_id: str) -> None:
        """Take note of an adopter that comes first."""
        self._gives_way.add(session_id)

    def gives_way(self, session_id: str) -> bool:
        """Return whether an adopter that comes first is known."""
        return session_id in self._gives_way

    def decide(self, session_id: str) -> None:
        """Adopt a session for certain: an adopter that asks from here on gives way."""
        self._decided.add(session_id)

    def _over(self, session_id: str, done: asyncio.Future[HomeAnswer]) -> None:
        del self._going_on[session_id]
        self._gives_way.discard(session_id)
        self._decided.discard(session_id)
        if not done.cancelled():
            # Marks it as seen: all that waited for it may have left.
            done.exception()
