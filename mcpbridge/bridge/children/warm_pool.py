"""Handshaken children for calls of 2026-07-28 that may ask their client something.

A legacy child cannot say which call its question belongs to, so such a call has a child for
itself while it runs. Afterwards the child waits for the next call of a client that offers the
same: what the client offered is part of the handshake and cannot be changed.
"""

from __future__ import annotations

import collections
import logging
import math

import msgspec

from mcpbridge import __version__
from mcpbridge.bridge.children.handshake import shake_hands
from mcpbridge.bridge.children.lease import ChildSource, Lease
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.mcp.request_meta import RequestMeta, legacy_capabilities
from mcpbridge.rules.mcp.revisions import NEWEST_LEGACY

log = logging.getLogger("mcpbridge.bridge")

IDLE_S = 300.0
"""How long a child waits for another call."""


class WarmPool:
    """Children by what their clients offer; owned by the stateless face's bridge part."""

    def __init__(self, child_pool: ChildSource, start_timeout_s: float) -> None:
        self._child_pool = child_pool
        self._start_timeout_s = start_timeout_s
        self._idle: collections.deque[tuple[str, float, Lease]] = collections.deque()

    async def take(self, envelope: RequestMeta) -> Lease:
        """A child that nobody else uses, introduced to what this client offers.

        Raises:
            Unavailable: All places are taken, or it could not be started.
        """
        fingerprint = envelope.fingerprint
        for entry in reversed(self._idle):
            if entry[0] == fingerprint:
                self._idle.remove(entry)
                if not entry[2].mux.shut:
                    return entry[2]
                break
        lease = await self._child_pool.own()
        try:
            params = {
                "protocolVersion": NEWEST_LEGACY.date,
                "capabilities": msgspec.Raw(legacy_capabilities(envelope)),
                "clientInfo": {"name": "mcpbridge", "version": __version__},
            }
            await shake_hands(lease, msgspec.json.encode(params), self._start_timeout_s)
        except Unavailable:
            self._child_pool.release(lease)
            raise
        return lease

    def give_back(self, lease: Lease, envelope: RequestMeta, now: float) -> None:
        """The call is over; the child may serve another."""
        if lease.recycle_due:
            self._child_pool.release(lease)
        elif not lease.mux.lost:
            self._idle.append((envelope.fingerprint, now, lease))
            self._child_pool.idle()

    def discard(self, lease: Lease) -> None:
        """The child is in a state that no other call should meet."""
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
