"""Keeps what is kept within `--max-memory`.

| held, of the limit | then |
|---|---|
| over 75 % | lets go what is kept only in case that a client asks for it again |
| over 87.5 % | new work is refused: the parts of the bridge look at `Budget.full` |
| over 87.5 % again and again for a second, or over 100 % | ends the heaviest, down to 75 % |

A large request is refused before a small one, and its bytes are let go again at that moment: so it
counts that the budget was full, not that it is full at each look.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

import anyio
from anyio.lowlevel import checkpoint

from mcpbridge.bridge.budget import Budget, Holder
from mcpbridge.rules.access.shares import Pressure, heaviest
from mcpbridge.telemetry.metrics import Meters

log = logging.getLogger("mcpbridge.bridge")

_AT_ONCE = 100
"""Clients whose streams are shed in one turn of the loop, so that calls go on between the turns."""
_FULL_S = 1.0
"""How long new work is refused for want of memory before the holder of most gives way."""
_SETTLE_S = 0.25
"""Seconds until others are ended: those that were let their bytes go when their tasks are over."""
_EVERY_S = 0.05
"""Seconds between two looks, each of which costs time for every session."""

Shed = Callable[[], int]
"""Lets go what its client has had or may never ask for; returns how many bytes that were."""


class MemoryRelief:
    """A task that sheds, and then ends the heaviest, while the budget is pressed."""

    def __init__(
        self,
        budget: Budget,
        meters: Meters,
        sheddable: Callable[[], Iterable[Shed]],
        groups: Callable[[], Iterable[list[Holder]]],
    ) -> None:
        """Make a task that has not begun; see `run`.

        Args:
            budget: The ledger.
            meters: Count what is shed and who is ended.
            sheddable: Returns what to call to shed.
            groups: Returns all holders, by kind; see `heaviest`.
        """
        self._budget = budget
        self._meters = meters
        self._sheddable = sheddable
        self._groups = groups

    async def run(self) -> None:
        """Relieve the budget whenever it is pressed, until cancelled."""
        budget, began, last, next_cut = self._budget, -math.inf, -math.inf, -math.inf
        while True:
            await budget.pressed()
            await self._shed()
            now = anyio.current_time()
            lasts = False
            if budget.was_full():
                # Full again after a second without: that is another time, not a long one.
                if now - last > _FULL_S:
                    began = now
                last = now
                lasts = now - began > _FULL_S
            if (lasts or budget.pressure is Pressure.CUT) and now >= next_cut:
                self._cut()
                next_cut = now + _SETTLE_S
            await anyio.sleep(_EVERY_S)
            if budget.full:
                # Look again, even if no byte has come or gone in between.
                budget.charge(0)

    async def _shed(self) -> None:
        freed = 0
        for number, shed in enumerate(self._sheddable(), 1):
            freed += shed()
            if number % _AT_ONCE == 0:
                await checkpoint()
        if freed:
            self._meters.tally("memory_shed_bytes", (), freed)

    def _cut(self) -> None:
        # Read before the first one is ended: what it lets go must not change who the next one is.
        groups = [{holder: holder.held for holder in group} for group in self._groups()]
        for holder in heaviest(groups, self._budget.excess):
            extra = {"account": holder.kind, "bytes": holder.held, "held": self._budget.held}
            log.warning("memory.client_cut", extra=extra)
            self._meters.tally("memory_cuts", holder.kind)
            holder.cut()
