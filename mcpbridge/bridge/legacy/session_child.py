"""How a session gets its child, and the next one when that is gone.

A session outlives its child, and begins before it has one: the client's messages wait until
`ChildLink.find` returns. The link is OPENING until the session's `SessionChild` is chosen, OPEN
while there may be a child, and at last CLOSED.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import anyio

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.handshake import initialize
from mcpbridge.bridge.children.lease import ChildSource, Lease, Wanted
from mcpbridge.bridge.tasks import Spawn
from mcpbridge.rules.faults import Unavailable, session_closed
from mcpbridge.rules.mcp.initialize import ServerProfile
from mcpbridge.rules.supervision.lifecycle import SESSION, SessionEvent, SessionState, step
from mcpbridge.wire.messages import Notification, Reply

_OPEN = SessionState.OPEN
"""Read once: with CPython 3.11 the class of an enum looks its members up by a slow path."""
_LEFT_S = 60.0
"""How long a child that a client left behind waits for the next one."""

Acquire = Callable[[], Awaitable[Lease]]
"""Waits for a child that has had its handshake; raises Unavailable if none can be started."""


class Adapter(Protocol):
    """An adapter that serves legacy calls by a child of 2026-07-28; see `ModernChildAdapter`."""

    def call(self, exchange: Exchange) -> None:
        """Serve a request; its exchange receives the events."""

    def tell(self, notification: Notification) -> None:
        """Handle a notification of the client."""

    def announce_lists(self, profile: ServerProfile) -> None:
        """Tell the client that lists may differ: a child with this profile takes over."""

    def close(self) -> None:
        """End the subscription, as the session has ended."""


class SessionChild(Protocol):
    """A way for one session to get its child, chosen when the session opens."""

    @property
    def adapter(self) -> Adapter | None:
        """The translator for a child of 2026-07-28; None if the child is legacy."""

    async def acquire(self) -> Lease:
        """Return a child that is ready.

        Raises:
            Unavailable: There is none, and none can be started now.
        """

    def renewed(self, before: Lease) -> None:
        """Take note that the session has left a child and will acquire another."""


class SharedChild:
    """A way to the legacy child that all sessions of a tenant share."""

    adapter = None

    def __init__(self, acquire: Acquire) -> None:
        self._acquire = acquire

    def __repr__(self) -> str:
        return "<SharedChild>"

    async def acquire(self) -> Lease:
        """Return the child: see `SessionChild`."""
        return await self._acquire()

    def renewed(self, before: Lease) -> None:
        """Do nothing: the tenant, not the session, replaces a shared child."""


class ModernChild:
    """A way to the child of 2026-07-28 that all share, through the session's adapter."""

    def __init__(self, acquire: Acquire, adapter: Adapter) -> None:
        self._acquire = acquire
        self.adapter = adapter

    def __repr__(self) -> str:
        return "<ModernChild>"

    async def acquire(self) -> Lease:
        """Return the child: see `SessionChild`."""
        return await self._acquire()

    def renewed(self, before: Lease) -> None:
        """Do nothing: the tenant, not the session, replaces a shared child."""


class OwnChild:
    """A way to a legacy child for one session alone."""

    adapter = None

    def __init__(self, acquire: Acquire) -> None:
        self._acquire = acquire
        self._ending: Lease | None = None

    def __repr__(self) -> str:
        return f"<OwnChild after={self._ending}>"

    def renewed(self, before: Lease) -> None:
        """Start the next child only when the one before has ended.

        Two processes of a server that keeps state on disk, a browser's profile for example, cannot
        use it at the same time.
        """
        self._ending = before

    async def acquire(self) -> Lease:
        """Return a child: see `SessionChild`."""
        if self._ending is not None:
            await self._ending.child.exited.wait()
            self._ending = None
        return await self._acquire()


class OwnStart:
    """A child that starts for one session, and what becomes of its `initialize`."""

    def __init__(self, lease: Lease, params: bytes | None) -> None:
        """Make it.

        Args:
            lease: On the child, which runs.
            params: Those of the `initialize` that is sent to it; None: none is sent yet.
        """
        self.lease = lease
        self.params = params
        self.claimed = True
        """Whether a session waits for it."""
        self._give_way: Callable[[], None] | None = None
        self._over = anyio.Event()
        self._outcome: Reply | Unavailable | None = None

    @property
    def failed(self) -> bool:
        """It will never serve."""
        return isinstance(self._outcome, Unavailable) or self.lease.mux.shut

    @property
    def available(self) -> bool:
        """Whether another session may wait for it, since no client does."""
        return not self.failed and (not self.claimed or self._give_way is not None)

    def abandon(self, give_way: Callable[[], None]) -> None:
        """Let another session have it: the client has left before it had an answer.

        Args:
            give_way: Ends the client's session if another takes the child.
        """
        self._give_way = give_way

    def claim(self, params: bytes) -> bool:
        """Let a session wait for it; return whether `initialize` has not been sent yet."""
        # Cleared before the call, so that the session of the client that left ends once.
        give_way, self._give_way = self._give_way, None
        if give_way is not None:
            give_way()
        sent, self.params, self.claimed = self.params is not None, params, True
        return not sent

    def leave(self) -> None:
        """No session waits for it any more."""
        self.claimed = False

    def ended(self, outcome: Reply | Unavailable) -> None:
        """Record the answer, or why there is none."""
        self._outcome = outcome
        self._over.set()

    async def reply(self) -> Reply:
        """Wait for the answer to `initialize`.

        Raises:
            Unavailable: There is none.
        """
        await self._over.wait()
        assert self._outcome is not None
        if isinstance(self._outcome, Unavailable):
            raise self._outcome
        return self._outcome


class OwnStarts:
    """Children of single sessions that have not answered `initialize`; one for each tenant.

    A client that loses patience leaves its child behind. The child goes to the next client that
    sends `initialize` with the same params, since a child cannot be given another client; one that
    has been told nothing goes to any.
    """

    def __init__(self, child_pool: ChildSource, start_timeout_s: float, spawn: Spawn) -> None:
        """Make it.

        Args:
            child_pool: Starts the children.
            start_timeout_s: For a start with its handshake, in seconds.
            spawn: Runs work in the bridge's own time.
        """
        self._child_pool = child_pool
        self._start_timeout_s = start_timeout_s
        self._spawn = spawn
        self._starts: dict[Lease, OwnStart] = {}

    async def begin(
        self,
        params: bytes,
        is_over: Callable[[], bool],
        wanted: Wanted | None = None,
        caller: bytes = b"",
    ) -> OwnStart:
        """Start a child, or take one that was left behind.

        Args:
            params: Those of the client's `initialize`.
            is_over: Whether the session has ended, so that the child is left behind.
            wanted: See `ChildPool.own`.
            caller: The client, by its `Principal.share_key`.

        Raises:
            PoolExhausted: All places are taken.
            Unavailable: It could not be started, or the session has ended.
        """
        # Nothing waits between the look and `claim`, so no other session can take the same child.
        start = self._left_behind(params)
        if start is None:
            start = OwnStart(await self._child_pool.own(wanted=wanted, caller=caller), None)
            self._starts[start.lease] = start
            if is_over():
                self.leave(start.lease)
                raise Unavailable(session_closed())
        if start.claim(params):
            self._spawn(self._introduce, start)
        return start

    async def finish(self, start: OwnStart, is_over: Callable[[], bool]) -> Reply:
        """Return the child's answer to `initialize`; the child is the session's from now on.

        Raises:
            Unavailable: There is no answer, or the session has ended.
        """
        try:
            reply = await start.reply()
        except Unavailable:
            self._drop(start)
            raise
        if is_over():
            # It was left behind when the session ended, and may be another's by now.
            raise Unavailable(session_closed())
        # From here on the session ends the child, not this table.
        self._starts.pop(start.lease, None)
        return reply

    async def over(self, lease: Lease) -> None:
        """Wait until the child has answered `initialize`, or never will."""
        start = self._starts.get(lease)
        if start is not None:
            with suppress(Unavailable):
                await start.reply()

    def leave(self, lease: Lease) -> bool:
        """Leave a child behind for the next client; False if it has been introduced already."""
        start = self._starts.get(lease)
        if start is None or start.failed:
            return False
        if start.claimed:
            start.leave()
            self._spawn(self._expire, start)
        return True

    def abandon(self, lease: Lease, give_way: Callable[[], None]) -> None:
        """Let the next client have a child that starts: see `OwnStart.abandon`."""
        start = self._starts.get(lease)
        if start is not None:
            start.abandon(give_way)

    def give_up(self) -> Lease | None:
        """Take a child that was left behind, to be ended; None if there is none."""
        for lease, start in self._starts.items():
            if not start.claimed:
                del self._starts[lease]
                return lease
        return None

    def _left_behind(self, params: bytes) -> OwnStart | None:
        for start in self._starts.values():
            if start.available and start.params in (None, params):
                return start
        return None

    async def _introduce(self, start: OwnStart) -> None:
        assert start.params is not None
        try:
            start.ended(await initialize(start.lease, start.params, self._start_timeout_s))
        except Unavailable as error:
            start.ended(error)
            # A session that waits drops it in `finish`, after it has read the fault.
            if not start.claimed:
                self._drop(start)

    async def _expire(self, start: OwnStart) -> None:
        await anyio.sleep(_LEFT_S)
        if not start.claimed:
            self._drop(start)

    def _drop(self, start: OwnStart) -> None:
        if self._starts.pop(start.lease, None) is not None:
            self._child_pool.release(start.lease)


class LeaseHolder(Protocol):
    """A listener that holds the lease on the child that it is attached to."""

    @property
    def lease(self) -> Lease | None:
        """The child that serves now; None if there is none at present."""

    def take(self, lease: Lease) -> None:
        """Leave the child before and use this one from now on."""

    def rest(self) -> Lease | None:
        """Leave the child; return the lease on it, None if there was none."""


class ChildLink:
    """A link from one client to its child, and to the next one; lives as long as the session."""

    __slots__ = ("_child", "_holder", "_settled", "adapter", "state")

    def __init__(self, holder: LeaseHolder) -> None:
        """Make a link in state OPENING.

        Args:
            holder: Attached to each child in turn.
        """
        self.state = SessionState.OPENING
        self.adapter: Adapter | None = None
        """Serves the calls if the child is one of 2026-07-28; else None."""
        self._holder = holder
        self._child: SessionChild | None = None
        self._settled: anyio.Event | None = None
        """Made when a task waits for it: an event takes a KiB, and few sessions need one."""

    def __repr__(self) -> str:
        return f"<ChildLink {self.state.value} {self._child} lease={self._holder.lease}>"

    @property
    def usable(self) -> Lease | None:
        """The child that messages can be sent to at once; None if they must wait for one."""
        lease = self._holder.lease
        if self.state is not _OPEN or lease is None or lease.mux.shut:
            return None
        # The session hears its own child before it has answered `initialize`.
        return lease if lease.profile is not None else None

    def open(self, child: SessionChild, lease: Lease | None = None) -> None:
        """Open the link: `find` returns a child from now on.

        Args:
            child: Finds the child, now and later.
            lease: The child that serves now; None: the holder has one, or `find` gets one.
        """
        self._child, self.adapter = child, child.adapter
        if lease is not None:
            self._holder.take(lease)
        self._advance(SessionEvent.OPENED)

    def renew(self) -> Lease | None:
        """Leave the session's own child; the next one starts once the old one has ended.

        Returns:
            The old child, to be released; None if there is none.
        """
        before = self._holder.rest()
        if before is not None and self._child is not None:
            self._child.renewed(before)
        return before

    def close(self) -> Lease | None:
        """Close the link: `find` raises from now on.

        Returns:
            The lease that was held, for the bridge to release; None if none was held.
        """
        self._advance(SessionEvent.CLOSE)
        if self.adapter is not None:
            self.adapter.close()
        # Both reference the session. The garbage collector runs rarely: objects that reference each
        # other would stay in memory for long.
        self._child = self.adapter = None
        return self._holder.rest()

    async def find(self) -> Lease:
        """Return the child that serves the session, as soon as there is one.

        Raises:
            Unavailable: None can be started now, or the session is closed.
        """
        while self.state is SessionState.OPENING:
            self._settled = self._settled or anyio.Event()
            await self._settled.wait()
        lease = self.usable
        if lease is None and self._child is not None:
            lease = await self._child.acquire()
        # The session may have been closed while its child started.
        if lease is None or self.state is not SessionState.OPEN:
            raise Unavailable(session_closed())
        # The tenant may have handed the next shared child over already: see `Tenant.run`.
        if lease is not self._holder.lease:
            self._holder.take(lease)
        return lease

    def _advance(self, event: SessionEvent) -> None:
        """Go on to the next state of `rules.supervision.lifecycle.SESSION`."""
        self.state = step(SESSION, self.state, event)
        if self._settled is not None:
            self._settled.set()
