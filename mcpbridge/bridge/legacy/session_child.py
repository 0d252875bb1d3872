"""How a session gets its child, and the next one when that is gone.

A session outlives its child, and begins before it has one: what its client sends waits until
`ChildLink.find` returns. The link is OPENING until the session's way to a child is known, OPEN
while there may be a child, and CLOSED for good.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.rules.faults import Unavailable, session_closed
from mcpbridge.rules.supervision.lifecycle import SESSION, SessionEvent, SessionState, step
from mcpbridge.wire.messages import Notification

Acquire = Callable[[], Awaitable[Lease]]
"""Waits for a child that has had its handshake; raises Unavailable if there will be none now."""


class Adapter(Protocol):
    """Serves the calls of a legacy client by a child of 2026-07-28; see `ModernChildAdapter`."""

    def call(self, exchange: Exchange) -> None:
        """Serve a request; its exchange gets what comes of it."""

    def tell(self, notification: Notification) -> None:
        """Take a notification of the client."""

    def close(self) -> None:
        """End what lasts beyond a call: the session is over."""


class SessionChild(Protocol):
    """The way of one session to its child, chosen when the session opens."""

    @property
    def adapter(self) -> Adapter | None:
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

    def __repr__(self) -> str:
        return "<SharedChild>"

    async def acquire(self) -> Lease:
        """Return the child: see `SessionChild`."""
        return await self._acquire()


class ModernChild:
    """The child of 2026-07-28 that all share, behind the session's adapter."""

    def __init__(self, acquire: Acquire, adapter: Adapter) -> None:
        self._acquire = acquire
        self.adapter = adapter

    def __repr__(self) -> str:
        return "<ModernChild>"

    async def acquire(self) -> Lease:
        """Return the child: see `SessionChild`."""
        return await self._acquire()


class OwnChild:
    """A legacy child for one session alone."""

    adapter = None

    def __init__(self, acquire: Acquire) -> None:
        self._acquire = acquire
        self._ending: Lease | None = None

    def __repr__(self) -> str:
        return f"<OwnChild after={self._ending}>"

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


class LeaseHolder(Protocol):
    """The listener of a session: holds the lease on the child that it is attached to."""

    @property
    def lease(self) -> Lease | None:
        """The child that serves now; None: there is none at present."""

    def take(self, lease: Lease) -> None:
        """Use this child from now on."""

    def rest(self) -> Lease | None:
        """Leave the child; returns the lease on it, if there was one."""


class ChildLink:
    """Leads one client to its child, and to the next one; lives as long as its session."""

    __slots__ = ("_child", "_holder", "_settled", "adapter", "state")

    def __init__(self, holder: LeaseHolder) -> None:
        """Begin, OPENING.

        Args:
            holder: Is attached to each child in turn.
        """
        self.state = SessionState.OPENING
        self.adapter: Adapter | None = None
        """Serves the calls if the child is one of 2026-07-28."""
        self._holder = holder
        self._child: SessionChild | None = None
        self._settled: anyio.Event | None = None
        """Made when something waits for it: an event is a KiB, and few sessions are waited for."""

    def __repr__(self) -> str:
        return f"<ChildLink {self.state.value} {self._child} lease={self._holder.lease}>"

    @property
    def usable(self) -> Lease | None:
        """The child to send to at once; None: it has to be waited for."""
        lease = self._holder.lease
        if self.state is not SessionState.OPEN or lease is None or lease.mux.shut:
            return None
        return lease

    def open(self, child: SessionChild, lease: Lease | None = None) -> None:
        """Let messages go to the child from now on.

        Args:
            child: The way to a child, now and later.
            lease: The child that serves now; None: there is one, or the first message gets one.
        """
        self._child, self.adapter = child, child.adapter
        if lease is not None:
            self._holder.take(lease)
        self._advance(SessionEvent.OPENED)

    def renew(self) -> Lease | None:
        """Leave the session's own child for another one, which starts when the old one has ended.

        Returns:
            The old one, to be released; None if there is none.
        """
        before = self._holder.rest()
        if before is not None and isinstance(self._child, OwnChild):
            self._child.after(before)
        return before

    def close(self) -> Lease | None:
        """Find no child any more.

        Returns:
            The lease that was held, for the bridge to release.
        """
        self._advance(SessionEvent.CLOSE)
        if self.adapter is not None:
            self.adapter.close()
        # Both know the session. The garbage collector comes seldom: what holds each other would
        # stay in memory for long.
        self._child = self.adapter = None
        return self._holder.rest()

    async def find(self) -> Lease:
        """Return the child that serves the session, as soon as there is one.

        Raises:
            Unavailable: There will be none now, or the session is closed.
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
