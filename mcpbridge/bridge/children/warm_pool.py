"""Handshaken children for calls of 2026-07-28 that may ask their client something.

A legacy child cannot say which call its question belongs to, so such a call has a child for
itself while it runs. Afterwards the child waits for the next call of a client that offers the
same: what the client offered is part of the handshake and cannot be changed.

Calls at once of one client need not have a child each. A call waits for one of those that work for
its client already, about as long as starting another would take; only then another one is started,
and the call gets whichever is free first.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import math

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
"""How long a child waits for another call."""
_FIRST_PATIENCE_S = 1.0
"""How long a call waits for a child that works for its client, while no start has been timed."""


class WarmPool:
    """Children by what their clients offer, their fingerprint; one for each tenant."""

    def __init__(self, child_pool: ChildSource, start_timeout_s: float, spawn: Spawn) -> None:
        """Make a pool.

        Args:
            child_pool: Starts children.
            start_timeout_s: For a start with its handshake.
            spawn: Runs work in the bridge's own time.
        """
        self._child_pool = child_pool
        self._start_timeout_s = start_timeout_s
        self._spawn = spawn
        self._patience_s = _FIRST_PATIENCE_S
        self._idle: collections.deque[tuple[str, float, Lease]] = collections.deque()
        self._given: dict[Lease, str] = {}
        """Children that work on a call, with the fingerprint of their handshake."""
        self._waiters: dict[str, collections.deque[asyncio.Future[Lease]]] = {}
        self._coming: collections.Counter[str] = collections.Counter()
        """Starts that have begun or will, if the call that waits gets no other child before."""

    async def take(self, envelope: RequestMeta) -> Lease:
        """A child that nobody else uses, introduced to what this client offers.

        Raises:
            PoolExhausted: All places are taken, and none became free within `--queue-timeout`.
            Unavailable: It could not be started.
        """
        fingerprint = envelope.fingerprint
        lease = self._idle_child(fingerprint)
        if lease is not None:
            self._given[lease] = fingerprint
            return lease
        waiter: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        has_children = self._coming[fingerprint] or fingerprint in self._given.values()
        waiters = self._waiters.setdefault(fingerprint, collections.deque())
        waiters.append(waiter)
        self._coming[fingerprint] += 1
        if has_children:
            await asyncio.wait([waiter], timeout=self._patience_s)
        if waiter.done():
            self._came(fingerprint)
        else:
            self._spawn(self._start_another, envelope)
            await asyncio.wait([waiter])
        return waiter.result()

    def give_back(self, lease: Lease, now: float) -> None:
        """The call is over; the child may serve another."""
        fingerprint = self._given.pop(lease)
        if lease.recycle_due:
            self._child_pool.release(lease)
        elif not lease.mux.lost:
            self._hand_on(lease, fingerprint, now)

    def discard(self, lease: Lease) -> None:
        """The child is in a state that no other call should meet."""
        self._given.pop(lease, None)
        self._child_pool.release(lease)

    @property
    def idle_since(self) -> float:
        """When the child that has waited longest was given back; infinite if none waits."""
        return self._idle[0][1] if self._idle else math.inf

    def lend(self) -> Lease:
        """Give up the child that has waited longest; raises IndexError if none waits."""
        return self._idle.popleft()[2]

    def expire(self, now: float) -> None:
        """End children that have waited long enough, or served long enough."""
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
        """Give a child to the call that has waited longest, or let it wait for one."""
        waiter = self._next_waiter(fingerprint)
        if waiter is not None:
            self._given[lease] = fingerprint
            waiter.set_result(lease)
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
        """Whether each start that is under way has a call to serve."""
        return self._coming[fingerprint] <= len(self._waiters.get(fingerprint, ()))

    def _came(self, fingerprint: str) -> None:
        self._coming[fingerprint] -= 1
        if not self._coming[fingerprint]:
            del self._coming[fingerprint]

    async def _start_another(self, envelope: RequestMeta) -> None:
        fingerprint = envelope.fingerprint
        fault: Unavailable | None = Unavailable(bridge_failed())
        try:
            lease = await self._start(envelope)
            fault = None
            self._hand_on(lease, fingerprint, anyio.current_time())
        except Unavailable as error:
            fault = error
        finally:
            self._came(fingerprint)
            # A start serves whichever call waits longest. One that fails fails a call only if there
            # are more of these than starts.
            if fault is not None and len(self._waiters.get(fingerprint, ())) > self._coming.get(
                fingerprint, 0
            ):
                waiter = self._next_waiter(fingerprint)
                assert waiter is not None
                waiter.set_exception(fault)

    async def _start(self, envelope: RequestMeta) -> Lease:
        lease = await self._child_pool.own(wanted=lambda: self._wants_more(envelope.fingerprint))
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
