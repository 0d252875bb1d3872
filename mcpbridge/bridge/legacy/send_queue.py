"""What a session sends to its child, in order, whether there is a child at the moment or not.

A notification is acknowledged to the client before the child has read it, and the client may send
its next request on another connection at once; so order must hold here. What cannot go out at once
waits, bounded, until there is a child that reads.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.bridge.tasks import Spawn
from mcpbridge.rules.faults import (
    Fault,
    Unavailable,
    capacity,
    session_closed,
)
from mcpbridge.rules.mcp.methods import stops_at_the_bridge
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Notification

MAX_WAITING = 1024
"""Messages of one session that may wait for a child."""

Item = Exchange | Notification


class SendQueue:
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
        """Make a queue.

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
        # A list and no deque, whose first block takes 600 bytes: every session has a queue, and
        # in nearly all of them nothing waits.
        self._waiting: list[Item] = []
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

    def close(self) -> None:
        """Forget what waits, whose exchanges have been told, and the session, which is over.

        The garbage collector comes seldom: what held each other would stay in memory for long.
        """
        self._waiting.clear()
        self._lease, self._find_child = _none, closed

    def seek(self) -> None:
        """Have a child before anything is sent: somebody listens to what it says by itself."""
        if not self._moving:
            self._moving = True
            self._spawn(self._move, True)

    async def _move(self, seeking: bool = False) -> None:
        try:
            if seeking:
                await self._ready_mux()
            while self._waiting:
                mux = await self._ready_mux()
                while self._waiting and not mux.channel.congested and not mux.shut:
                    self._send(mux, self._waiting.pop(0))
        except Unavailable as error:
            self._fail_waiting(error.fault)
        finally:
            self._moving = False

    async def _ready_mux(self) -> Mux:
        lease = self._lease() or await self._find_child()
        # Bounded by `--child-stall-timeout`, which ends a child that does not read.
        await lease.mux.channel.writable()
        return lease.mux

    def _send(self, mux: Mux, item: Item) -> None:
        if isinstance(item, Notification):
            if not (mux.shared and stops_at_the_bridge(item.method)):
                mux.send(item)
            return
        item.submit(mux)

    def _fail_waiting(self, fault: Fault) -> None:
        waiting, self._waiting = self._waiting, []
        for item in waiting:
            if isinstance(item, Exchange):
                if self._refuses:
                    item.refuse(fault)
                else:
                    item.fail(fault)


async def closed() -> Lease:
    """Find a child for a session that is over.

    Raises:
        Unavailable: Always.
    """
    raise Unavailable(session_closed())


def _none() -> None:
    """There is no child that may be sent to."""
