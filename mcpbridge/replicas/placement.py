"""Finds a replica with room for a session, for one that is full or about to end.

Peers are asked two at a time, in an order that chance decides, and the emptier of two is taken: if
every full replica took the emptiest of all, that one would be full the next moment.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable

from mcpbridge.replicas.homes import Homes
from mcpbridge.replicas.peer_messages import HomeQuestion
from mcpbridge.replicas.peers import Ask
from mcpbridge.replicas.session_id import Replica, replica_named
from mcpbridge.rules.access.principals import ANONYMOUS

FULL = 1.0
"""The fill level from which on a replica takes no session of another one's client."""
_AT_ONCE = 2
MOST_ASKED = 8
"""Peers that are asked for one session: if all are full, its client must not wait for each."""
AGAIN_S = 1.0
"""Seconds without a question after none had room: the clients that it refuses all come back."""


class Placement:
    """The choice of a replica for sessions that this one has no room for."""

    def __init__(
        self,
        homes: Homes,
        ask: Ask,
        clock: Callable[[], float],
        shuffle: Callable[[list[str]], None] = random.shuffle,
    ) -> None:
        """Make it.

        Args:
            homes: Knows the other replicas.
            ask: Asks one of them.
            clock: Returns monotonic seconds.
            shuffle: Puts addresses into an order of chance.
        """
        self._homes = homes
        self._ask = ask
        self._clock = clock
        self._shuffle = shuffle
        self._again_at = -math.inf

    async def emptier(self) -> Replica | None:
        """Return a replica that has room; None if none of those that were asked has any."""
        if self._clock() < self._again_at:
            return None
        own = self._homes.address
        present = [each for each in self._homes.peers if each.absent_s is None]
        addresses = [each.address for each in present if each.address != own]
        self._shuffle(addresses)
        for start in range(0, min(len(addresses), MOST_ASKED), _AT_ONCE):
            found = await self._emptier_of(addresses[start : start + _AT_ONCE])
            if found is not None:
                return found
        self._again_at = self._clock() + AGAIN_S
        return None

    async def _emptier_of(self, addresses: list[str]) -> Replica | None:
        question = HomeQuestion("", self._homes.address)
        asked = (self._ask(each, question, ANONYMOUS) for each in addresses)
        answers = [each for each in await asyncio.gather(*asked) if each is not None]
        roomy = [each for each in answers if each.fill < FULL]
        # One of an earlier release tells neither its fill level nor its name.
        found = min(roomy, key=lambda each: each.fill, default=None)
        return replica_named(found.home or "") if found is not None else None
