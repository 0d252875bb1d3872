"""The ledger of bytes: what is kept for clients, counted as it comes and goes.

Event streams and request bodies in arrival charge it. It only counts; the bridge reads it when it
is pressed and decides by `rules.access.shares` who gives way.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import Protocol

from mcpbridge.rules.access.shares import REFUSE_AT, SHED_AT, Pressure, pressure


class Holder(Protocol):
    """What has bytes in the ledger and can be ended."""

    @property
    def held(self) -> int:
        """Bytes kept for it."""

    def cut(self) -> None:
        """End it and let its bytes go."""


class Budget:
    """Bytes kept in the whole process, and how many may be; owned by the bridge."""

    def __init__(self, limit: int | None = None) -> None:
        """Begin with nothing kept.

        Args:
            limit: How many bytes may be kept; None: any number.
        """
        self.limit = limit
        self.held = 0
        """Bytes kept now."""
        self.full = False
        """New work is refused."""
        self._alarm_at = sys.maxsize if limit is None else int(limit * SHED_AT)
        self._refuse_at = sys.maxsize if limit is None else int(limit * REFUSE_AT)
        self._holders: dict[Holder, None] = {}
        self._pressed = asyncio.Event()

    @property
    def pressure(self) -> Pressure:
        """What has to be done now."""
        return Pressure.NONE if self.limit is None else pressure(self.held, self.limit)

    @property
    def excess(self) -> int:
        """Bytes that have to go before new work is taken; 0 or less if it is."""
        return self.held - self._refuse_at

    @property
    def holders(self) -> Iterable[Holder]:
        """Holders that no session knows: connections with a request in arrival."""
        return list(self._holders)

    def charge(self, change: int) -> None:
        """Count bytes that are kept from now on, or are not any more."""
        self.held += change
        # Most of the time this is all: an addition and two comparisons.
        if self.full or self.held > self._alarm_at:
            self.full = self.held > self._refuse_at
            self._pressed.set()

    def enter(self, holder: Holder) -> None:
        """Let a holder be found when one of them has to give way."""
        self._holders[holder] = None

    def leave(self, holder: Holder) -> None:
        """Forget a holder that keeps nothing any more."""
        self._holders.pop(holder, None)

    async def pressed(self) -> None:
        """Wait until more is kept than may be without a look at it."""
        await self._pressed.wait()
        self._pressed.clear()
