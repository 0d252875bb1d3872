"""HTTP/1.1 to other replicas: kept connections, responses as they come, and back-pressure.

Every forwarded call pays for this client, so it is the parser, a transport and one future: httpx
takes eleven times as many instructions.

What a failure says of the request is told apart, since a tool call must not be executed twice:
`Unreachable` means that nothing was sent, `Lost` that it may have been executed. A connection that
is kept here for less than the other replica keeps it does not close while it is used again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import cast

import httptools

from mcpbridge.channels.sockets import detect_loss
from mcpbridge.replicas.session_id import Replica
from mcpbridge.wire.headers import EVENT_STREAM

CONNECT_S = 1.0
_ATTEMPTS = 2
"""If this process had no processor for that time, the first attempt ends though it succeeded."""
IDLE_S = 30.0
"""Longest time that a connection is kept without a request; the peer port closes it later."""
MAX_IDLE = 64
"""Most connections that are kept for one replica."""
BUFFER_BYTES = 64 << 10
"""Bytes of a response that wait for their reader, from which on no more is read."""

_KEEPALIVE_S, _INTERVAL_S, _PROBES = 4, 2, 3
_UNACKNOWLEDGED_S = 8.0
"""A replica whose cable is pulled is given up after this time; by default it takes 15 minutes."""
_STREAM = EVENT_STREAM.encode()
_LOOKED_AT = 8
"""Kept connections among which one with the same use is sought."""

Headers = list[tuple[bytes, bytes]]


class PeerFailure(Exception):
    """Another replica has not answered."""


class Unreachable(PeerFailure):
    """Nothing was sent: no connection could be made."""

    def __init__(self, why: str, *, refused: bool = False) -> None:
        super().__init__(why)
        self.refused = refused
        """Whether its machine answers, and no process listens there."""


class Lost(PeerFailure):
    """The connection ended before the end of the response: the request may have been executed."""


class PeerConnection(asyncio.Protocol):
    """One connection to another replica, with one request at a time."""

    __slots__ = (
        "_asked",
        "_buffered",
        "_chunks",
        "_closing",
        "_idle",
        "_loop",
        "_lost",
        "_parser",
        "_paused",
        "_transport",
        "_waiter",
        "complete",
        "has_head",
        "headers",
        "idle_since",
        "is_stream",
        "status",
        "use",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, idle: list[PeerConnection]) -> None:
        """Make a protocol.

        Args:
            loop: The event loop.
            idle: The kept connections to the same replica, which it leaves when it ends.
        """
        self._loop = loop
        self._idle = idle
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._chunks: list[bytes] | None = None
        """Parts of the body that wait for the reader; None costs an idle stream nothing."""
        self._buffered = 0
        self._paused = False
        self._lost = False
        self._closing = False
        self._asked = False
        self.status = 0
        self.headers: Headers | None = None
        self.has_head = False
        self.complete = False
        """Whether the whole response has been read."""
        self.is_stream = False
        """Whether the response is an event stream."""
        self.idle_since = 0.0
        self.use = b""
        """What it was used for last."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # Not an instance of it under uvloop.
        self._transport = cast(asyncio.Transport, transport)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            detect_loss(connected, _KEEPALIVE_S, _INTERVAL_S, _PROBES, _UNACKNOWLEDGED_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end, and wake what waits for data."""
        self._lost = True
        with suppress(ValueError):
            self._idle.remove(self)
        self._wake()

    def data_received(self, data: bytes) -> None:
        """Parse a part of a response."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.abort()
        else:
            self._wake()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header from the parser."""
        if self.headers is None:
            self.headers = []
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Take the end of the head from the parser.

        Raises:
            Lost: It was not asked for. The parser stops: its body must not join that of the last.
        """
        if not self._asked:
            raise Lost("a response came without a request")
        status = self._parser.get_status_code()
        if status < 200:
            self.headers = None
            return
        self.status, self.has_head = status, True
        self._closing = not self._parser.should_keep_alive()
        kinds = [value for name, value in self.headers or () if name == b"content-type"]
        self.is_stream = any(kind.startswith(_STREAM) for kind in kinds)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body from the parser."""
        if self._chunks is None:
            self._chunks = [body]
        else:
            self._chunks.append(body)
        self._buffered += len(body)
        if self._buffered > BUFFER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Take the end of the response from the parser."""
        # An informational response ends too, and the response itself follows.
        self.complete = self.has_head
        self._asked = not self.complete

    def begin(self, request: bytes, use: bytes = b"") -> None:
        """Send a request; `use` says what it is for. `has_head` tells that its response began."""
        assert self._transport is not None
        self.status, self.headers, self.has_head, self.complete = 0, None, False, False
        self._asked, self.use = True, use
        self._transport.write(request)

    def news(self) -> asyncio.Future[None]:
        """Return a future that is done when there is more of the response, or its end.

        No coroutine, of which an idle stream would keep the frame.

        Raises:
            Lost: The connection has ended.
        """
        if self._lost:
            raise Lost("the connection to the replica ended")
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def take_headers(self) -> Headers:
        """Return the headers of the response, which are not kept here any more."""
        headers, self.headers = self.headers, None
        return headers or []

    def take(self) -> bytes:
        """Return what there is of the body; empty if there is nothing new."""
        chunks = self._chunks
        if chunks is None:
            return b""
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks, self._buffered = None, 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return body

    @property
    def begun(self) -> bool:
        """Whether the head of the response has come, and with it some of its body, or its end."""
        return self.has_head and (self._chunks is not None or self.complete)

    @property
    def at_end(self) -> bool:
        """Whether all of the response has been read from here."""
        return self.complete and self._chunks is None

    @property
    def reusable(self) -> bool:
        """Whether it can take another request."""
        if self._lost or self._closing or self._transport is None:
            return False
        return self.at_end and not self._transport.is_closing()

    def rest(self) -> None:
        """Note that it is kept without a request from now on."""
        self.idle_since = self._loop.time()

    def is_fit(self, now: float) -> bool:
        """Return whether a kept connection may be used again at `now`."""
        usable = self._transport is not None and not self._transport.is_closing()
        return usable and not self._lost and now - self.idle_since < IDLE_S

    def abort(self) -> None:
        """End it at once: the other replica sees that its client has left."""
        self._lost = True
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class PeerClient:
    """The connections of one replica to all others."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[PeerConnection]] = {}

    async def connection(self, target: Replica, use: bytes) -> PeerConnection:
        """Return a connection without a request: a kept one, or a new one.

        Args:
            target: The replica.
            use: What it is for. One that was last used for the same is preferred: the replica knows
                the head of its requests.

        Raises:
            Unreachable: There is none and none can be made.
        """
        loop = asyncio.get_running_loop()
        address = (target.host, target.port)
        idle = self._idle.setdefault(address, [])
        found = _fit(idle, use, loop.time())
        if found is None:
            found = await _connected(loop, address, idle)
        return found

    def release(self, connection: PeerConnection, target: Replica) -> None:
        """Keep a connection whose response has been read; end any other."""
        idle = self._idle.setdefault((target.host, target.port), [])
        if connection.reusable and len(idle) < MAX_IDLE:
            connection.rest()
            idle.append(connection)
        else:
            connection.abort()

    def close(self) -> None:
        """End all kept connections."""
        for idle in self._idle.values():
            for connection in list(idle):
                connection.abort()
            idle.clear()


def _fit(idle: list[PeerConnection], use: bytes, now: float) -> PeerConnection | None:
    """Take a kept connection, the newest or one with the same use; end those that are too old."""
    while idle and not idle[0].is_fit(now):
        idle.pop(0).abort()
    for found in reversed(idle[-_LOOKED_AT:]):
        if found.use == use:
            idle.remove(found)
            break
    else:
        if not idle:
            return None
        found = idle.pop()
    if found.is_fit(now):
        return found
    found.abort()
    return _fit(idle, use, now)


async def _connected(
    loop: asyncio.AbstractEventLoop, address: tuple[str, int], idle: list[PeerConnection]
) -> PeerConnection:
    for _ in range(_ATTEMPTS):
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: PeerConnection(loop, idle), *address
                )
        except ConnectionRefusedError as error:
            raise Unreachable("connection refused", refused=True) from error
        except TimeoutError:
            continue
        except OSError as error:
            raise Unreachable(error.strerror or type(error).__name__) from error
        return connection
    raise Unreachable(f"no connection in {_ATTEMPTS} attempts of {CONNECT_S:g} s")
