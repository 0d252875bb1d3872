"""Many calls on one child's pipe.

A request is numbered by the correlator and sent in the same turn of the event loop. The channel
forwards the child's messages, and each is handed on without waiting, so that a slow client delays
no other. The decisions are `rules.mcp.correlator`'s; this module only moves messages and counts
those that reach no client.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import msgspec

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
    client_cannot_answer,
    message_too_large,
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
_UNLIMITED = frozenset((PING, LISTEN))
"""Methods that never wait for a place: `ping`, a sign of life, and a listen, which is not work."""


class Silence(msgspec.Struct, frozen=True):
    """What was known of a child's silence at one moment."""

    heard: int
    timeouts: int
    heard_after: int


class Mux:
    """A child's pipe with the calls and listeners on it; lives as long as the channel."""

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
        answers: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        """Make a multiplexer; `run` reads the child's messages.

        Args:
            channel: The child's pipe.
            meters: Count messages that reach no client.
            shared: Whether several sessions use the child.
            max_message_bytes: The channel's limit on a message, for the text of the fault.
            max_json_depth: The channel's limit on a message's depth, for the text of the fault.
            loads: How many calls may be in flight, and how many may wait.
            interceptors: Applied to each request, in this order.
            secrets: Values that are redacted in what the log shows of the child's stdout.
            request_limit: Number of clients' requests until `on_request_limit` is called; 0: never.
            on_request_limit: Called once, when the limit is reached.
            answers: Results of requests of a shared child that the bridge itself answers, by
                method.
        """
        self.channel = channel
        self.shared = shared
        """Whether several sessions use the child: a message outside requests has no known owner."""
        self.state = ChildState.STARTING
        self.lost = False
        """Whether the state is GONE: nothing can be sent, and no request will be answered."""
        self.shut = False
        """Whether the state is RETIRING or GONE: no further call should begin on it."""
        self.heard = 0
        """Number of reads with output of the child: a sign of life, not a count of messages."""
        self.timeouts = 0
        """Number of calls in a row that timed out while the child said nothing at all."""
        self._heard_after = 0
        """The last number given to a request when the child was last heard."""
        self._limit_at = request_limit or sys.maxsize
        self._on_request_limit = on_request_limit
        self._answers = answers
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
        """The calls that the child works on, and those that wait for their turn."""
        self._own = 0
        self._ended_with: list[bytes] = []
        """Whose calls the child had when it ended."""
        self._change_callbacks: dict[Callable[[], None], None] = {}
        """Callbacks that are called once, when the child has sent something or is gone."""

    def __repr__(self) -> str:
        state = "lost" if self.lost else "shut" if self.shut else "open"
        return (
            f"<Mux {state} {'shared' if self.shared else 'own'} in_flight={self.in_flight}"
            f" waiting={self.call_limiter.waiting} requests={self.requests}"
            f" listeners={len(self._listeners)}>"
        )

    @property
    def in_flight(self) -> int:
        """Number of requests that the child has not answered."""
        return len(self._correlator)

    @property
    def calls(self) -> int:
        """Number of calls that the child has not answered: requests without subscriptions."""
        return sum(not sink.lasting for sink in self._correlator.owners())

    @property
    def requests(self) -> int:
        """Number of all requests that clients have sent to the child."""
        return self._correlator.last - self._own

    def callers_at_end(self) -> list[bytes]:
        """Return whose calls the child had when it ended, in the order in which they were sent."""
        return self._ended_with or self._callers()

    def _callers(self) -> list[bytes]:
        waits = self.call_limiter.holds
        return [
            sink.caller
            for number, sink in self._correlator.waiting()
            if not sink.lasting and not waits(number)
        ]

    def introduced(self) -> None:
        """Record that the child has answered its handshake."""
        self._advance(ChildEvent.INTRODUCED)

    def _advance(self, event: ChildEvent) -> None:
        """Go on to the next state of `rules.supervision.lifecycle.CHILD`."""
        self.state = step(CHILD, self.state, event)
        # Plain attributes: each call reads them, and a property would cost it a Python call.
        self.lost = self.state is ChildState.GONE
        self.shut = self.lost or self.state is ChildState.RETIRING

    def silence(self) -> Silence:
        """Return what is known now of the child's silence; see `was_no_sign`."""
        return Silence(self.heard, self.timeouts, self._heard_after)

    def was_no_sign(self, before: Silence) -> None:
        """Take what came since as no sign that the child works, if it came alone."""
        if self.heard == before.heard + 1:
            self.timeouts, self._heard_after = before.timeouts, before.heard_after

    async def wait_idle(self) -> None:
        """Wait until no call is in flight or the child is gone; the timeouts of calls bound it."""
        while self.calls and not self.lost:
            changed = asyncio.Event()
            # If this task is cancelled the callback stays; it is called at the next change and does
            # nothing.
            self._change_callbacks[changed.set] = None
            await changed.wait()

    def on_next_change(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once, soon after the child has sent something or is gone."""
        self._change_callbacks[callback] = None

    def stop_accepting(self) -> None:
        """Let no further call begin, as another child takes over; calls in flight are finished.

        Subscriptions fail as if the child had ended: their holders subscribe with the next child.
        """
        self._advance(ChildEvent.RETIRED)
        for number, sink in self._correlator.waiting():
            if sink.lasting:
                self._correlator.forget(number)
                sink.receive(CallFailed(child_exited(None, "no")))
        self._notify_change()

    def attach(self, listener: ChildListener) -> None:
        """Add a listener for messages that belong to no request."""
        self._listeners[listener] = None

    def detach(self, listener: ChildListener) -> None:
        """Remove a listener."""
        self._listeners.pop(listener, None)

    def request(self, request: Request, sink: CallSink, *, aside: bool = False) -> int:
        """Send a request; `sink` receives its events.

        If all places of the child are taken, the request waits for its turn; if too many wait, the
        sink receives `CallFailed` at once.

        Args:
            request: The request, under the sender's own id.
            sink: Receives the events.
            aside: Whether it is a request of the bridge itself, which takes no place.

        Returns:
            The request's number on the pipe.

        Raises:
            ChannelClosed: The child is gone.
            WireError: The parameters cannot be sent without ambiguity, or the tool is denied.
        """
        if self.lost:
            raise ChannelClosed
        # Before the request has a number, since interceptors may refuse it and no number is used
        # twice. They are told the number that it will get: nothing else runs in between.
        for each in self._interceptors:
            request, sink = each.outbound(request, sink, self._correlator.last + 1, own=aside)
        number, numbered = self._correlator.outbound(request, sink)
        if request.method in _UNLIMITED or aside or self.call_limiter.take(number):
            try:
                # The pipe may be closed although `run` has not come to the end of stdout yet.
                self.channel.send(numbered)
            except ChannelClosed:
                self._correlator.forget(number)
                raise
        else:
            self.call_limiter.wait(number, numbered, sink.caller)
        if number >= self._limit_at:
            self._limit_at = sys.maxsize
            if self._on_request_limit is not None:
                self._on_request_limit()
        return number

    def request_aside(self, request: Request, sink: CallSink) -> int:
        """Send a request of the bridge itself: like `request`, but it counts toward no limit."""
        self._own += 1
        if self._limit_at != sys.maxsize:
            self._limit_at += 1
        return self.request(request, sink, aside=True)

    def send(self, message: Message) -> None:
        """Send a notification or an answer to a server request; dropped if the child is gone."""
        if any(each.drops(message) for each in self._interceptors):
            return
        try:
            self.channel.send(message)
        except ChannelClosed:
            self._meters.count("sent_to_closed_child")

    def cancel(self, number: int, reason: str, *, overdue: bool = False) -> bool:
        """Cancel a request at the child, if it has got it; an answer is dropped as late.

        Args:
            number: The request's number on the pipe.
            reason: Sent to the child.
            overdue: Whether the child took too long; counts in `timeouts`.

        Returns:
            Whether the child had got it.
        """
        if self.withdraw(number):
            return False
        # A call that was sent before the child last said something may only have waited behind
        # others.
        self.timeouts += overdue and number > self._heard_after
        self.forget(number)
        # The answer may be on its way already: it is dropped as late.
        self.send(cancel_for(number, reason))
        return True

    def withdraw(self, number: int) -> bool:
        """Take back a request that still waits for its turn; return whether it did."""
        waited = self.call_limiter.withdraw(number)
        if waited:
            self.forget(number)
        return waited

    def forget(self, number: int) -> None:
        """Give up a request: events that still come for it are dropped as late."""
        if self._interceptors and (sink := self._correlator.owner(number)) is not None:
            for each in self._interceptors:
                each.forgotten(sink)
        self._correlator.forget(number)
        self.call_limiter.linger(number)
        self._notify_change()

    async def ask(self, method: str, params: bytes | None) -> Reply:
        """Send a request of the bridge itself and wait for its answer; the caller bounds the wait.

        Raises:
            Unavailable: The child ended before it answered.
        """
        return await answer_of(self, Request(b"0", method, params))

    async def run(self) -> None:
        """Hand on the child's messages until its stdout ends."""
        await self.channel.forward(self._take)
        # A call that began now would not be read: it waits for the next child instead. Calls in
        # flight fail in `fail_all`, as soon as the exit status is known.
        self._advance(ChildEvent.LOST)
        self._notify_change()

    def _take(self, received: Sequence[Received]) -> None:
        """Hand on what the child has said."""
        self.heard += 1
        # Whatever it is: a child may work on one call for long while others wait behind it.
        self.timeouts = 0
        self._heard_after = self._correlator.last
        if self.lost:
            return  # The child was given up, its calls have failed: deliver nothing.
        for item in received:
            self._hear(item)
        if self._change_callbacks:
            self._notify_change()

    def fail_all(self, fault: Fault) -> None:
        """Fail all that waits for the child, which is gone or given up; may be called twice."""
        self._advance(ChildEvent.LOST)
        # These first, with another fault: the child never got them, so they may be sent again.
        for number in self.call_limiter.close():
            self._refuse_waiting(number, not_begun(fault))
        self._ended_with = self._ended_with or self._callers()
        failed = CallFailed(fault)
        for sink in self._correlator.end_all():
            sink.receive(failed)
        self._notify_change()
        # Taken out first: a listener may detach itself while it is told.
        listeners, self._listeners = self._listeners, {}
        for listener in listeners:
            listener.on_child_exit()

    def _notify_change(self) -> None:
        if self._change_callbacks:
            changed, self._change_callbacks = self._change_callbacks, {}
            for callback in changed:
                # Not at once: the code that caused the change has not finished it.
                asyncio.get_running_loop().call_soon(callback)

    def _hear(self, item: Received) -> None:
        # Most are answers; to find that a struct is not of a class takes five times as long.
        if not isinstance(item, Result) and isinstance(item, InvalidLine):
            self._take_invalid_line(item)
            return
        try:
            heard = self._correlator.inbound(item)
        except WireError as error:
            self._meters.count("bad_child_message")
            if isinstance(item, Result):
                fault = bad_child_message(f"the MCP server's answer cannot be read: {error}")
                self._failed(number_of(item.id), fault)
            return
        if isinstance(heard, Answered):  # the usual one needs no class pattern: see `pieces`
            self.call_limiter.release(heard.number)
            heard.owner.receive(heard)
            return
        match heard:
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
        if audience is Audience.UNKNOWN:
            self._meters.count("unattributable_notification")
        elif audience is Audience.ONLY_CALLER:
            self._take_log_message(notification)
        else:
            for listener in list(self._listeners):
                listener.on_notification(notification)

    def _withdrawn(self, withdrawal: Withdrawn) -> None:
        number = int(withdrawal.child_id) if withdrawal.child_id.isdigit() else None
        listen = self._correlator.owner(number)
        if number is not None and listen is not None and listen.lasting:
            # MCP 2026-07-28, Cancellation: a server ends a subscription on stdio like this. A child
            # that gets listens sends no requests itself, so the number cannot be one of those.
            self._correlator.forget(number)
            listen.receive(CallFailed(cancelled()))
            return
        for listener in list(self._listeners):
            listener.on_server_request_cancelled(withdrawal)

    def _take_log_message(self, notification: Notification) -> None:
        callers = [sink for sink in self._correlator.owners() if not sink.lasting]
        if len(callers) == 1:
            callers[0].receive(Logged(notification))
        else:
            self._meters.count("unattributable_notification")

    def _asked(self, request: Request) -> None:
        if request.method == PING:
            # The child checks that its client lives, and its client is this process.
            self.send(Result(request.id, b"{}"))
        elif self.shared and request.method in self._answers:
            self.send(Result(request.id, self._answers[request.method]))
        elif self.shared or not self._listeners:
            self._meters.count("declined_question")
            self.send(Failure(request.id, client_cannot_answer().error()))
        else:
            next(iter(self._listeners)).on_server_request(request)

    def _take_invalid_line(self, line: InvalidLine) -> None:
        self._meters.count(f"stdout_{line.reason}")
        now = asyncio.get_running_loop().time()
        if now - self._noise_logged_at >= _NOISE_LOG_EVERY_S:
            self._noise_logged_at = now
            sample = self._secrets.redact(line.sample.decode("utf-8", "backslashreplace"))
            extra = {"reason": line.reason, "bytes": line.size, "sample": sample}
            log.warning("child.stdout_noise", extra=extra)
        if line.answers is None:
            return
        if line.reason == "message_too_large":
            fault = message_too_large(line.size, self._max_message_bytes)
        elif line.reason == "too_deep":
            fault = child_message_too_deep(self._max_json_depth)
        else:
            fault = bad_child_message()
        self._failed(line.answers, fault)

    def _failed(self, number: int | None, fault: Fault) -> None:
        """Fail a call whose answer cannot be passed on."""
        sink = self._correlator.owner(number)
        if sink is not None and number is not None:
            self._correlator.forget(number)
            self.call_limiter.release(number)
            sink.receive(CallFailed(fault))

    def _freed_late(self, message: Message) -> None:
        # Possibly the answer to a cancelled call, which still holds its place.
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
    caller = b""
    asker = None

    def __init__(self) -> None:
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        """Gets the answer, or `Unavailable`."""

    def receive(self, event: CallEvent) -> None:
        """Take the answer; progress was not asked for, and log messages go to no client."""
        if self.reply.done():
            return
        match event:
            case Answered(reply=reply):
                self.reply.set_result(reply)
            case CallFailed(fault):
                self.reply.set_exception(Unavailable(fault))


async def answer_of(mux: Mux, request: Request) -> Reply:
    """Send a request of the bridge itself and wait for its answer; the body of `Mux.ask`.

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
