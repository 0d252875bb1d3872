"""What a replica tells its peers unasked: which sessions were deleted, and which have moved.

They take note of it, and revive none of the deleted ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from mcpbridge.replicas.adoption.host import SessionHost
from mcpbridge.replicas.adoption.known_homes import KnownHomes
from mcpbridge.replicas.peer_messages import EndedSessions, HomeAnswer, MovedSessions
from mcpbridge.replicas.peers import Peers, address_of
from mcpbridge.replicas.session_id import Replica, replica_named
from mcpbridge.replicas.tombstones import MOST_TOMBSTONES, Tombstones, digest_of
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.homes.adoption import PeerAnswer

_TOLD_AT_ONCE = 4096
_MOVED_AT_ONCE = 512

_Item = TypeVar("_Item")


class Notices:
    """The notices of one replica to its peers, and theirs to it."""

    def __init__(
        self,
        peers: Peers,
        host: SessionHost,
        known_homes: KnownHomes,
        tombstones: Tombstones,
    ) -> None:
        """Begin with nothing to tell.

        Args:
            peers: They are told.
            host: Has the sessions of this replica.
            known_homes: Remembers where peers say that sessions are.
            tombstones: Remembers which sessions were deleted.
        """
        self._peers = peers
        self._host = host
        self._known_homes = known_homes
        self._tombstones = tombstones
        self._untold: list[bytes] = []
        """Deleted sessions of which the peers do not know yet."""
        self._telling: asyncio.Task[None] | None = None
        self._ending_copies: set[asyncio.Task[None]] = set()

    def told(self, said: EndedSessions | MovedSessions, principal: Principal) -> HomeAnswer:
        """Take note of what a peer says of sessions that have ended or moved."""
        self._peers.met(said.asker)
        if isinstance(said, MovedSessions):
            for session_id, text in said.homes.items():
                home = replica_named(text)
                if home is not None and home != self._peers.own:
                    self._known_homes.remember(session_id, home)
            return HomeAnswer(PeerAnswer.HAS_NOT)
        self._tombstones.add(said.digests)
        if said.session:
            self._host.end(said.session, principal)
        return HomeAnswer(PeerAnswer.HAS_NOT)

    def deleted(self, session_id: str) -> None:
        """Take note that a client has deleted its session here, and tell all peers."""
        digest = digest_of(session_id)
        self._tombstones.add((digest,))
        self._untold.append(digest)
        del self._untold[:-MOST_TOMBSTONES]
        if self._telling is None:
            self._telling = asyncio.ensure_future(self._tell_untold())

    async def tell_deleted(self) -> None:
        """Tell all peers of every deleted session: they may have begun since it was deleted."""
        await self._tell_digests(self._tombstones.digests)

    async def tell_moved(self, homes: Mapping[str, Replica]) -> None:
        """Tell all peers where sessions are that have left this replica.

        A request that is on its way to a process that ends may be lost with it.
        """
        parts = _parts(list(homes.items()), _MOVED_AT_ONCE)
        own = self._peers.address
        await self._peers.tell_all(
            MovedSessions(own, {key: str(home) for key, home in part}) for part in parts
        )

    def end_copy(self, session_id: str, home: Replica, principal: Principal) -> None:
        """Have a replica end a session that it has taken, since it has ended here."""
        ended = EndedSessions(self._peers.address, (), session_id)
        telling = self._peers.tell(address_of(home), ended, principal)
        task = asyncio.ensure_future(telling)
        self._ending_copies.add(task)
        task.add_done_callback(self._ending_copies.discard)

    async def _tell_untold(self) -> None:
        try:
            # More may be deleted while the peers are told.
            while self._untold:
                digests, self._untold = tuple(self._untold), []
                await self._tell_digests(digests)
        finally:
            self._telling = None

    async def _tell_digests(self, digests: Sequence[bytes]) -> None:
        parts = _parts(digests, _TOLD_AT_ONCE)
        own = self._peers.address
        await self._peers.tell_all(EndedSessions(own, tuple(part)) for part in parts)


def _parts(items: Sequence[_Item], most: int) -> Iterator[Sequence[_Item]]:
    """Yield the items in parts of at most `most`: what a peer port reads is bounded."""
    for start in range(0, len(items), most):
        yield items[start : start + most]
