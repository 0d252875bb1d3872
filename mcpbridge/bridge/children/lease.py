"""A lease: the right to send to one child, until it is given back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from mcpbridge.bridge.children.mux import Mux
from mcpbridge.process.child import Child
from mcpbridge.rules.mcp.initialize import ServerProfile


class StartTurn:
    """The right to start a process while others wait; ends once."""

    def __init__(self, starts: anyio.Semaphore) -> None:
        self._starts: anyio.Semaphore | None = starts

    def end(self) -> None:
        """Let the next one start."""
        starts, self._starts = self._starts, None
        if starts is not None:
            starts.release()


class Lease:
    """The right to use a child until it is released."""

    def __init__(
        self, child: Child, mux: Mux, *, counted: bool = True, turn: StartTurn | None = None
    ) -> None:
        """Make a lease.

        Args:
            child: Runs.
            mux: On its pipe.
            counted: It takes one of the places that are not kept for what serves all sessions.
            turn: Ends with the child's handshake, so that the next process may start.
        """
        self.child = child
        self.mux = mux
        self.counted = counted
        self._turn = turn
        self.profile: ServerProfile | None = None
        """What the child said in the handshake; None while it has had none."""
        self.log_level: str | None = None
        """The level that calls without a session have set on it."""
        self.restored_level: str | None = None
        """The level that was set on it when it took over from another child."""
        self.restored_uris: frozenset[str] = frozenset()
        """The subscriptions that were made on it then."""
        self.recycle_due = False
        """Another child takes its place as soon as no client notices."""

    def __repr__(self) -> str:
        due = " recycle_due" if self.recycle_due else ""
        server = self.profile.name[:64] if self.profile is not None else None
        return f"<Lease server={server!r}{due} {self.child} {self.mux}>"

    def introduced_as(self, profile: ServerProfile) -> None:
        """Record what the child said in its handshake."""
        self.profile = profile
        self.mux.introduced()

    def start_over(self) -> None:
        """Let the next process start: the handshake has ended, with whatever answer."""
        if self._turn is not None:
            self._turn.end()

    def set_log_level(self, level: str) -> None:
        """Record the level that calls without a session set on it."""
        self.log_level = level

    def restore(self, level: str | None, uris: frozenset[str]) -> None:
        """Record what a child that took over has been told in the name of its sessions."""
        self.restored_level, self.restored_uris = level, uris

    def recycle(self) -> None:
        """Let another child take its place as soon as no client notices."""
        self.recycle_due = True


Wanted = Callable[[], bool]
"""Whether a place for a child is still of use to the client that waits for one."""


class ChildSource(Protocol):
    """Where children come from: the pool itself, or one principal's share of it."""

    async def shared(self) -> Lease:
        """A fresh child that many sessions will use; see `ChildPool.shared`."""

    async def own(self, *, wanted: Wanted | None = None) -> Lease:
        """A fresh child for one session alone; see `ChildPool.own`."""

    def idle(self) -> None:
        """A child serves no client at present: see `ChildPool.idle`."""

    def fell_back(self) -> None:
        """The shared child serves instead of one for a single client: see `ChildPool.fell_back`."""

    def release(self, lease: Lease, grace_s: float = 5.0) -> None:
        """The child is not used any more: it ends."""

    async def end(self, lease: Lease, grace_s: float) -> None:
        """End a child and wait until its place is free."""

    def retire(
        self, lease: Lease, within_s: float | None, settle: Callable[[], Awaitable[None]]
    ) -> None:
        """Let a child finish what it has; see `ChildPool.retire`."""

    def became_ready(self, start_s: float) -> None:
        """A shared child has had its handshake."""

    def starts_again(self) -> None:
        """A shared child will be started in place of one that ended."""
