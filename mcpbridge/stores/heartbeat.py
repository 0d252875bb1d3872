"""A replica's heartbeat in the store, and the claims that it keeps while it lives."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable

import anyio

from mcpbridge.stores.fence import Fence
from mcpbridge.stores.store import Store, StoreAway

log = logging.getLogger("mcpbridge.stores")

BEAT_EVERY_S = 5.0
"""A third of the time for which a heartbeat is kept: two may be lost."""
_AT_ONCE = 100
"""Claims that are renewed by one question."""


class Heartbeat:
    """A writer of the heartbeat of one replica."""

    def __init__(
        self,
        store: Store,
        home: str,
        keep_s: float,
        fence: Fence,
        clock: Callable[[], float],
        lost: Callable[[str], None],
        wait: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        """Make a writer; `run` begins.

        Args:
            store: Takes it.
            home: The replica, as its claims name it.
            keep_s: Seconds for which its claims are kept.
            fence: Takes note of each heartbeat.
            clock: The clock of the fence.
            lost: Called with a session whose claim is another replica's, or gone.
            wait: Waits for some seconds.
        """
        self._store = store
        self._home = home
        self._keep_s = keep_s
        self._fence = fence
        self._clock = clock
        self._lost = lost
        self._wait = wait
        self._claimed: dict[str, None] = {}
        self._renew_at = clock() + keep_s / 3
        self._up: bool | None = None
        """Whether the store took the last heartbeat; None before the first."""

    @property
    def up(self) -> bool:
        """Whether the store took the last heartbeat."""
        return self._up is True

    def claimed(self, session_ids: Iterable[str]) -> None:
        """Renew these claims from now on."""
        self._claimed.update(dict.fromkeys(session_ids))

    def released(self, session_id: str) -> None:
        """Do not renew this claim any more."""
        self._claimed.pop(session_id, None)

    async def run(self) -> None:
        """Write the heartbeat until the caller cancels this.

        A store that is away is logged once, and used as soon as it answers.
        """
        while True:
            await self.beat()
            await self._wait(BEAT_EVERY_S)

    async def beat(self) -> None:
        """Write it once, and renew claims that are due."""
        sent_at = self._clock()
        try:
            await self._store.beat(self._home)
            self._fence.beaten(sent_at)
            self._noticed(None)
            if sent_at >= self._renew_at:
                await self._renew()
                self._renew_at = sent_at + self._keep_s / 3
        except StoreAway as error:
            self._noticed(error)

    async def silence(self) -> None:
        """Take it back at the end, so that others need not wait until it lapses."""
        try:
            await self._store.silence(self._home)
        except StoreAway:
            # It lapses by itself.
            return

    async def _renew(self) -> None:
        waiting = iter(list(self._claimed))
        while batch := list(itertools.islice(waiting, _AT_ONCE)):
            for session_id in await self._store.renew(batch, self._home, self._keep_s):
                self._claimed.pop(session_id, None)
                self._lost(session_id)

    def _noticed(self, error: StoreAway | None) -> None:
        before, self._up = self._up, error is None
        if error is not None and before is not False:
            log.warning("store.away", extra={"problem": error.problem})
        elif error is None and not before:
            log.info("store.available")
