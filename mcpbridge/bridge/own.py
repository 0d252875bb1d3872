"""A request of the bridge's own: for itself, and on nobody's behalf."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mcpbridge.errors import ChannelClosed
from mcpbridge.rules.faults import Fault, Unavailable, child_exited
from mcpbridge.wire.messages import Notification, Reply, Request

if TYPE_CHECKING:
    from mcpbridge.bridge.mux import Mux


class OwnCall:
    """The waiter behind `Mux.ask`; see `bridge.mux.Waiter`."""

    lasting = False

    def __init__(self) -> None:
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        """The answer, or why there is none."""

    def progressed(self, notification: Notification) -> None:
        """The bridge asks for no progress."""

    def remarked(self, notification: Notification) -> None:
        """What the child logs about the bridge's own requests is nobody's."""

    def tagged(self, notification: Notification) -> None:
        """The bridge's own subscriptions have waiters of their own."""

    def answered(self, reply: Reply) -> None:
        """The child's answer."""
        if not self.reply.done():
            self.reply.set_result(reply)

    def fail(self, fault: Fault) -> None:
        """There will be none."""
        if not self.reply.done():
            self.reply.set_exception(Unavailable(fault))


async def answer_of(mux: Mux, request: Request) -> Reply:
    """Send a request of the bridge's own and wait for its answer; the body of `Mux.ask`.

    Raises:
        Unavailable: The child ended before it answered.
    """
    waiter = OwnCall()
    try:
        number = mux.request_aside(request, waiter)
    except ChannelClosed:
        raise Unavailable(child_exited(None, "no")) from None
    try:
        return await waiter.reply
    finally:
        mux.forget(number)
