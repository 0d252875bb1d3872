"""Many waiters on one child's pipe.

What goes down is numbered by the correlator and sent in the same turn; what comes up is read in
one task and handed on without waiting, so that no reader can hold up another. The decisions are
`rules.correlate`'s; this module only moves messages and counts what reaches nobody.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from mcpbridge.channels.base import Channel, Received, Spoiled
from mcpbridge.errors import ChannelClosed, Unavailable, WireError
from mcpbridge.rules.correlate import (
    Answered,
    Asked,
    Correlator,
    Dropped,
    Progressed,
    Tagged,
    Told,
    Withdrawn,
    cancel_for,
)
from mcpbridge.rules.faults import (
    Fault,
    bad_child_message,
    cancelled,
    child_exited,
    message_too_large,
    nobody_to_ask,
)
from mcpbridge.rules.methods import PING, Audience, shared_audience
from mcpbridge.telemetry.meters import Meters
from mcpbridge.wire.messages import Failure, Message, Notification, Reply, Request, Result

log = logging.getLogger("mcpbridge.bridge")

_NOISE_LOG_EVERY_S = 1.0


class Waiter(Protocol):
    """Whoever waits for the answer to one request."""

    @property
    def lasting(self) -> bool:
        """It is a subscription: in flight as long as its client likes, and no call."""

    def progressed(self, notification: Notification) -> None:
        """Progress, with the waiter's own token."""

    def answered(self, reply: Reply) -> None:
        """The final answer, with the waiter's own id; called once at most."""

    def remarked(self, notification: Notification) -> None:
        """A log message that can only be about this request."""

    def tagged(self, notification: Notification) -> None:
        """Something for the subscription that this request opened."""

    def fail(self, fault: Fault) -> None:
        """There will be no answer of the child."""


class Tenant(Protocol):
    """Whoever holds a lease on the child: a session."""

    def told(self, notification: Notification) -> None:
        """The child says something that belongs to no request."""

    def asked(self, request: Request) -> None:
        """The child asks its client; only a child of the tenant's own does."""

    def withdrawn(self, withdrawal: Withdrawn) -> None:
        """The child takes a question back."""

    def lost(self) -> None:
        """The child is gone; what was in flight has been told."""


class Mux:
    """One child's pipe and everybody who waits on it; lives as long as the channel."""

    def __init__(
        self, channel: Channel, meters: Meters, *, shared: bool, max_message_bytes: int
    ) -> None:
        self.channel = channel
        self.shared = shared
        """Several sessions speak through it, so that what names no request cannot be told."""
        self.lost = False
        """The channel has ended: nothing can be sent, nothing will be answered."""
        self._correlator: Correlator[Waiter] = Correlator()
        self._tenants: dict[Tenant, None] = {}
        self._meters = meters
        self._max_message_bytes = max_message_bytes
        self._noise_logged_at = float("-inf")

    @property
    def in_flight(self) -> int:
        """Requests that the child has not answered."""
        return len(self._correlator)

    def enter(self, tenant: Tenant) -> None:
        """Hear, from now on, what the child says to all."""
        self._tenants[tenant] = None

    def leave(self, tenant: Tenant) -> None:
        """Hear nothing any more."""
        self._tenants.pop(tenant, None)

    def request(self, request: Request, waiter: Waiter) -> int:
        """Send a request; its waiter hears of everything that answers it.

        Returns:
            The request's number on the pipe.

        Raises:
            ChannelClosed: The child is gone.
            WireError: The parameters cannot be sent without ambiguity.
        """
        if self.lost:
            raise ChannelClosed
        number, numbered = self._correlator.outbound(request, waiter)
        try:
            self.channel.send(numbered)
        except ChannelClosed:
            self._correlator.forget(number)
            raise
        return number

    def send(self, message: Message) -> None:
        """Send a notification, or an answer to a question of the child; lost with the child."""
        try:
            self.channel.send(message)
        except ChannelClosed:
            self._meters.count("sent_to_closed_child")

    def cancel(self, number: int, reason: str) -> None:
        """Tell the child that nobody wants this answer any more, and take it as late."""
        self._correlator.forget(number)
        self.send(cancel_for(number, reason))

    def forget(self, number: int) -> None:
        """Whatever still comes for this request is late."""
        self._correlator.forget(number)

    async def ask(self, method: str, params: bytes | None) -> Reply:
        """Send a request of the bridge's own and wait for its answer; the caller bounds the wait.

        Raises:
            Unavailable: The child ended before it answered.
        """
        waiter = _OwnCall()
        try:
            number = self.request(Request(b"0", method, params), waiter)
        except ChannelClosed:
            raise Unavailable(child_exited(None, "no")) from None
        try:
            return await waiter.reply
        finally:
            self._correlator.forget(number)

    async def run(self) -> None:
        """Hand on what the child says until its stream ends."""
        while received := await self.channel.receive():
            for item in received:
                self._hear(item)
        # From here on a call would be read by nobody: it waits for the next child instead. Those
        # in flight are told as soon as it is known how this one ended.
        self.lost = True

    def lose(self, fault: Fault) -> None:
        """The child is gone: nobody waits in vain."""
        self.lost = True
        for waiter in self._correlator.owners():
            waiter.fail(fault)
        for tenant in list(self._tenants):
            tenant.lost()

    def _hear(self, item: Received) -> None:
        if isinstance(item, Spoiled):
            self._spoiled(item)
            return
        try:
            heard = self._correlator.inbound(item)
        except WireError:
            self._meters.count("bad_child_message")
            return
        match heard:
            case Answered(waiter, reply):
                waiter.answered(reply)
            case Progressed(waiter, notification):
                waiter.progressed(notification)
            case Tagged(waiter, notification):
                waiter.tagged(notification)
            case Asked(request):
                self._asked(request)
            case Told(notification):
                self._told(notification)
            case Withdrawn():
                self._withdrawn(heard)
            case Dropped(value=why):
                self._meters.count(why)

    def _told(self, notification: Notification) -> None:
        audience = shared_audience(notification.method) if self.shared else None
        if audience is Audience.NOBODY:
            self._meters.count("unattributable_notification")
        elif audience is Audience.ONLY_CALLER:
            self._remarked(notification)
        else:
            for tenant in list(self._tenants):
                tenant.told(notification)

    def _withdrawn(self, withdrawal: Withdrawn) -> None:
        number = int(withdrawal.child_id) if withdrawal.child_id.isdigit() else None
        listen = self._correlator.owner(number)
        if number is not None and listen is not None and listen.lasting:
            # MCP 2026-07-28, Cancellation: so a server ends a subscription on stdio. A child that
            # may be asked to listen asks nothing itself, so the number can mean nothing else.
            self._correlator.forget(number)
            listen.fail(cancelled())
            return
        for tenant in list(self._tenants):
            tenant.withdrawn(withdrawal)

    def _remarked(self, notification: Notification) -> None:
        callers = [waiter for waiter in self._correlator.owners() if not waiter.lasting]
        if len(callers) == 1:
            callers[0].remarked(notification)
        else:
            self._meters.count("unattributable_notification")

    def _asked(self, request: Request) -> None:
        if request.method == PING:
            # The child wants to know that its client lives, and that is this process.
            self.send(Result(request.id, b"{}"))
        elif self.shared or not self._tenants:
            self._meters.count("declined_question")
            self.send(Failure(request.id, nobody_to_ask().error()))
        else:
            next(iter(self._tenants)).asked(request)

    def _spoiled(self, spoiled: Spoiled) -> None:
        self._meters.count(f"stdout_{spoiled.reason}")
        now = asyncio.get_running_loop().time()
        if now - self._noise_logged_at >= _NOISE_LOG_EVERY_S:
            self._noise_logged_at = now
            sample = spoiled.sample.decode("utf-8", "backslashreplace")
            extra = {"reason": spoiled.reason, "bytes": spoiled.size, "sample": sample}
            log.warning("child.stdout_noise", extra=extra)
        waiter = self._correlator.owner(spoiled.answers)
        if waiter is not None and spoiled.answers is not None:
            self._correlator.forget(spoiled.answers)
            if spoiled.reason == "message_too_large":
                waiter.fail(message_too_large(spoiled.size, self._max_message_bytes))
            else:
                waiter.fail(bad_child_message())


class _OwnCall:
    """The waiter behind `Mux.ask`."""

    lasting = False

    def __init__(self) -> None:
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def progressed(self, notification: Notification) -> None:
        """The bridge asks for no progress."""

    def remarked(self, notification: Notification) -> None:
        """What the child logs about the bridge's own requests is nobody's."""

    def tagged(self, notification: Notification) -> None:
        """The bridge's own subscriptions have waiters of their own."""

    def answered(self, reply: Reply) -> None:
        if not self.reply.done():
            self.reply.set_result(reply)

    def fail(self, fault: Fault) -> None:
        if not self.reply.done():
            self.reply.set_exception(Unavailable(fault))
