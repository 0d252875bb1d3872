"""One client request and everything that answers it.

Most requests have one answer and nothing before it, so a stream begins only when something comes
first or takes long. Whoever serves the request over HTTP reads from it; nobody has to: a client of
the legacy era may go away without cancelling.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Protocol

from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.listeners import CallEvent, CallFailed, CallSink, Logged
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.errors import ChannelClosed, WireError
from mcpbridge.rules.faults import (
    INVALID_PARAMS,
    TIMED_OUT,
    Fault,
    bad_child_message,
    child_exited,
    error_object,
)
from mcpbridge.rules.mcp.correlator import Answered, Progressed, Tagged
from mcpbridge.rules.mcp.methods import LISTEN
from mcpbridge.rules.supervision.lifecycle import ExchangeState
from mcpbridge.telemetry.tracer import Span
from mcpbridge.wire.messages import Failure, Notification, Reply, Request, encode

_SHOWN = 64
"""Characters of an id or a method that are shown: a client may send any number."""


class Scope(Protocol):
    """Where an exchange belongs: a session."""

    @property
    def outside(self) -> bool:
        """It is none: each call stands for itself."""

    def begin_stream(self) -> Stream:
        """A stream for the exchange's answer and what comes before it."""

    def ended(self, exchange: Exchange) -> None:
        """It has its final answer."""

    def on_notification(self, notification: Notification) -> None:
        """Something came for it after the end."""

    def admits(self, notification: Notification) -> bool:
        """Whether the client wants a log message."""


class Exchange:
    """From the moment a request is accepted until its one final answer.

    It is finished exactly once, by whichever comes first: the child's answer, its death, the
    client's cancellation, the end of the session or of the bridge. What comes later is ignored.
    """

    __slots__ = (
        "_home",
        "_listener",
        "_translations",
        "fault",
        "heard_at",
        "mux",
        "number",
        "refused",
        "reply",
        "request",
        "sent",
        "span",
        "started_at",
        "stream",
        "streams",
    )

    def __init__(
        self,
        request: Request,
        home: Scope,
        now: float,
        *,
        streams: bool,
        stream: Stream | None,
        span: Span | None = None,
        translations: Sequence[Callable[[Reply], Reply]] = (),
    ) -> None:
        """Begin an exchange.

        Args:
            request: With the client's own id.
            home: The session.
            now: On the event loop's clock.
            streams: The client reads event streams, so that more than the answer can reach it.
            stream: Where the answer goes, if that is settled; else it begins one when needed.
            span: Traces the call towards its client; `CallLog` ends it.
            translations: Make the child's answer one for the client, in this order.
        """
        self.request = request
        self.sent = request
        """What goes to the child: the request, unless the bridge had to change it."""
        self.streams = streams
        self.stream = stream
        self.started_at = now
        self.heard_at = now
        """When it began or something came of it last."""
        self.reply: Reply | None = None
        self.fault: Fault | None = None
        """Why the bridge answered in the child's place, if it did."""
        self.refused = False
        """It was the bridge that turned the request away: no session or child was there yet."""
        self.mux: Mux | None = None
        self.number: int | None = None
        """The request's id on the child's pipe; None until it is sent."""
        self.span = span
        self._translations = translations
        self._home = home
        self._listener: Callable[[], None] | None = None

    def __repr__(self) -> str:
        state = "waiting" if self.mux is None else "sent"
        if self.reply is not None:
            state = f"failed: {self.fault.reason}" if self.fault is not None else "answered"
        request_id, method = self.request.id[:_SHOWN].decode(), self.request.method[:_SHOWN]
        return f"<Exchange {request_id} {method!r} {state} number={self.number}>"

    @property
    def state(self) -> ExchangeState:
        """Where it is in its life; moves as `rules.supervision.lifecycle.EXCHANGE` says.

        Read from what is there, since a call on the fast path asks for nothing of it.
        """
        if self.reply is not None:
            return ExchangeState.ANSWERED
        return ExchangeState.WAITING if self.number is None else ExchangeState.SENT

    @property
    def lasting(self) -> bool:
        """See `CallSink`."""
        return self.request.method == LISTEN

    def receive(self, event: CallEvent) -> None:
        """Take what comes of the request: see `CallSink`."""
        match event:
            case Answered(reply=reply):
                self.answered(reply)
            case Progressed(notification=notification):
                self.progressed(notification)
            case Logged(notification):
                if self._home.admits(notification):
                    self.tell(encode(notification), sheddable=True)
            case Tagged(notification=notification):
                self.tell(encode(notification), sheddable=True)
            case CallFailed(fault):
                self.fail(fault)

    def progressed(self, notification: Notification) -> None:
        """Progress of this very request; after the answer that of the task it began."""
        self.heard_at = asyncio.get_running_loop().time()
        if self.reply is None:
            self.tell(encode(notification), sheddable=True)
        else:
            self._home.on_notification(notification)

    def tell(self, payload: bytes, *, sheddable: bool) -> None:
        """Something that belongs to this request and is not its answer."""
        if self.reply is None and self.streams:
            self.streamed().append(payload, sheddable=sheddable)
            self._wake()

    def noticed(self) -> None:
        """Something was put on its stream by another hand: whoever waits should look."""
        self.heard_at = asyncio.get_running_loop().time()
        self._wake()

    def streamed(self) -> Stream:
        """The stream of this exchange; begins one if there is none."""
        if self.stream is None:
            self.stream = self._home.begin_stream()
            if self.reply is not None:
                self.stream.answer(encode(self.reply))
        return self.stream

    def send_instead(self, request: Request) -> None:
        """Let the child get this request in place of the client's."""
        self.sent = request

    def submit(
        self, mux: Mux, request: Request | None = None, sink: CallSink | None = None
    ) -> None:
        """Send the request to a child; what goes wrong is the final answer.

        Args:
            mux: Of the child.
            request: What is sent for this attempt; None: the request that the child is to get.
            sink: Receives what comes of it; None: this exchange.
        """
        if self.reply is not None:
            return
        try:
            self.number = mux.request(request or self.sent, sink or self)
            self.mux = mux
        except ChannelClosed:
            self.fail(child_exited(None, "no"))
        except WireError as error:
            self.invalid(str(error))

    def attempt_over(self) -> None:
        """The child has answered an attempt, and more are to come: it works on none now."""
        self.number = None

    def abandon(self, fault: Fault) -> None:
        """Tell the child that the answer is not wanted any more, and the client the fault."""
        if self.reply is not None:
            return
        if self.mux is not None and self.number is not None:
            overdue = fault.reason == TIMED_OUT
            self.mux.cancel(self.number, fault.message, overdue=overdue)
        self.fail(fault)

    def touch(self, now: float) -> None:
        """Count the call as active now: its client has answered a question."""
        self.heard_at = now

    def invalid(self, problem: str) -> None:
        """Answer that the request is not valid."""
        self.answered(Failure(self.request.id, error_object(INVALID_PARAMS, problem)))

    def refuse(self, fault: Fault) -> None:
        """Answer in the child's place: the request has reached none."""
        self.refused = True
        self.fail(fault)

    def unsent(self, fault: Fault) -> None:
        """Answer that no child will take it; without a session that is a refusal."""
        if self._home.outside:
            self.refuse(fault)
        else:
            self.fail(fault)

    def answered(self, reply: Reply) -> None:
        """The final answer."""
        if self.reply is not None:
            return
        try:
            for translate in self._translations:
                reply = translate(reply)
        except WireError as error:
            # What cannot be translated might mean something else to its reader.
            self.fault = bad_child_message(f"the MCP server's answer cannot be read: {error}")
            reply = Failure(self.request.id, self.fault.error())
        self.reply = reply
        if self.stream is not None:
            self.stream.answer(encode(reply))
        self._wake()
        self._home.ended(self)

    def fail(self, fault: Fault) -> None:
        """The bridge answers in the child's place."""
        if self.reply is None:
            self.fault = fault
            # Where there is no session a client has not been let in yet: HTTP says so, and what
            # stands in front may send it elsewhere.
            self.refused = self.refused or (fault.reason == "capacity" and self._home.outside)
            self.answered(Failure(self.request.id, fault.error()))

    def listen(self, listener: Callable[[], None]) -> None:
        """Call this, once, when something has come: at once if something has.

        There is one listener at a time; another takes the place of the one before.
        """
        self._listener = listener
        if self.reply is not None or self.stream is not None:
            self._wake()

    def ignore(self) -> None:
        """Nobody listens any more."""
        self._listener = None

    async def first(self, within_s: float) -> None:
        """Wait until anything has come, or until the exchange is so many seconds old."""
        if self.reply is not None or self.stream is not None:
            return
        loop = asyncio.get_running_loop()
        awaited = loop.create_future()
        self._listener = functools.partial(_arrived, awaited)
        timer = loop.call_at(self.started_at + within_s, self._wake)
        await awaited
        timer.cancel()

    async def finished(self) -> None:
        """Wait for the final answer; bounded by what bounds the call itself."""
        while self.reply is None:
            awaited = asyncio.get_running_loop().create_future()
            self._listener = functools.partial(_arrived, awaited)
            await awaited

    def _wake(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener()


def _arrived(awaited: asyncio.Future[None]) -> None:
    # Whoever waits may have been cancelled.
    if not awaited.done():
        awaited.set_result(None)


class DetachedScope:
    """The home of an exchange that is refused and leaves no trace in its session.

    A request whose id is in flight already must not take the place of the first one.
    """

    def __init__(self, home: Scope) -> None:
        self._home = home
        self.outside = home.outside

    def begin_stream(self) -> Stream:
        """See `Scope`."""
        return self._home.begin_stream()

    def ended(self, exchange: Exchange) -> None:
        """Nobody counted it."""

    def on_notification(self, notification: Notification) -> None:
        """Nothing comes of it."""

    def admits(self, notification: Notification) -> bool:
        """Nothing comes of it."""
        return False
