"""Initialized children for calls of 2026-07-28 during which the server may send requests.

A legacy child cannot say which call its request belongs to, so such a call has a child for itself
while it runs. Then the child waits for the next call of a client with the same capabilities: they
are part of the handshake and cannot be changed.

Concurrent calls of one client do not each need a new child. A call first waits for a child that
works for its client already, about as long as a start takes. Only then another one is started, and
the call gets the first that is free.
"""

from __future__ import annotations

import asyncio
import collections
import logging

import anyio
import msgspec

from mcpbridge import __version__
from mcpbridge.bridge.children.handshake import shake_hands
from mcpbridge.bridge.children.lease import ChildSource, Lease
from mcpbridge.bridge.tasks import Spawn
from mcpbridge.rules.faults import Unavailable, bridge_failed
from mcpbridge.rules.mcp.request_meta import RequestMeta, legacy_capabilities
from mcpbridge.rules.mcp.revisions import NEWEST_LEGACY

log = logging.getLogger("mcpbridge.bridge")

IDLE_S = 300.0
"""How many seconds a child waits for another call."""
_FIRST_PATIENCE_S = 1.0
"""How many seconds a call waits for a child of its client, before a start has been timed."""


class WarmPool:
    """A pool of children by the fingerprint of their clients' capabilities; one for each tenant."""

    def __init__(self, child_pool: ChildSource, start_timeout_s: float, spawn: Spawn) -> None:
        """Make a pool.

        Args:
            child_pool: Starts children.
            start_timeout_s: Limit for the handshake.
            spawn: Starts a task of the bridge, which outlives the request.
        """
        self._child_pool = child_pool
        self._start_timeout_s = start_timeout_s
        self._spawn = spawn
        self._patience_s = _FIRST_PATIENCE_S
        self._idle: collections.deque[tuple[str, float, Lease]] = collections.deque()
        self._given: dict[Lease, str] = {}
        """Children that work on a call, with the fingerprints of their handshakes."""
        self._waiters: dict[str, collections.deque[asyncio.Future[Lease]]] = {}
        self._renewals = 0
        """Number of calls of `renew`; a child whose start began before the last one is outdated."""
        self._coming: collections.Counter[str] = collections.Counter()
        """Starts by fingerprint: begun, or to begin if the waiting call gets no other child."""

    async def take(self, envelope: RequestMeta, caller: bytes = b"") -> Lease:
        """Return a child for one call alone, initialized with the capabilities of its client.

        Args:
            envelope: The client's `_meta`.
            caller: The client, by its `Principal.share_key`.

        Raises:
            PoolExhausted: All places are taken, and none became free within `--queue-timeout`.
            Unavailable: It could not be started.
        """
        fingerprint = envelope.fingerprint
        lease = self._idle_child(fingerprint)
        if lease is not None:
            self._given[lease] = fingerprint
            self._child_pool.pass_on(lease, caller)
            return lease
        waiter: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        has_children = self._coming[fingerprint] or fingerprint in self._given.values()
        # In the queue before the wait, and counted as a start to come: a child that is given back
        # in this turn of the loop, or a start that fails in it, must find the call.
        waiters = self._waiters.setdefault(fingerprint, collections.deque())
        waiters.append(waiter)
        self._coming[fingerprint] += 1
        if has_children:
            await asyncio.wait([waiter], timeout=self._patience_s)
        if waiter.done():
            # A child became free within the patience: the start that was counted is not needed.
            self._came(fingerprint)
        else:
            self._spawn(self._start_another, envelope, caller)
            await asyncio.wait([waiter])
        # Shares count the client whose call has the child, which another's call may have started.
        self._child_pool.pass_on(waiter.result(), caller)
        return waiter.result()

    def give_back(self, lease: Lease, now: float) -> None:
        """Take back a child whose call is over; it may serve another."""
        fingerprint = self._given.pop(lease)
        if lease.recycle_due:
            self._child_pool.release(lease)
        elif not lease.mux.lost:
            self._hand_on(lease, fingerprint, now)

    def discard(self, lease: Lease) -> None:
        """End a child whose state no other call should meet."""
        self._given.pop(lease, None)
        self._child_pool.release(lease)

    @property
    def idle(self) -> list[tuple[float, Lease]]:
        """Each child that waits for a call, and when it was given back, the longest idle first."""
        return [(since, lease) for _, since, lease in self._idle]

    def lend(self, lease: Lease) -> Lease:
        """Remove and return a child that waits."""
        self._idle = collections.deque(entry for entry in self._idle if entry[2] is not lease)
        return lease

    def renew(self) -> None:
        """Give the children that run or start to no further call; those with a call finish it."""
        self._renewals += 1
        while self._idle:
            self._child_pool.release(self._idle.popleft()[2])
        for lease in self._given:
            lease.recycle()

    def expire(self, now: float) -> None:
        """End children that have waited for `IDLE_S`, and those that are due to be recycled."""
        for entry in [entry for entry in self._idle if entry[2].recycle_due]:
            self._idle.remove(entry)
            self._child_pool.release(entry[2])
        while self._idle and now - self._idle[0][1] > IDLE_S:
            self._child_pool.release(self._idle.popleft()[2])

    def _idle_child(self, fingerprint: str) -> Lease | None:
        for entry in reversed(self._idle):
            if entry[0] == fingerprint:
                self._idle.remove(entry)
                return None if entry[2].mux.shut else entry[2]
        return None

    def _hand_on(self, lease: Lease, fingerprint: str, now: float) -> None:
        """Give a child to the call that has waited longest, or let the child wait for a call."""
        waiter = self._next_waiter(fingerprint)
        if waiter is not None:
            self._given[lease] = fingerprint
            waiter.set_result(lease)
        elif lease.recycle_due:
            self._child_pool.release(lease)
        else:
            self._idle.append((fingerprint, now, lease))
            self._child_pool.idle()

    def _next_waiter(self, fingerprint: str) -> asyncio.Future[Lease] | None:
        waiters = self._waiters.get(fingerprint)
        waiter = waiters.popleft() if waiters else None
        if not waiters:
            self._waiters.pop(fingerprint, None)
        return waiter

    def _wants_more(self, fingerprint: str) -> bool:
        """Return whether each start that is under way still has a call to serve."""
        return self._coming[fingerprint] <= len(self._waiters.get(fingerprint, ()))

    def _came(self, fingerprint: str) -> None:
        self._coming[fingerprint] -= 1
        if not self._coming[fingerprint]:
            del self._coming[fingerprint]

    async def _start_another(self, envelope: RequestMeta, caller: bytes) -> None:
        fingerprint = envelope.fingerprint
        fault: Unavailable | None = Unavailable(bridge_failed())
        renewals = self._renewals
        try:
            lease = await self._start(envelope, caller)
            fault = None
            if renewals != self._renewals:
                # It serves the call that it was started for, and then ends: see `give_back`.
                lease.recycle()
            self._hand_on(lease, fingerprint, anyio.current_time())
        except Unavailable as error:
            fault = error
        finally:
            self._came(fingerprint)
            # A start serves the call that has waited longest. A failed start fails that call only
            # if more calls wait than starts are under way.
            if fault is not None and len(self._waiters.get(fingerprint, ())) > self._coming.get(
                fingerprint, 0
            ):
                waiter = self._next_waiter(fingerprint)
                assert waiter is not None
                waiter.set_exception(fault)

    async def _start(self, envelope: RequestMeta, caller: bytes) -> Lease:
        lease = await self._child_pool.own(
            wanted=lambda: self._wants_more(envelope.fingerprint), caller=caller
        )
        began = anyio.current_time()
        params = {
            "protocolVersion": NEWEST_LEGACY.date,
            "capabilities": msgspec.Raw(legacy_capabilities(envelope)),
            "clientInfo": {"name": "mcpbridge", "version": __version__},
        }
        try:
            await shake_hands(lease, msgspec.json.encode(params), self._start_timeout_s)
        except Unavailable:
            self._child_pool.release(lease)
            raise
        self._patience_s = anyio.current_time() - began
        return lease
