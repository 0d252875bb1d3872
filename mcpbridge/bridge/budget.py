"""The ledger of bytes: everything that is kept, counted as it comes and goes.

| account | holds |
|---|---|
| connection | a request in arrival, and what its client has not read |
| child | what it has not read, and what it wrote and the bridge has not read |
| session | its state, its calls in flight, what waits for its client, streams kept for resumption |
| call, parked call, subscription | the same of a client without a session |
| tenant | the sum of its sessions, calls and subscriptions |
| all | the sum of everything; `Budget` itself |

Small calls are not charged one by one, see `rules.access.shares.LARGE_BYTES`. The ledger only
counts; `bridge.relief` reads it when it is pressed and ends who must give way.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec

from mcpbridge.rules.access.shares import REFUSE_AT, SHED_AT, Account, Pressure, pressure


class Holder(msgspec.Struct, frozen=True):
    """One that has bytes in the ledger and can be ended."""

    kind: str
    """Its account's, a label of the metrics and the log."""
    held: int
    cut: Callable[[], object]
    """Ends it and lets its bytes go."""


class HeldConnection(Protocol):
    """A connection that has bytes in the ledger."""

    @property
    def held(self) -> int:
        """Bytes kept for it."""

    def cut(self) -> None:
        """End it and let its bytes go."""


class Budget(Account):
    """All bytes kept in the process, and how many may be; owned by the bridge."""

    def __init__(self, limit: int | None = None) -> None:
        """Begin with nothing kept.

        Args:
            limit: How many bytes may be kept; None: any number.
        """
        super().__init__()
        self.limit = limit
        self.full = False
        """New work is refused."""
        self._was_full = False
        self.connections = Account(self)
        """What is kept for connections."""
        self.children = Account(self)
        """What is kept for children."""
        self._alarm_at = sys.maxsize if limit is None else int(limit * SHED_AT)
        self._refuse_at = sys.maxsize if limit is None else int(limit * REFUSE_AT)
        self._held_connections: dict[HeldConnection, None] = {}
        self._pressed = asyncio.Event()

    @property
    def pressure(self) -> Pressure:
        """What has to be done now."""
        return Pressure.NONE if self.limit is None else pressure(self.held, self.limit)

    @property
    def excess(self) -> int:
        """Bytes that have to go until nothing has to be done; 0 or less if nothing has."""
        return self.held - self._alarm_at

    @property
    def holders(self) -> list[Holder]:
        """The connections that have bytes in the ledger."""
        return [Holder("connection", each.held, each.cut) for each in self._held_connections]

    def charge(self, change: int) -> None:
        """Count bytes that are kept from now on, or are not any more: see `Account`."""
        self.held += change
        # Most of the time this is all: an addition and two comparisons.
        if self.full or self.held > self._alarm_at:
            self.full = self.held > self._refuse_at
            self._was_full = self._was_full or self.full
            self._pressed.set()

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count bytes that pass from one account to another, until the block ends."""
        self.charge(size)
        try:
            yield
        finally:
            self.charge(-size)

    def enter(self, connection: HeldConnection) -> None:
        """Let a connection be found when one of them has to give way."""
        self._held_connections[connection] = None

    def leave(self, connection: HeldConnection) -> None:
        """Forget a connection that has no bytes any more."""
        self._held_connections.pop(connection, None)

    def was_full(self) -> bool:
        """Return whether new work was refused since the last call, be it for a moment."""
        # Not to False: a budget that stays full is full at the next look too, even if no byte comes
        # or goes until then.
        was_full, self._was_full = self._was_full, self.full
        return was_full

    async def pressed(self) -> None:
        """Wait until more is kept than may be without a look at it."""
        await self._pressed.wait()
        # Before the look that follows: a change during the look is another alarm.
        self._pressed.clear()
