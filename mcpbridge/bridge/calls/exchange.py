"""One client request and everything that answers it.

Most requests have one answer and nothing before it, so a stream begins only if another message
comes first or the answer takes long. The HTTP transport reads the stream, or does not: a legacy
client may disconnect without cancelling its request.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Protocol

from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.listeners import Asker, CallEvent, CallFailed, CallSink, Logged
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.bridge.tasks import Spawn
from mcpbridge.channels.off_loop import LONG_BYTES, read_off_loop
from mcpbridge.errors import ChannelClosed, WireError
from mcpbridge.rules.access.shares import LARGE_BYTES, Account
from mcpbridge.rules.faults import (
    INVALID_PARAMS,
    TIMED_OUT,
    Fault,
    bad_child_message,
    child_exited,
    cut_for_memory,
    error_object,
    no_turn,
)
from mcpbridge.rules.mcp.correlator import Answered, Progressed, Tagged
from mcpbridge.rules.mcp.initialize import client_named
from mcpbridge.rules.mcp.methods import LISTEN
from mcpbridge.rules.mcp.request_meta import client_info
from mcpbridge.rules.supervision.lifecycle import ExchangeState
from mcpbridge.telemetry.tracer import Span
from mcpbridge.wire.messages import (
    Failure,
    Notification,
    Reply,
    Request,
    Result,
    Text,
    encode_for_stream,
)

_TURNED_AWAY = ("capacity", "memory", "paused")
"""Reasons of faults for which a request without a session gets their HTTP status."""
_SHOWN = 64
"""Most characters of an id or a method in `repr`: a client may send long ones."""


class Scope(Protocol):
    """What an exchange belongs to: a session, or the scope of one call without a session."""

    @property
    def outside(self) -> bool:
        """Whether there is no session: each call stands alone."""

    @property
    def account(self) -> Account:
        """The account of what is kept for the exchange."""

    @property
    def client_name(self) -> str:
        """The client as it named itself to the session; empty if there is none."""

    def begin_stream(self, call_id: bytes) -> Stream:
        """Return a new stream for the answer of the call with this id and what comes before it."""

    def ended(self, exchange: Exchange) -> None:
        """Take note that an exchange has its final answer."""

    def on_notification(self, notification: Notification) -> None:
        """Deliver a notification that came for an exchange after its answer."""

    def admits(self, notification: Notification) -> bool:
        """Return whether the client wants this log message."""


class Exchange:
    """A request, from the moment it is accepted until its one final answer.

    It gets exactly one answer, by what comes first: the child's answer or end, the client's
    cancellation, the end of the session or of the bridge. Answers that come later are ignored.
    """

    __slots__ = (
        "_aside",
        "_listener",
        "_scope",
        "_translations",
        "caller",
        "fault",
        "heard_at",
        "kept",
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
        scope: Scope,
        now: float,
        streams: bool,
        stream: Stream | None,
        span: Span | None = None,
        translations: Sequence[Callable[[Reply], Reply]] = (),
        caller: bytes = b"",
        aside: Spawn | None = None,
    ) -> None:
        """Begin an exchange.

        Calls pass all by position: with names CPython makes a dictionary for each exchange.

        Args:
            request: The client's request, under the client's own id.
            scope: What the exchange belongs to.
            now: The event loop's time, in seconds.
            streams: Whether the client reads event streams: without one only the answer reaches it.
            stream: Where the answer goes; None: the exchange begins a stream when it needs one.
            span: Traces the call towards its client; `CallLog` ends it.
            translations: Applied in this order to the child's answer before the client gets it.
            caller: The client, by its `Principal.share_key`.
            aside: Starts the task in which a long answer is translated; None: it is done at once.
        """
        self.request = request
        self.caller = caller
        self.sent = request
        """The request as the child gets it; another than `request` if the bridge changed it."""
        self.streams = streams
        self.stream = stream
        self.started_at = now
        self.heard_at = now
        """When it began, or when the child last sent something for it."""
        self.reply: Reply | None = None
        self.fault: Fault | None = None
        """Why the bridge answered in the child's place; None if it did not."""
        self.refused = False
        """Whether the bridge turned the request away before a session or child had it."""
        self.mux: Mux | None = None
        self.number: int | None = None
        """The request's id on the child's pipe; None until it is sent."""
        self.span = span
        self._translations = translations
        self._aside = aside
        self._scope = scope
        self._listener: Callable[[], None] | None = None
        self.kept = 0
        """Bytes that are charged for it until its final answer."""
        if request.params is not None and len(request.params) > LARGE_BYTES:
            self.keep(len(request.params))

    def __repr__(self) -> str:
        state = "waiting" if self.mux is None else "sent"
        if self.reply is not None:
            state = f"failed: {self.fault.reason}" if self.fault is not None else "answered"
        request_id, method = self.request.id[:_SHOWN].decode(), self.request.method[:_SHOWN]
        return f"<Exchange {request_id} {method!r} {state} number={self.number}>"

    @property
    def state(self) -> ExchangeState:
        """The state, one of `rules.supervision.lifecycle.EXCHANGE`."""
        # Derived, not stored: a call on the fast path never reads it and should not pay for it.
        if self.reply is not None:
            return ExchangeState.ANSWERED
        return ExchangeState.WAITING if self.number is None else ExchangeState.SENT

    @property
    def queued(self) -> bool:
        """Whether it waits for its turn: its child has not got it."""
        mux, number = self.mux, self.number
        return mux is not None and number is not None and mux.call_limiter.holds(number)

    @property
    def lasting(self) -> bool:
        """Whether it is a subscription; see `CallSink`."""
        return self.request.method == LISTEN

    @property
    def asker(self) -> Asker | None:
        """The client, as it named itself in its session or in the request: see `CallSink`."""
        name = self._scope.client_name or client_named(client_info(self.request.params))
        return Asker(name, self.request.id)

    def receive(self, event: CallEvent) -> None:
        """Take the next event of the request: see `CallSink`."""
        if isinstance(event, Answered):  # the usual one needs no class pattern: see `pieces`
            self.answered(event.reply)
            return
        match event:
            case Progressed(notification=notification):
                self.progressed(notification)
            case Logged(notification):
                if self._scope.admits(notification):
                    self.tell(encode_for_stream(notification), sheddable=True)
            case Tagged(notification=notification):
                self.tell(encode_for_stream(notification), sheddable=True)
            case CallFailed(fault):
                self.fail(fault)

    def progressed(self, notification: Notification) -> None:
        """Deliver progress; after the answer it is that of the task that the request began."""
        self.heard_at = asyncio.get_running_loop().time()
        if self.reply is None:
            self.tell(encode_for_stream(notification), sheddable=True)
        else:
            self._scope.on_notification(notification)

    def tell(self, payload: Text, *, sheddable: bool) -> None:
        """Put a message on the stream, if the client reads one and the answer has not come."""
        if self.reply is None and self.streams:
            self.streamed().append(payload, sheddable=sheddable)
            self._wake()

    def always_stream(self) -> None:
        """Begin the stream now, if the client reads one, so that no quick answer becomes JSON."""
        if self.streams and self.reply is None and self.fault is None:
            self.streamed()

    def only_answer(self) -> None:
        """Give the client nothing but the answer from now on: its response has begun as JSON."""
        self.streams = False

    def noticed(self) -> None:
        """Wake the listener after another object has put a message on the stream."""
        self.heard_at = asyncio.get_running_loop().time()
        self._wake()

    def streamed(self) -> Stream:
        """Return the stream of this exchange; begin one if there is none."""
        if self.stream is None:
            self.stream = self._scope.begin_stream(self.request.id)
            if self.reply is not None:
                self.stream.answer(encode_for_stream(self.reply))
        return self.stream

    def keep(self, size: int) -> None:
        """Charge bytes that are kept for the request until its final answer."""
        if self.reply is None:
            self.kept += size
            self._scope.account.charge(size)

    @property
    def held(self) -> int:
        """Bytes kept for it, those that wait for its client included."""
        return self.kept + (self.stream.log.held if self.stream is not None else 0)

    def cut(self) -> None:
        """End it, as it has most of what is kept; forget what its client has not read."""
        self.abandon(cut_for_memory("call"))
        if self.stream is not None:
            self.stream.cut()

    def send_instead(self, request: Request) -> None:
        """Make `submit` send this request in place of the client's."""
        self.sent = request
        if self.kept and request.params is not None:
            # A copy without the envelope.
            self.keep(len(request.params))

    def submit(
        self, mux: Mux, request: Request | None = None, sink: CallSink | None = None
    ) -> None:
        """Send the request to a child; an error of sending becomes the final answer.

        Args:
            mux: The child's.
            request: What is sent in this attempt; None: `sent`.
            sink: Receives the events of the attempt; None: this exchange.
        """
        if self.reply is not None:
            return
        try:
            # Calls of both eras are sent here, so that an error of sending becomes the answer in
            # one place.
            self.number = mux.request(request or self.sent, sink or self)
            self.mux = mux
        except ChannelClosed:
            self.fail(child_exited(None, "no"))
        except WireError as error:
            self.invalid(str(error))

    def attempt_over(self) -> None:
        """Record that the child has answered an attempt and that another one follows."""
        self.number = None

    def abandon(self, fault: Fault) -> None:
        """Cancel the request at the child and answer the client with a fault."""
        if self.reply is not None:
            return
        if self.mux is not None and self.number is not None:
            overdue = fault.reason == TIMED_OUT
            sent = self.mux.cancel(self.number, fault.message, overdue=overdue)
            if overdue and not sent:
                fault = no_turn(fault, self.mux.call_limiter.most)
        self.fail(fault)

    def touch(self, now: float) -> None:
        """Count the call as active at `now`: its client has answered a server request."""
        self.heard_at = now

    def invalid(self, problem: str) -> None:
        """Answer the request with the error "invalid params"."""
        self.answered(Failure(self.request.id, error_object(INVALID_PARAMS, problem)))

    def refuse(self, fault: Fault) -> None:
        """Answer a request that has reached no child, and mark it as refused."""
        self.refused = True
        self.fail(fault)

    def unsent(self, fault: Fault) -> None:
        """Answer a request that no child will take; without a session it is marked as refused."""
        if self._scope.outside:
            self.refuse(fault)
        else:
            self.fail(fault)

    def answered(self, reply: Reply) -> None:
        """Give the exchange its final answer, translated for the client.

        Until a long one has been translated, which takes some turns of the loop, the exchange has
        no answer and may get another one.
        """
        if self.reply is not None:
            return
        if self._aside is not None:
            payload = reply.result if isinstance(reply, Result) else reply.error
            if len(payload) >= LONG_BYTES:
                self._aside(self._translate_aside, reply, payload)
                return
        try:
            for translate in self._translations:
                reply = translate(reply)
        except WireError as error:
            # A client could take an untranslated answer for something else.
            self.fault = _unreadable(error)
            reply = Failure(self.request.id, self.fault.error())
        # Set before any callback below: each of them may end the exchange once more, to no effect.
        self.reply = reply
        if self.stream is not None:
            self.stream.answer(encode_for_stream(reply))
        self._wake()
        self._scope.ended(self)
        if self.kept:
            self._scope.account.charge(-self.kept)
            self.kept = 0

    async def _translate_aside(self, reply: Reply, payload: bytes) -> None:
        """Translate a long answer in a worker thread, then give it to the exchange."""
        translations = self._translations

        def translated(_: bytes) -> Reply:
            found = reply
            for translate in translations:
                found = translate(found)
            return found

        fault: Fault | None = bad_child_message("the MCP server's answer cannot be translated")
        try:
            reply = await read_off_loop(translated, payload)
            fault = None
        except WireError as error:
            fault = _unreadable(error)
        finally:
            # Also if this is cancelled or a translation has a bug: else its client would wait until
            # the call times out. Both do nothing if another answer came in between.
            self._aside, self._translations = None, ()
            if fault is None:
                self.answered(reply)
            else:
                self.fail(fault)

    def fail(self, fault: Fault) -> None:
        """Answer with a fault in the child's place."""
        if self.reply is None:
            self.fault = fault
            # Without a session nothing ties the client to this process: the HTTP status says that
            # it is full, and a load balancer may send the request to another.
            self.refused = self.refused or (fault.reason in _TURNED_AWAY and self._scope.outside)
            self.answered(Failure(self.request.id, fault.error()))

    def listen(self, listener: Callable[[], None]) -> None:
        """Have `listener` called once, when an answer or a stream is there; now if one is.

        There is one listener at a time: this one replaces the one before.
        """
        self._listener = listener
        if self.reply is not None or self.stream is not None:
            self._wake()

    def ignore(self) -> None:
        """Drop the listener."""
        self._listener = None

    async def first(self, within_s: float) -> None:
        """Wait until an answer or a stream is there, or the exchange is `within_s` seconds old."""
        if self.reply is not None or self.stream is not None:
            return
        loop = asyncio.get_running_loop()
        awaited = loop.create_future()
        self._listener = functools.partial(_arrived, awaited)
        timer = loop.call_at(self.started_at + within_s, self._wake)
        await awaited
        timer.cancel()

    async def finished(self) -> None:
        """Wait for the final answer; the timeouts of the call bound the wait."""
        while self.reply is None:
            awaited = asyncio.get_running_loop().create_future()
            self._listener = functools.partial(_arrived, awaited)
            await awaited

    def _wake(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener()


def _unreadable(error: WireError) -> Fault:
    return bad_child_message(f"the MCP server's answer cannot be read: {error}")


def _arrived(awaited: asyncio.Future[None]) -> None:
    # The task that waits may have been cancelled in between.
    if not awaited.done():
        awaited.set_result(None)


class DetachedScope:
    """A scope for an exchange that is refused and leaves no trace in its session.

    A request whose id is in flight already must not take the place of the first one.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.outside = scope.outside
        self.account = scope.account

    @property
    def client_name(self) -> str:
        """The client: see `Scope`."""
        return self._scope.client_name

    def begin_stream(self, call_id: bytes) -> Stream:
        """Return a new stream: see `Scope`."""
        return self._scope.begin_stream(call_id)

    def ended(self, exchange: Exchange) -> None:
        """Do nothing: the session has not counted the exchange."""

    def on_notification(self, notification: Notification) -> None:
        """Drop it: a refused request has reached no child."""

    def admits(self, notification: Notification) -> bool:
        """Return False: a refused request has reached no child."""
        return False
