"""A lease: the right to send to one child, until it is given back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from mcpbridge.bridge.children.mux import Mux
from mcpbridge.process.child import Child
from mcpbridge.rules.faults import cut_for_memory
from mcpbridge.rules.mcp.initialize import ServerProfile


class StartTurn:
    """A right to start a process while others wait for theirs; ends once."""

    def __init__(self, starts: anyio.Semaphore) -> None:
        self._starts: anyio.Semaphore | None = starts

    def end(self) -> None:
        """Let the next process start; a second call does nothing."""
        # Taken first: both the handshake and the end of the child end the turn, and a semaphore
        # that is released twice would let one start too many begin.
        starts, self._starts = self._starts, None
        if starts is not None:
            starts.release()


class Lease:
    """A right to use a child until it is released."""

    def __init__(
        self, child: Child, mux: Mux, *, counted: bool = True, turn: StartTurn | None = None
    ) -> None:
        """Make a lease.

        Args:
            child: A child that runs.
            mux: The mux on its pipe.
            counted: Whether it takes one of the places; children of `ChildPool.shared` do not.
            turn: Ends with the child's handshake, so that the next process may start.
        """
        self.child = child
        self.mux = mux
        self.counted = counted
        self._turn = turn
        self.profile: ServerProfile | None = None
        """What the child said in the handshake; None before that."""
        self.log_level: str | None = None
        """The log level that calls without a session have set on it."""
        self.restored_level: str | None = None
        """The log level that was set on it when it took over from another child."""
        self.restored_uris: frozenset[str] = frozenset()
        """The subscriptions that were made on it when it took over."""
        self.recycle_due = False
        """Whether another child replaces it as soon as no client notices."""
        self.rested = False
        """Whether it was ended because no client needed it."""

    def __repr__(self) -> str:
        due = " recycle_due" if self.recycle_due else ""
        server = self.profile.name[:64] if self.profile is not None else None
        return f"<Lease server={server!r}{due} {self.child} {self.mux}>"

    def introduced_as(self, profile: ServerProfile) -> None:
        """Record what the child said in its handshake."""
        self.profile = profile
        self.mux.introduced()

    def start_over(self) -> None:
        """Let the next process start: the handshake has ended, with an answer or without."""
        if self._turn is not None:
            self._turn.end()

    def set_log_level(self, level: str) -> None:
        """Record the log level that calls without a session set on the child."""
        self.log_level = level

    def restore(self, level: str | None, uris: frozenset[str]) -> None:
        """Record the log level and subscriptions that the child was given for its sessions."""
        self.restored_level, self.restored_uris = level, uris

    def cut(self) -> None:
        """End the child at once, as it has most of what is kept; another one may start."""
        # Before the kill, or the calls would be told that the process ended by itself.
        self.mux.fail_all(cut_for_memory("MCP server process"))
        self.child.kill()

    def rest(self) -> None:
        """Mark the child: it is ended because no client needs it."""
        self.rested = True

    def recycle(self) -> None:
        """Mark the child: another one replaces it as soon as no client notices."""
        self.recycle_due = True


Wanted = Callable[[], bool]
"""Returns whether the client that waits for a place can still use a child."""


class ChildSource(Protocol):
    """A source of children: the pool itself, or one principal's view of it."""

    own_wanted: anyio.Event
    """Set once a client has come that gets its own child."""

    async def shared(self) -> Lease:
        """Return a fresh child for many sessions; see `ChildPool.shared`."""

    async def own(self, *, wanted: Wanted | None = None, caller: bytes = b"") -> Lease:
        """Return a fresh child for one session alone; see `ChildPool.own`."""

    async def successor(self, *, caller: bytes = b"") -> Lease:
        """Return a fresh child for a session that has one; see `ChildPool.successor`."""

    def pass_on(self, lease: Lease, caller: bytes) -> None:
        """Count a child as that of the client that uses it now; see `ChildPool.pass_on`."""

    def idle(self) -> None:
        """Take note that a child serves no client at present; see `ChildPool.idle`."""

    def fell_back(self) -> None:
        """Record that the shared child serves in place of an own one; see `ChildPool.fell_back`."""

    def release(self, lease: Lease, grace_s: float = 5.0) -> None:
        """End a child that is not used any more; see `ChildPool.release`."""

    async def end(self, lease: Lease, grace_s: float) -> None:
        """End a child and wait until its place is free; see `ChildPool.end`."""

    def retire(
        self, lease: Lease, within_s: float | None, settle: Callable[[], Awaitable[None]]
    ) -> None:
        """Let a child finish its calls, then end it; see `ChildPool.retire`."""

    def charged(self, lease: Lease) -> bool:
        """Charge the end of a shared child to a client; see `ChildPool.charged`."""

    def became_ready(self, start_s: float) -> None:
        """Record that a shared child is ready, `start_s` seconds after its start began."""

    def starts_again(self) -> None:
        """Record that a shared child will be started in place of one that ended."""
