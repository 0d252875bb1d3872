"""What a session sends to its child, in order, whether there is a child at the moment or not.

A notification is acknowledged to the client before the child has read it, and the client may send
its next request on another connection at once; so order must hold here. What cannot go out at once
waits, bounded, until there is a child that reads.
"""

from __future__ import annotations

import collections
from collections.abc import Awaitable, Callable

import anyio

from mcpbridge.bridge.exchange import Exchange
from mcpbridge.bridge.mux import Mux
from mcpbridge.bridge.placement import Lease
from mcpbridge.errors import ChannelClosed, Unavailable, WireError
from mcpbridge.rules.faults import (
    INVALID_PARAMS,
    Fault,
    capacity,
    child_exited,
    child_stalled,
    error_object,
)
from mcpbridge.rules.methods import stops_at_the_bridge
from mcpbridge.telemetry.meters import Meters
from mcpbridge.wire.messages import Failure, Notification

STALL_S = 30.0
"""How long a child may leave its input unread before those who wait are told."""
MAX_WAITING = 1024
"""Messages of one session that may wait for a child."""

Spawn = Callable[..., object]
"""`TaskGroup.start_soon` of the bridge: work that outlives the request that began it."""
Item = Exchange | Notification


class Outbox:
    """The way of one session's messages to its child; owned by the session."""

    def __init__(
        self,
        lease: Callable[[], Lease | None],
        find_child: Callable[[], Awaitable[Lease]],
        meters: Meters,
        spawn: Spawn,
        *,
        refuses: bool,
    ) -> None:
        """Make an outbox.

        Args:
            lease: The child to send to now; None while there is none that may be sent to.
            find_child: Waits for one; raises Unavailable where there will be none.
            meters: Counts what is lost.
            spawn: Runs work in the bridge's own time.
            refuses: Where there will be no child, requests were not admitted: there is no
                session that they belong to.
        """
        self._lease = lease
        self._find_child = find_child
        self._meters = meters
        self._spawn = spawn
        self._refuses = refuses
        self._waiting: collections.deque[Item] = collections.deque()
        self._moving = False

    def put(self, item: Item) -> None:
        """Send this after all that was put before; never fails but through the exchange."""
        if not self._waiting and not self._moving:
            lease = self._lease()
            if lease is not None and not lease.mux.channel.congested:
                self._send(lease.mux, item)
                return
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(item)
            if not self._moving:
                self._moving = True
                self._spawn(self._move)
        elif isinstance(item, Exchange):
            item.fail(capacity("messages of one session waiting for the server", MAX_WAITING))
        else:
            self._meters.count("shed_client_notification")

    def clear(self) -> None:
        """Forget what waits; its exchanges have been told."""
        self._waiting.clear()

    async def _move(self) -> None:
        try:
            while self._waiting:
                mux = await self._ready_mux()
                while self._waiting and not mux.channel.congested and not mux.lost:
                    self._send(mux, self._waiting.popleft())
        except Unavailable as error:
            self._fail_waiting(error.fault)
        finally:
            self._moving = False

    async def _ready_mux(self) -> Mux:
        lease = self._lease() or await self._find_child()
        with anyio.move_on_after(STALL_S) as patience:
            await lease.mux.channel.writable()
        if patience.cancelled_caught:
            lease.child.stop()
            raise Unavailable(child_stalled(STALL_S))
        return lease.mux

    def _send(self, mux: Mux, item: Item) -> None:
        if isinstance(item, Notification):
            if not (mux.shared and stops_at_the_bridge(item.method)):
                mux.send(item)
            return
        if item.reply is not None:
            return
        try:
            item.number = mux.request(item.sent, item)
            item.mux = mux
        except ChannelClosed:
            item.fail(child_exited(None, "no"))
        except WireError as error:
            refusal = error_object(INVALID_PARAMS, str(error))
            item.answered(Failure(item.request.id, refusal))

    def _fail_waiting(self, fault: Fault) -> None:
        waiting, self._waiting = self._waiting, collections.deque()
        for item in waiting:
            if isinstance(item, Exchange):
                item.refused = self._refuses
                item.fail(fault)
