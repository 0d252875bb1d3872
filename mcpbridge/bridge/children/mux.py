"""Many waiters on one child's pipe.

What goes down is numbered by the correlator and sent in the same turn; what comes up is read in
one task and handed on without waiting, so that no reader can hold up another. The decisions are
`rules.mcp.correlator`'s; this module only moves messages and counts those that reach no client.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence

from mcpbridge.bridge.children.call_limiter import CallLimiter, LoadLimits
from mcpbridge.bridge.children.listeners import (
    CallEvent,
    CallFailed,
    CallSink,
    ChildListener,
    Interceptor,
    Logged,
)
from mcpbridge.channels.channel import Channel, InvalidLine, Received
from mcpbridge.errors import ChannelClosed, WireError
from mcpbridge.rules.access.principals import NOTHING, Secrets
from mcpbridge.rules.faults import (
    Fault,
    Unavailable,
    bad_child_message,
    cancelled,
    child_exited,
    child_message_too_deep,
    message_too_large,
    nobody_to_ask,
    not_begun,
)
from mcpbridge.rules.mcp.correlator import (
    Answered,
    Asked,
    Correlator,
    Dropped,
    Progressed,
    Tagged,
    Told,
    Withdrawn,
    cancel_for,
    number_of,
)
from mcpbridge.rules.mcp.methods import LISTEN, PING, Audience, shared_audience
from mcpbridge.rules.supervision.lifecycle import CHILD, ChildEvent, ChildState, step
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.json_object import MAX_DEPTH
from mcpbridge.wire.messages import Failure, Message, Notification, Reply, Request, Result

log = logging.getLogger("mcpbridge.bridge")

_NOISE_LOG_EVERY_S = 1.0
_PLACELESS = frozenset((PING, LISTEN))
"""What takes no place and never waits: a sign of life, and what is no work to the child."""


class Mux:
    """One child's pipe and everybody who waits on it; lives as long as the channel."""

    def __init__(
        self,
        channel: Channel,
        meters: Meters,
        *,
        shared: bool,
        max_message_bytes: int,
        max_json_depth: int = MAX_DEPTH,
        loads: LoadLimits | None = None,
        interceptors: Sequence[Interceptor] = (),
        secrets: Secrets = NOTHING,
        request_limit: int = 0,
        on_request_limit: Callable[[], None] | None = None,
    ) -> None:
        """Make a multiplexer; `run` reads what the child says.

        Args:
            channel: The child's pipe.
            meters: Count what reaches no client.
            shared: Several sessions speak through it.
            max_message_bytes: The channel's limit, for the fault of a message over it.
            max_json_depth: The same for the depth of a message.
            loads: How many calls may be in flight, and how many may wait.
            interceptors: See each request in this order.
            secrets: What the child's noise may hold and no log may show.
            request_limit: After so many requests of clients `on_request_limit` is called; 0: never.
            on_request_limit: Called once.
        """
        self.channel = channel
        self.shared = shared
        """Several sessions speak through it, so that what names no request cannot be told."""
        self.state = ChildState.STARTING
        self.lost = False
        """GONE: nothing can be sent, nothing will be answered."""
        self.shut = False
        """RETIRING or GONE: no further call should begin on it."""
        self.heard = 0
        """How often something has come from the child: a sign of life, no count of messages."""
        self.timeouts = 0
        """Calls that ran out of time since the last one was answered."""
        self._limit_at = request_limit or sys.maxsize
        self._on_request_limit = on_request_limit
        self._interceptors = tuple(interceptors)
        self._secrets = secrets
        self._correlator: Correlator[CallSink] = Correlator()
        self._listeners: dict[ChildListener, None] = {}
        self._meters = meters
        self._max_message_bytes = max_message_bytes
        self._max_json_depth = max_json_depth
        self._noise_logged_at = float("-inf")
        self.call_limiter = CallLimiter(
            loads or LoadLimits(), self._send_waiting, self._refuse_waiting
        )
        """Who the child works for, and who waits for that."""
        self._own = 0
        self._stirred: dict[Callable[[], None], None] = {}
        """Called once when something has come or the child is gone."""

    def __repr__(self) -> str:
        state = "lost" if self.lost else "shut" if self.shut else "open"
        return (
            f"<Mux {state} {'shared' if self.shared else 'own'} in_flight={self.in_flight}"
            f" waiting={self.call_limiter.waiting} requests={self.requests}"
            f" listeners={len(self._listeners)}>"
        )

    @property
    def in_flight(self) -> int:
        """Requests that the child has not answered."""
        return len(self._correlator)

    @property
    def calls(self) -> int:
        """Those of them that are no subscriptions."""
        return sum(not sink.lasting for sink in self._correlator.owners())

    @property
    def requests(self) -> int:
        """All that clients ever asked of the child."""
        return self._correlator.last - self._own

    def introduced(self) -> None:
        """The child has answered its handshake."""
        self._advance(ChildEvent.INTRODUCED)

    def _advance(self, event: ChildEvent) -> None:
        """Go on to the next state of `rules.supervision.lifecycle.CHILD`."""
        self.state = step(CHILD, self.state, event)
        # Kept beside the state, since every call asks.
        self.lost = self.state is ChildState.GONE
        self.shut = self.lost or self.state is ChildState.RETIRING

    def count_timeouts(self, number: int) -> None:
        """Count so many calls that ran out of time since the last one was answered."""
        self.timeouts = number

    async def wait_idle(self) -> None:
        """Wait until no call is in flight; each has a limit of its own, and so has the wait."""
        while self.calls and not self.lost:
            stirred = asyncio.Event()
            self._stirred[stirred.set] = None
            await stirred.wait()

    def when_stirred(self, callback: Callable[[], None]) -> None:
        """Call this once, soon after the child has said something, been given up or ended."""
        self._stirred[callback] = None

    def stop_accepting(self) -> None:
        """Let no further call begin: another child takes over; calls in flight are finished.

        Subscriptions end as they do with the child: those who hold them look for the next.
        """
        self._advance(ChildEvent.RETIRED)
        for number, sink in self._correlator.waiting():
            if sink.lasting:
                self._correlator.forget(number)
                sink.receive(CallFailed(child_exited(None, "no")))
        self._stir()

    def attach(self, listener: ChildListener) -> None:
        """Hear, from now on, what the child says to all."""
        self._listeners[listener] = None

    def detach(self, listener: ChildListener) -> None:
        """Hear nothing any more."""
        self._listeners.pop(listener, None)

    def request(self, request: Request, sink: CallSink, *, aside: bool = False) -> int:
        """Send a request; its waiter hears of everything that answers it.

        Where all places of the child are taken it waits for its turn, or its waiter is told at
        once that too many do.

        Returns:
            The request's number on the pipe.

        Raises:
            ChannelClosed: The child is gone.
            WireError: The parameters cannot be sent without ambiguity, or the tool is denied.
        """
        if self.lost:
            raise ChannelClosed
        for each in self._interceptors:
            request, sink = each.outbound(request, sink, self._correlator.last + 1, own=aside)
        number, numbered = self._correlator.outbound(request, sink)
        if request.method in _PLACELESS or aside or self.call_limiter.take(number):
            try:
                self.channel.send(numbered)
            except ChannelClosed:
                self._correlator.forget(number)
                raise
        else:
            self.call_limiter.wait(number, numbered)
        if number >= self._limit_at:
            self._limit_at = sys.maxsize
            if self._on_request_limit is not None:
                self._on_request_limit()
        return number

    def request_aside(self, request: Request, sink: CallSink) -> int:
        """Send a request of the bridge's own: it counts for nothing; else as `request`."""
        self._own += 1
        if self._limit_at != sys.maxsize:
            self._limit_at += 1
        return self.request(request, sink, aside=True)

    def send(self, message: Message) -> None:
        """Send a notification, or an answer to a question of the child; lost with the child."""
        if any(each.drops(message) for each in self._interceptors):
            return
        try:
            self.channel.send(message)
        except ChannelClosed:
            self._meters.count("sent_to_closed_child")

    def cancel(self, number: int, reason: str, *, overdue: bool = False) -> None:
        """Tell the child that nobody wants this answer any more, and take it as late.

        `reason` is for the child's log; `overdue`: it is the child that took too long.
        """
        if self.withdraw(number):
            return
        self.timeouts += overdue
        self.forget(number)
        self.send(cancel_for(number, reason))

    def withdraw(self, number: int) -> bool:
        """Take a request back that still waits for its turn; whether it did."""
        waited = self.call_limiter.withdraw(number)
        if waited:
            self.forget(number)
        return waited

    def forget(self, number: int) -> None:
        """Whatever still comes for this request is late."""
        if self._interceptors and (sink := self._correlator.owner(number)) is not None:
            for each in self._interceptors:
                each.forgotten(sink)
        self._correlator.forget(number)
        self.call_limiter.linger(number)
        self._stir()

    async def ask(self, method: str, params: bytes | None) -> Reply:
        """Send a request of the bridge's own and wait for its answer; the caller bounds the wait.

        Raises:
            Unavailable: The child ended before it answered.
        """
        return await answer_of(self, Request(b"0", method, params))

    async def run(self) -> None:
        """Hand on what the child says until its stream ends."""
        while received := await self.channel.receive():
            self.heard += 1
            if self.lost:
                continue  # It was given up, and its callers know.
            for item in received:
                self._hear(item)
            if self._stirred:
                self._stir()
        # From here on a call would be read by nobody: it waits for the next child instead. Those
        # in flight are told as soon as it is known how this one ended.
        self._advance(ChildEvent.LOST)
        self._stir()

    def fail_all(self, fault: Fault) -> None:
        """The child is gone, or given up: nobody waits in vain; who was told is not told again."""
        self._advance(ChildEvent.LOST)
        for number in self.call_limiter.close():
            self._refuse_waiting(number, not_begun(fault))
        failed = CallFailed(fault)
        for sink in self._correlator.end_all():
            sink.receive(failed)
        self._stir()
        listeners, self._listeners = self._listeners, {}
        for listener in listeners:
            listener.on_child_exit()

    def _stir(self) -> None:
        if self._stirred:
            stirred, self._stirred = self._stirred, {}
            for callback in stirred:
                # Soon and not now: whoever made the change has not finished it.
                asyncio.get_running_loop().call_soon(callback)

    def _hear(self, item: Received) -> None:
        if isinstance(item, InvalidLine):
            self._spoiled(item)
            return
        try:
            heard = self._correlator.inbound(item)
        except WireError as error:
            self._meters.count("bad_child_message")
            if isinstance(item, Result):
                fault = bad_child_message(f"the MCP server's answer cannot be read: {error}")
                self._failed(number_of(item.id), fault)
            return
        match heard:
            case Answered(owner=sink, number=number):
                self.call_limiter.release(number)
                self.timeouts = 0
                sink.receive(heard)
            case Progressed(owner=sink) | Tagged(owner=sink):
                sink.receive(heard)
            case Asked(request):
                self._asked(request)
            case Told(notification):
                self._told(notification)
            case Withdrawn():
                self._withdrawn(heard)
            case Dropped(value=why):
                self._meters.count(why)
                self._freed_late(item)

    def _told(self, notification: Notification) -> None:
        audience = shared_audience(notification.method) if self.shared else None
        if audience is Audience.NOBODY:
            self._meters.count("unattributable_notification")
        elif audience is Audience.ONLY_CALLER:
            self._remarked(notification)
        else:
            for listener in list(self._listeners):
                listener.on_notification(notification)

    def _withdrawn(self, withdrawal: Withdrawn) -> None:
        number = int(withdrawal.child_id) if withdrawal.child_id.isdigit() else None
        listen = self._correlator.owner(number)
        if number is not None and listen is not None and listen.lasting:
            # MCP 2026-07-28, Cancellation: so a server ends a subscription on stdio. A child that
            # may be asked to listen asks nothing itself, so the number can mean nothing else.
            self._correlator.forget(number)
            listen.receive(CallFailed(cancelled()))
            return
        for listener in list(self._listeners):
            listener.on_server_request_cancelled(withdrawal)

    def _remarked(self, notification: Notification) -> None:
        callers = [sink for sink in self._correlator.owners() if not sink.lasting]
        if len(callers) == 1:
            callers[0].receive(Logged(notification))
        else:
            self._meters.count("unattributable_notification")

    def _asked(self, request: Request) -> None:
        if request.method == PING:
            # The child wants to know that its client lives, and that is this process.
            self.send(Result(request.id, b"{}"))
        elif self.shared or not self._listeners:
            self._meters.count("declined_question")
            self.send(Failure(request.id, nobody_to_ask().error()))
        else:
            next(iter(self._listeners)).on_server_request(request)

    def _spoiled(self, spoiled: InvalidLine) -> None:
        self._meters.count(f"stdout_{spoiled.reason}")
        now = asyncio.get_running_loop().time()
        if now - self._noise_logged_at >= _NOISE_LOG_EVERY_S:
            self._noise_logged_at = now
            sample = self._secrets.redact(spoiled.sample.decode("utf-8", "backslashreplace"))
            extra = {"reason": spoiled.reason, "bytes": spoiled.size, "sample": sample}
            log.warning("child.stdout_noise", extra=extra)
        if spoiled.answers is None:
            return
        if spoiled.reason == "message_too_large":
            fault = message_too_large(spoiled.size, self._max_message_bytes)
        elif spoiled.reason == "too_deep":
            fault = child_message_too_deep(self._max_json_depth)
        else:
            fault = bad_child_message()
        self._failed(spoiled.answers, fault)

    def _failed(self, number: int | None, fault: Fault) -> None:
        """The child has answered a call with what cannot be passed on."""
        sink = self._correlator.owner(number)
        if sink is not None and number is not None:
            self._correlator.forget(number)
            self.call_limiter.release(number)
            sink.receive(CallFailed(fault))

    def _freed_late(self, message: Message) -> None:
        # The child has answered a call, it may be, that was cancelled.
        if isinstance(message, Result | Failure):
            self.call_limiter.release(number_of(message.id) or 0)

    def _send_waiting(self, number: int, request: Request) -> None:
        try:
            self.channel.send(request)
        except ChannelClosed:
            self._refuse_waiting(number, child_exited(None, "no"))

    def _refuse_waiting(self, number: int, fault: Fault) -> None:
        sink = self._correlator.owner(number)
        self._correlator.forget(number)
        if sink is not None:
            sink.receive(CallFailed(fault))


class OwnCall:
    """The sink behind `Mux.ask`."""

    lasting = False

    def __init__(self) -> None:
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        """The answer, or why there is none."""

    def receive(self, event: CallEvent) -> None:
        """Take the answer; progress is not asked for, and log messages concern no client."""
        if self.reply.done():
            return
        match event:
            case Answered(reply=reply):
                self.reply.set_result(reply)
            case CallFailed(fault):
                self.reply.set_exception(Unavailable(fault))


async def answer_of(mux: Mux, request: Request) -> Reply:
    """Send a request of the bridge's own and wait for its answer; the body of `Mux.ask`.

    Raises:
        Unavailable: The child ended before it answered.
    """
    sink = OwnCall()
    try:
        number = mux.request_aside(request, sink)
    except ChannelClosed:
        raise Unavailable(child_exited(None, "no")) from None
    try:
        return await sink.reply
    finally:
        mux.forget(number)
