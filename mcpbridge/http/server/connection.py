"""uvicorn's HTTP protocol with three changes.

1. What one turn of the loop writes is sent at once: uvicorn writes the head and the body of a
   response separately, and each write is a system call that wakes the client.
2. A client that sends its request too slowly is cut: uvicorn would wait without a limit, and a
   thousand such clients would hold all descriptors.
3. A call under a known head takes the fast path of `http.server.fast_path`.

Source: RFC 9110, 15.5.9 (408).
"""

from __future__ import annotations

import asyncio
import enum
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVarTuple, cast

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from mcpbridge.http.disconnect import Disconnect
from mcpbridge.http.request import (
    DISCONNECT,
    HEAD,
    STARTED,
    UNSENT,
    HttpRequest,
    StartedCall,
)
from mcpbridge.http.responses import refusal_body, refusal_of
from mcpbridge.http.server.fast_path import FastPath, Heads, KnownHead
from mcpbridge.http.server.framing import ambiguity
from mcpbridge.http.server.giving_way import FRESH_S, Peer, Standing, giving_way
from mcpbridge.http.server.limits import BAND, BAND_HEADER_S, ArrivalLimits, Connections, SendWatch
from mcpbridge.http.server.write_buffer import WriteBuffer
from mcpbridge.rules.access.hosts import share_of
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.faults import INVALID_REQUEST, Unavailable, out_of_memory
from mcpbridge.rules.mcp.admission import Reason, Refusal, refuse

log = logging.getLogger("mcpbridge.http")

Words = TypeVarTuple("Words")

_FRAMED = 8
"""Most bytes on the wire for a byte of body: with chunks of one byte each, it is 6."""


MAX_PIPELINED = 100
"""Most requests that may begin in one read, and that may wait behind one that is served."""

_HOLD_S = 0.2
"""Longest time that a known head waits for its body. Then the request takes the ordinary path, so
that one that trickles in is checked, counted and, if need be, refused while it arrives."""

_LINGER_S = 1.0
"""Seconds that a refused client may go on sending, so that it can read the refusal."""


class _Refused(Exception):
    """Ends the parsing of a request that has been refused."""


class _Awaited(enum.Enum):
    HEAD = "--header-timeout"
    BODY = "--body-timeout"
    NOTHING = ""


# Read once: with CPython 3.11 the class of an enum looks its members up by a slow path.
_HEAD, _BODY, _NOTHING = _Awaited.HEAD, _Awaited.BODY, _Awaited.NOTHING


def _guarded(
    callback: Callable[[HttpConnection, *Words], None],
) -> Callable[[HttpConnection, *Words], None]:
    """Make a callback of the event loop end its connection if it raises.

    The loop only reports an exception. It would keep the connection, which might have neither a
    reader nor a timer any more, and its place. It names no arguments, and to pass them on by name
    takes another dictionary for each call.
    """

    call: Any = callback

    @functools.wraps(callback)
    def guarded(self: HttpConnection, /, *args: *Words) -> None:
        try:
            # Most have none or one. CPython makes a call with unpacked arguments from C.
            if not args:
                call(self)
            elif len(args) == 1:
                call(self, args[0])
            else:
                call(self, *args)
        except Exception:
            extra = {"callback": callback.__name__.strip("_")}
            log.exception("http.callback_failed", extra=extra)
            self.abort()

    return guarded


class HttpConnection(HttpToolsProtocol):
    """A connection of a client: the protocol that uvicorn's server makes for each."""

    # Slots, because uvicorn's own attributes fill the key-sharing dictionary: with one more each
    # connection would get a separate dictionary of more than a KiB.
    __slots__ = (
        "_arrived",
        "_awaited",
        "_begun",
        "_call",
        "_call_bytes",
        "_call_head",
        "_charged",
        "_chunk",
        "_connections",
        "_disconnect",
        "_due",
        "_ending",
        "_fast_path",
        "_followed",
        "_heads",
        "_held",
        "_held_since",
        "_limits",
        "_offer",
        "_over",
        "_peer",
        "_quiet_since",
        "_refused",
        "_stall",
        "_timer",
        "_unread",
        "_unsent",
        "_window",
    )

    def __init__(
        self,
        *args: Any,
        limits: ArrivalLimits,
        connections: Connections,
        ending: Callable[[], bool] = lambda: False,
        fast_path: FastPath | None = None,
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self._limits = limits
        self._connections = connections
        self._ending = ending
        self._disconnect: Disconnect | None = None
        self._peer = ""
        """The share of the peer's address; empty for a unix socket."""
        self._over = False
        """Whether it is over the limit on connections: it ends with its first request."""
        self._refused = False
        """Whether a refusal ends the connection: data that still come are not read."""
        self._offer = False
        """Whether the head being parsed offers another protocol, which is ignored."""
        self._followed = False
        """Whether the last read completed a request."""
        self._begun = 0
        """Number of requests that began in the last read."""
        self._due = 0
        """Responses until the connection ends, as the request after them was refused; 0: no end."""
        self._stall: SendWatch | None = None
        self._arrived = self._charged = 0
        """Bytes so far of a request that does not come in one read: all, and those charged."""
        self._unsent, self._unread = Account(connections.budget.connections), 0
        """Bytes of a long response that wait to be sent, and those that its client has not read."""
        self._chunk = 0
        """Bytes of the last read."""
        self._awaited = _HEAD
        self._timer: asyncio.TimerHandle | None = None
        self._fast_path = fast_path
        self._heads = Heads(fast_path) if fast_path is not None else None
        self._call: StartedCall | None = None
        """The call that is on the fast path now; None if there is none."""
        self._call_head: KnownHead | None = None
        """The head of that call's request."""
        self._call_bytes = 0
        """The size of that request's body, in bytes."""
        self._held, self._held_since = b"", 0.0
        """What has come of a request under a known head, and the loop's time when that began."""
        self._window: asyncio.TimerHandle | None = None
        self._quiet_since = 0.0
        """The event loop's time when the last answer was sent."""

    @_guarded
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection, whose request has a time limit; make room for it or refuse it."""
        try:
            buffer = WriteBuffer(transport, self.loop, self._lingers)
            super().connection_made(cast(asyncio.Transport, buffer))
            self._disconnect = Disconnect(self.flow)
            self._peer = share_of(self.client[0]) if self.client else ""
            if len(self.connections) > self._connections.most and not self._find_room():
                self._overflow()
            if not self.transport.is_closing():
                self._set_timer()
        except BaseException:
            transport.abort()
            raise

    @_guarded
    def connection_lost(self, exc: Exception | None) -> None:
        """Free all that the connection holds: the client is gone."""
        try:
            self._let_go()
        finally:
            try:
                if self._disconnect is None:
                    self.connections.discard(self)  # it was never made
                else:
                    super().connection_lost(exc)
            finally:
                if self._disconnect is not None:
                    self._disconnect.happen()

    def _let_go(self) -> None:
        self._let_go_of_body()
        self._count_unread(0)
        self._await(_NOTHING)
        if self._stall is not None:
            self._stall.end()
        if self._window is not None:
            self._window.cancel()
        if self._call is not None:
            if self._call.exchange is not None:
                self._call.exchange.ignore()
            if self._call.abandon is not None:
                self._call.abandon()
        # Break the circle of references: the garbage collector runs rarely, and until then closed
        # connections would soon take a MiB.
        if self.transport is not None:
            cast(WriteBuffer, self.transport).lost()
        # uvicorn does not do it if the client broke the connection, and its timer would keep all
        # that belongs to the connection.
        self._unset_keepalive_if_required()

    def abort(self) -> None:
        """End the connection at once and free its place; nothing more is read from it."""
        self._refused = True
        self.connections.discard(self)
        if self.transport is not None:
            self.transport.abort()

    @_guarded
    def eof_received(self) -> None:
        """Take note that the client sends no more."""
        super().eof_received()

    @_guarded
    def data_received(self, data: bytes) -> None:
        """Take bytes of one or more requests; most come in one read and need no timer."""
        if self._refused:
            return
        if self._held:
            # Read together with what came before, as if both had come in one segment.
            data, between = self._held + data, True
            self._let_go_of_body()
        else:
            between = self._call is None and self._is_between()
        # More bytes have come before the answer. Only uvicorn's parser can put requests in a row.
        if self._call is not None:
            self._leave_fast_path()
        elif between and self._begin(data):
            return
        self._read(data, between)

    def _read(self, data: bytes, between: bool, spent_s: float = 0.0) -> None:
        """Have the parser read data.

        Args:
            data: As they came, in one segment or in several.
            between: They begin a request, and all before it are answered.
            spent_s: Seconds of the time limit that have passed since they came.
        """
        before = self.scope if between else None
        self._chunk = len(data)
        if self._heads is not None:
            self._heads.follow(len(data))
        # Set before parsing: the parser's callbacks change them for this read.
        self._followed, self._begun = False, 0
        self._parse(data)
        if self._awaited is not _NOTHING:
            # Bytes of an earlier request in the same read do not count for this one.
            self._arrived += self._head_size() if self._followed else len(data)
            if self._arrived > self._most_bytes():
                self._refuse_size()
            elif not self._keep(len(data)):
                self._refuse_memory()
            elif self._timer is None:
                self._set_timer(spent_s)
        if self._heads is not None and before is not None and before is not self.scope:
            self._heads.see(data)

    def _hold(self, data: bytes) -> None:
        """Keep the first bytes of a request under a known head until the rest comes."""
        self._held, self._awaited = data, _BODY
        if self._timer is None:
            self._held_since = self.loop.time()
            wait_s = min(_HOLD_S, self._limits.body_s)
            self._timer = self.loop.call_later(wait_s, self._unhold)
        if not self._keep(len(data)):
            self._unhold()

    @_guarded
    def _unhold(self) -> None:
        """Move a request that is not whole, if there is one, off the fast path."""
        if self._held:
            held = self._held
            self._let_go_of_body()
            # The parser begins the request, which ends this timer.
            self._read(held, True, self.loop.time() - self._held_since)

    @property
    def held(self) -> int:
        """Bytes of a request in arrival, and of responses not read: see `HeldConnection`."""
        return self._charged + self._unread + self._unsent.held

    def cut(self) -> None:
        """Refuse the request in arrival, or end the connection: see `HeldConnection`."""
        if self._unread + self._unsent.held > self._charged:
            self._count_unread(0)
            self.transport.abort()
            return
        if self._held:
            self._unhold()
            if self._refused:
                return  # there was no room for the same bytes on the ordinary path
        self._refuse_memory()

    def _keep(self, size: int) -> bool:
        """Count what came of a request that is not whole; return whether more of it may come."""
        self._charged += size
        self._charge(size)
        return not self._connections.budget.full

    def _let_go_of_body(self) -> None:
        self._held = b""
        if self._charged:
            size, self._charged = self._charged, 0
            self._charge(-size)

    def _count_unread(self, size: int) -> None:
        change, self._unread = size - self._unread, size
        if change:
            self._charge(change)

    def _charge(self, change: int) -> None:
        budget = self._connections.budget
        budget.connections.charge(change)
        if self.held:
            budget.enter(self)
        else:
            budget.leave(self)

    def _refuse_memory(self) -> None:
        self._let_go_of_body()
        fault = out_of_memory(self._connections.budget.limit)
        self._say(refusal_of(Unavailable(fault), None))

    def shutdown(self) -> None:
        """Close the connection after the request that is served now: the server ends."""
        if self._call is not None:
            self._leave_fast_path()
        self._unhold()
        super().shutdown()

    @_guarded
    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it was idle for `--keep-alive-timeout`."""
        self.timeout_keep_alive_task = None
        left_s = self._quiet_since + self.timeout_keep_alive - self.loop.time()
        served = self._newest() is not None and not self._is_between()
        if self._call is not None or served or left_s > 0:
            # The timer is set once and not for each request: it looks when the last one ended.
            wait_s = left_s if left_s > 0 else self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(
                wait_s, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    @_guarded
    def pause_writing(self) -> None:
        """Watch the client, as it reads more slowly than the bridge writes."""
        super().pause_writing()
        # No more is written until the client has caught up.
        self._count_unread(self.transport.get_write_buffer_size())
        if self._stall is None:
            limit_s = self._connections.limits.send_s
            self._stall = SendWatch(self.transport, self.loop, limit_s)
        self._stall.begin()

    @_guarded
    def resume_writing(self) -> None:
        """Stop watching the client, as it has caught up."""
        super().resume_writing()
        self._count_unread(0)
        if self._stall is not None:
            self._stall.end()

    @property
    def is_idle(self) -> bool:
        """Whether no request is served or under way, so that it may be closed to make room."""
        asked = self._call is not None or not self._is_between()
        return not asked and not self.transport.is_closing()

    def on_message_begin(self) -> None:
        """Begin a request with its first byte."""
        self._await(_HEAD)
        self._arrived = 0
        self._begun += 1
        if max(self._begun, len(self.pipeline)) > MAX_PIPELINED:
            problem = f"more than {MAX_PIPELINED} requests are sent without waiting for an answer"
            self._say(refuse(400, INVALID_REQUEST, problem, reason=Reason.FRAMING))
            raise _Refused
        super().on_message_begin()

    def send_400_response(self, msg: str) -> None:
        """Refuse data that are not HTTP, unless a refusal was sent before."""
        if not self._refused and not self.transport.is_closing():
            problem = "invalid HTTP/1.1 request"
            self._say(refuse(400, INVALID_REQUEST, problem, reason=Reason.FRAMING))

    def on_headers_complete(self) -> None:
        """Check the head of a request, then serve it."""
        most = self._limits.max_header_bytes
        # Bytes of the body are in this sum: only if it is over the limit is the head measured.
        if self._arrived + self._chunk > most and self._head_size() > most:
            self._refuse_size()
            raise _Refused
        method, version = self.parser.get_method(), self.parser.get_http_version()
        problem = ambiguity(method, self.url, version, self.headers)
        if problem is not None:
            self._say(refuse(400, INVALID_REQUEST, problem, reason=Reason.FRAMING))
            raise _Refused
        if self.parser.should_upgrade():
            self._offer = True
            return
        self._await(_BODY)
        scope: Any = self.scope  # `cast` is a call, here and below
        scope[DISCONNECT], scope[UNSENT] = self._disconnect, self._unsent
        super().on_headers_complete()
        if self._ending():
            self.end_keep_alive()

    def end_keep_alive(self) -> None:
        """Have the newest request's response, if it has not begun, say `Connection: close`.

        uvicorn writes that header and closes the connection. One whose response has begun stays
        open: its client has not been told, and may be sending the next request.
        """
        newest = self._newest()
        if newest is not None and not newest.response_started:
            newest.keep_alive = False

    def on_response_complete(self) -> None:
        """Remember the head of a request that is answered; go on to the next or end."""
        if self._heads is not None and self.cycle.keep_alive and not self._refused:
            scope: Any = self.scope
            self._heads.learn(scope)
        # uvicorn's own makes another timer for each response, and each request cancels it.
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
            else:
                self._rest()
        if self._due:
            self._due -= 1
            if not self._due:
                self.transport.close()

    def on_message_complete(self) -> None:
        """End the wait for a request's body."""
        if self._offer:
            return
        self._followed = True
        self._let_go_of_body()
        self._await(_NOTHING)
        super().on_message_complete()

    def _is_between(self) -> bool:
        """Return whether a request has come whole and been answered, and no other has begun."""
        # Without the second test a connection that got 408 before its first head would count.
        newest: RequestResponseCycle | None = self.cycle
        answered = newest is not None and newest.response_complete
        return self._awaited is _NOTHING and answered

    def _newest(self) -> RequestResponseCycle | None:
        """Return the newest request; None before the first head is complete."""
        return self.cycle

    def _begin(self, data: bytes) -> bool:
        """Handle a request on the fast path, or wait for its body; return whether it does so."""
        found = self._heads.find(data) if self._heads is not None else None
        if self._fast_path is None or found is None:
            return False
        if self.flow.write_paused or self.transport.is_closing():
            return False
        known, body, missing = found
        if len(body) + missing > self._fast_path.max_bytes:
            return False
        if missing:
            self._hold(data)
            return True
        if self._timer is not None:
            self._await(_NOTHING)
        return self._handle(self._fast_path, known, body)

    def _handle(self, fast_path: FastPath, known: KnownHead, body: bytes) -> bool:
        """Handle a whole request on the fast path, if possible; return whether it was handled."""
        handled = fast_path.handle(known, body)
        if handled is None:
            return False
        if not isinstance(handled, StartedCall):
            if not handled.headers and not self._ending():
                if handled.refusal is not None:
                    self._connections.note(handled.refusal, known.head)
                self._answer(handled.status, handled.body, len(body))
                return True
        elif handled.exchange is not None and known.head.accepts.json:
            self._call, self._call_head, self._call_bytes = handled, known, len(body)
            if self._window is None:
                self._window = self.loop.call_later(fast_path.window_s, self._window_over)
            handled.exchange.listen(self._heard)
            return True
        self._start_request(known, handled.finish, len(body))
        return True

    @_guarded
    def _heard(self) -> None:
        """Answer the call on the fast path, or leave the path if it has more than one answer."""
        call, fast_path = self._call, self._fast_path
        if call is None or call.exchange is None or fast_path is None:
            return
        # At the end of the process uvicorn answers, since the connection must end too.
        body = fast_path.answer_of(call.exchange) if not self._ending() else None
        if body is None:
            self._leave_fast_path()
            return
        self._call = self._call_head = None
        self._answer(200, body, self._call_bytes)

    def _answer(self, status: int, body: bytes, received: int) -> None:
        """Send a whole response to a request that uvicorn does not know of."""
        assert self._fast_path is not None
        head = self._fast_path.head_of(status, self.server_state.default_headers, bool(body))
        transport: Any = self.transport  # a `WriteBuffer`; `cast` would be one more call
        transport.write_now(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        self._fast_path.meter.answered("POST", status, received, len(body))
        self.server_state.total_requests += 1
        self._rest()

    def _rest(self) -> None:
        """Take note that the connection is idle from now on; see `timeout_keep_alive_handler`."""
        self._quiet_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    @_guarded
    def _window_over(self) -> None:
        """Move a call that is older than the window off the fast path; else look again later."""
        self._window = None
        if self._call is None or self._call.exchange is None or self._fast_path is None:
            return
        due = self._call.exchange.started_at + self._fast_path.window_s
        if due <= self.loop.time():
            self._leave_fast_path()
        else:
            self._window = self.loop.call_at(due, self._window_over)

    def _leave_fast_path(self) -> None:
        """Let the call go on as an ASGI request."""
        call, known = self._call, self._call_head
        self._call = self._call_head = None
        if call is not None and call.exchange is not None and known is not None:
            call.exchange.ignore()
            self._start_request(known, call.finish, self._call_bytes)

    def _start_request(
        self, known: KnownHead, finish: Callable[[HttpRequest], Awaitable[None]], received: int
    ) -> None:
        """Make uvicorn answer a request that was handled already, as if its parser had read it.

        The request before it must have been answered, and no bytes may have come after it.
        """
        super().on_message_begin()
        self.url, self.headers = known.scope["raw_path"], known.scope["headers"]
        scope: Any = self.scope
        scope.update(known.scope)
        scope[HEAD], scope[STARTED] = known.head, finish
        scope[DISCONNECT], scope[UNSENT] = self._disconnect, self._unsent
        self.cycle = RequestResponseCycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=not self._ending(),
            on_response=self.on_response_complete,
        )
        self.cycle.more_body = False
        if self._fast_path is not None:
            # Its status and response are counted as for every ASGI request.
            self._fast_path.meter.count(received, 0)
        self._start_asgi_task(self.cycle, self.app)

    def _parse(self, data: bytes) -> None:
        """Feed the parser; an offer of another protocol is ignored (RFC 9110, 7.8).

        The parser skips the body of a request with such an offer, and takes the next bytes for the
        head of another request. So a new parser gets the same head without the offer, and then
        the bytes after it.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                head, data = self._head_without_offer(), data[stopped.args[0] :]
                self._offer = False
                self._begun -= 1
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                data = head + data
            except httptools.HttpParserCallbackError as failed:
                if not isinstance(failed.__context__, _Refused):
                    raise
                return
            except httptools.HttpParserError:
                self.send_400_response("")
                return
            else:
                return

    def _head_without_offer(self) -> bytes:
        lines = [b"%b: %b\r\n" % pair for pair in self.headers if pair[0] != b"upgrade"]
        version = self.parser.get_http_version().encode()
        first = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)
        return first + b"".join(lines) + b"\r\n"

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _find_room(self) -> bool:
        """Let a connection that serves no request give way; return whether there was one."""
        others = (each for each in self.connections if isinstance(each, HttpConnection))
        found = giving_way(self, others)
        if found is None:
            return False
        self._connections.gave_way()
        found.give_way()
        return True

    @property
    def peer(self) -> Peer:
        """The peer that holds it: see `Holding`."""
        # A trusted proxy speaks for many clients: each connection counts for itself.
        if self._connections.trusts(self.client[0] if self.client else None):
            return self
        return self._peer

    @property
    def standing(self) -> Standing:
        """What it is doing: see `Holding`."""
        if self._over or self.transport.is_closing() or self._refused:
            return Standing.BUSY
        if self.is_idle:
            return Standing.IDLE
        newest = self._newest()
        served = newest is not None and not newest.response_complete
        if self._call is None and self._awaited is _HEAD and not served:
            limit_s = self._limits.header_s
            fresh = self._timer is None or self._timer.when() - self.loop.time() > limit_s - FRESH_S
            return Standing.FRESH_HEAD if fresh else Standing.HEAD
        if self._awaited is _BODY and not self.pipeline:
            # While a request is held, the parser's newest one is that before it.
            told = self.cycle.response_started and not self._held
            return Standing.BUSY if told else Standing.BODY
        if self._disconnect is not None and self._disconnect.idle:
            return Standing.LISTENS
        return Standing.BUSY

    def give_way(self) -> None:
        """End for another client: see `Holding`."""
        if self.is_idle:
            self.transport.close()
            return
        if self.headers and self._awaited is not _NOTHING:
            cast(WriteBuffer, self.transport).write_now(self._connections.refusal())
        # Not `close`, which would wait for the rest of the request in a place that is given away.
        self.abort()

    def _overflow(self) -> None:
        """Let this connection over the limit end with its first request, or at once."""
        self._over = True
        connections = self._connections
        connections.log_full(self.loop.time())
        if len(self.connections) <= connections.most + BAND:
            self.app = cast(Any, connections.overflow)
        else:
            self.transport.write(connections.refusal())
            self.transport.close()

    def _most_bytes(self) -> int:
        """Return how many bytes a request that is under way may have on the wire."""
        most = self._limits.max_header_bytes
        if self._awaited is _BODY:
            most += _FRAMED * self._connections.max_request_bytes
        return most

    def _refuse_size(self) -> None:
        if self._refused or self.transport.is_closing():
            return
        if self._awaited is _BODY:
            # The application refuses a large body itself: here the chunks' framing is too large.
            if not self.cycle.response_started:
                limit = self._connections.max_request_bytes
                problem = f"the body with its framing is too large for --max-request-bytes {limit}"
                self._say(refuse(413, INVALID_REQUEST, problem))
            else:
                self.transport.close()
        else:
            limit = self._limits.max_header_bytes
            problem = f"the head exceeds --max-header-bytes {limit}"
            self._say(refuse(431, INVALID_REQUEST, problem))

    def _say(self, refusal: Refusal) -> None:
        """Refuse data that did not become a request, and end the connection.

        If an earlier request is unanswered, the client would take the refusal for its answer; so it
        is not sent, and the connection ends after the answers that are due.
        """
        self._connections.note(refusal, None, self.client)
        own = self._awaited is _BODY
        if own and self.pipeline:
            # The request whose body is refused is the last in the pipeline: it is not served.
            self.pipeline.popleft()
            self._due = len(self.pipeline) + 1
            self._refused = True
            self._await(_NOTHING)
            return
        newest = self._newest()
        if not own and newest is not None and not newest.response_complete:
            newest.keep_alive = False
            self._refused = True
            self._await(_NOTHING)
            return
        body = refusal_body(refusal)
        self.transport.write(
            STATUS_LINE[refusal.status]
            + b"content-type: application/json\r\nconnection: close\r\n"
            + b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()
        if own:
            # The connection may linger. The task that gathers the body would keep what came of it
            # until the connection is lost, and no account would know.
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _lingers(self) -> bool:
        """Return whether the connection ends later: the answer is sent, its request is not whole.

        If it closed with unread bytes, TCP would reset it and the client could lose the answer
        (RFC 9112, 9.6).
        """
        if self._refused or self._awaited is _NOTHING or self.headers is None:
            return False
        self._refused = True
        self._await(_NOTHING)
        self._timer = self.loop.call_later(_LINGER_S, self.transport.close)
        self.transport.write_eof()
        return True

    def _await(self, what: _Awaited) -> None:
        self._awaited = what
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, spent_s: float = 0.0) -> None:
        head = self._awaited is _HEAD
        limit_s = self._limits.header_s if head else self._limits.body_s
        if self._over:
            limit_s = min(limit_s, BAND_HEADER_S)
        self._timer = self.loop.call_later(max(0.0, limit_s - spent_s), self._cut, limit_s)

    @_guarded
    def _cut(self, limit_s: float) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        in_body = self._awaited is _BODY
        begun = in_body or self.headers is not None
        if begun and not (in_body and self.cycle.response_started):
            problem = f"the request has not arrived within {self._awaited.value} {limit_s:g} s"
            self._say(refuse(408, INVALID_REQUEST, problem))
        else:
            self.transport.close()


def protocol_with(
    limits: ArrivalLimits,
    connections: Connections,
    ending: Callable[[], bool] = lambda: False,
    fast_path: FastPath | None = None,
) -> Callable[..., asyncio.Protocol]:
    """Return what uvicorn calls to make the protocol of each connection.

    Args:
        limits: The limits on requests that arrive.
        connections: All connections of the listener.
        ending: Returns whether the process is about to end: every response then says
            `Connection: close`, so that clients connect elsewhere next.
        fast_path: Serves calls under known heads; None: all go the ordinary path.
    """
    return functools.partial(
        HttpConnection, limits=limits, connections=connections, ending=ending, fast_path=fast_path
    )
