"""How a session gets its child, and the next one when that is gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.legacy.modern_child import ModernChildAdapter

Acquire = Callable[[], Awaitable[Lease]]
"""Waits for a child that has had its handshake; raises Unavailable if there will be none now."""


class SessionChild(Protocol):
    """The way of one session to its child, chosen when the session opens."""

    @property
    def adapter(self) -> ModernChildAdapter | None:
        """Translates between the session and a child of 2026-07-28; None: the child is legacy."""

    async def acquire(self) -> Lease:
        """Return a child that is ready.

        Raises:
            Unavailable: There is none now.
        """


class SharedChild:
    """The legacy child that all sessions of a tenant share."""

    adapter = None

    def __init__(self, acquire: Acquire) -> None:
        self._acquire = acquire

    async def acquire(self) -> Lease:
        """Return the child: see `SessionChild`."""
        return await self._acquire()


class ModernChild:
    """The child of 2026-07-28 that all share, behind the session's adapter."""

    def __init__(self, acquire: Acquire, adapter: ModernChildAdapter) -> None:
        self._acquire = acquire
        self.adapter = adapter

    async def acquire(self) -> Lease:
        """Return the child: see `SessionChild`."""
        return await self._acquire()


class OwnChild:
    """A legacy child for one session alone."""

    adapter = None

    def __init__(self, acquire: Acquire) -> None:
        self._acquire = acquire
        self._ending: Lease | None = None

    def after(self, before: Lease) -> None:
        """Let the next child start only when this one has ended.

        Two processes of a server with a state of its own, a browser's profile for example, cannot
        serve one session.
        """
        self._ending = before

    async def acquire(self) -> Lease:
        """Return a child: see `SessionChild`."""
        if self._ending is not None:
            await self._ending.child.exited.wait()
            self._ending = None
        return await self._acquire()
