"""Tells homes that could not be reached that their sessions are served elsewhere now.

A home that may live keeps its copy of a session until it is told. So the new home tells it, each
second, until it has answered that it does not have the session, or is certainly gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio

from mcpbridge.rules.access.principals import Principal

EVERY_S = 1.0
_AT_ONCE = 32
"""Most orders to one home at once."""

Tell = Callable[[str, str, Principal], Awaitable[bool]]
"""Tells the home at an address that a session of a client is elsewhere; returns whether it is not
there, now or any more."""


class YieldOrders:
    """The orders of one replica that have not been carried out."""

    def __init__(self, tell: Tell, still: Callable[[str, str], bool]) -> None:
        """Begin with none; `run` tells.

        Args:
            tell: Tells a home.
            still: Returns whether a session is still served here while the home at an address may
                still live.
        """
        self._tell = tell
        self._still = still
        self._orders: dict[str, tuple[str, Principal]] = {}
        self._wake = anyio.Event()

    def add(self, session_id: str, address: str, principal: Principal) -> None:
        """Tell the home at an address to end its copy of a client's session."""
        self._orders[session_id] = address, principal
        self._wake.set()

    async def run(self) -> None:
        """Tell homes until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            while self._orders:
                await self.tell_all()
                await asyncio.sleep(EVERY_S)

    async def tell_all(self) -> None:
        """Tell each home once."""
        homes: dict[str, list[str]] = {}
        for session_id, (address, _) in list(self._orders.items()):
            if self._still(session_id, address):
                homes.setdefault(address, []).append(session_id)
            else:
                del self._orders[session_id]
        await asyncio.gather(*map(self._tell_one, homes.values()))

    async def _tell_one(self, session_ids: list[str]) -> None:
        # One at first: a home that cannot be reached takes its time with each.
        if await self._told(session_ids[0]):
            await asyncio.gather(*map(self._told, session_ids[1:_AT_ONCE]))

    async def _told(self, session_id: str) -> bool:
        address, principal = self._orders[session_id]
        done = await self._tell(address, session_id, principal)
        if done and self._orders.get(session_id) == (address, principal):
            del self._orders[session_id]
        return done
