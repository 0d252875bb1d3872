"""The sessions that their clients have deleted: no replica revives one of them.

Each replica keeps what was deleted at any of them, for as long as an id could be revived. It is
told by the one where the client deleted it, by those that end, and by the answers of those it asks
before it adopts a session.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from mcpbridge.replicas.peer_messages import HomeAnswer
from mcpbridge.rules.homes.adoption import REVIVABLE_S, PeerAnswer

MOST_TOMBSTONES = 16_384
"""Deleted sessions that are remembered; the oldest go first."""
_DIGEST_BYTES = 16


def digest_of(session_id: str) -> bytes:
    """Return what is kept of a deleted session's id: it must not serve to use another's."""
    return hashlib.sha256(session_id.encode()).digest()[:_DIGEST_BYTES]


class Tombstones:
    """The deleted sessions that one replica knows of."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin without any; `clock` returns monotonic seconds."""
        self._clock = clock
        self._learned_at: dict[bytes, float] = {}

    def add(self, digests: Iterable[bytes]) -> None:
        """Remember deleted sessions; texts of another length are left out."""
        now = self._clock()
        for digest in digests:
            if len(digest) == _DIGEST_BYTES:
                self._learned_at.setdefault(digest, now)
        while len(self._learned_at) > MOST_TOMBSTONES:
            del self._learned_at[next(iter(self._learned_at))]

    def has(self, session_id: str) -> bool:
        """Return whether a session was deleted by its client."""
        at = self._learned_at.get(digest_of(session_id)) if self._learned_at else None
        return at is not None and self._clock() - at <= REVIVABLE_S

    def learn(self, session_id: str, answers: Iterable[tuple[str, HomeAnswer | None]]) -> bool:
        """Return whether a peer knows that a session was deleted; remember it then."""
        deleted = any(each is not None and each.answer is PeerAnswer.GONE for _, each in answers)
        if deleted:
            self.add((digest_of(session_id),))
        return deleted

    @property
    def digests(self) -> tuple[bytes, ...]:
        """All that are remembered, oldest first."""
        return tuple(self._learned_at)
