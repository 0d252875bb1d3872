"""The responses to clients: a JSON answer, an event stream, or an error.

sse-starlette writes the event without a message: `retry`, when a stream ends early. Its response
runs one task for pings, one to watch for a signal and one to wait for the end of the connection:
they cost more than the call, and 5 KiB for each idle stream. Here one timer serves all streams and
the drain ends them.

Source: MCP 2025-03-26 to 2025-11-25, Transports; WHATWG HTML, Server-sent events.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterator, Sequence

import msgspec
from starlette.types import Send

from mcpbridge.bridge.calls.stream import Reader
from mcpbridge.http.request import HttpRequest
from mcpbridge.rules.event_log import LogEntry
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.mcp.admission import Refusal
from mcpbridge.wire.headers import EVENT_STREAM, JSON
from mcpbridge.wire.messages import Failure, Reply, Text, encode, parts_of, pieces

Headers = Sequence[tuple[bytes, bytes]]
Parts = Sequence[bytes | memoryview]

SESSION_HEADER = b"mcp-session-id"
CLOSE: tuple[bytes, bytes] = (b"connection", b"close")

_JSON_TYPE = (b"content-type", JSON.encode())
_RETRY_MS = 1000
"""Milliseconds after which a client whose connection broke should reconnect."""
_LEAVE_RETRY_MS = (500, 3000)
"""Milliseconds, from and to, after which clients whose connection the bridge ends reconnect."""
_STREAM_HEADERS = (
    (b"content-type", EVENT_STREAM.encode()),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
"""The last header keeps nginx from buffering events."""
SLICE_BYTES = 1 << 20
"""Longer bodies are sent in slices of this size, each in a turn of the loop: a copy of 16 MB takes
8 ms, and every layer below makes one of what it is given at once."""
# LF alone: deployed parsers split at LF LF and find no event in a stream with CR LF.
COMMENT = b": keep-alive\n\n"


class HttpResponse(msgspec.Struct, frozen=True):
    """A whole response."""

    status: int
    body: bytes = b""
    """JSON; empty for no body."""
    headers: Headers = ()
    """Headers other than content type and length."""
    refusal: Refusal | None = None
    """The refusal that it answers with; None for another response."""

    async def finish(self, http_request: HttpRequest) -> None:
        """Send this response to a request."""
        if self.refusal is not None:
            http_request.refused(self.refusal)
        await self.send(http_request.send)

    async def send(self, send: Send) -> None:
        """Send this response through an ASGI server."""
        lines = [_JSON_TYPE] if self.body else []
        lines += [(b"content-length", b"%d" % len(self.body)), *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": lines})
        await send({"type": "http.response.body", "body": self.body})


def refusing(refusal: Refusal, headers: Headers = ()) -> HttpResponse:
    """Return the response of a refusal: a JSON-RPC error with the request's id.

    It has no session id, because a deployed client adopts one from any response.
    """
    extra = [*headers]
    if refusal.allow is not None:
        extra.append((b"allow", refusal.allow.encode()))
    if refusal.retry_after_s is not None:
        extra.append((b"retry-after", b"%d" % refusal.retry_after_s))
    if refusal.challenge is not None:
        extra.append((b"www-authenticate", refusal.challenge.encode()))
    if refusal.status == 413 and CLOSE not in extra:
        # The rest of the body is not read, so the connection must end.
        extra.append(CLOSE)
    return HttpResponse(refusal.status, refusal_body(refusal), tuple(extra), refusal)


def send_json(send: Send, status: int, body: bytes, headers: Headers = ()) -> Awaitable[None]:
    """Send a whole JSON response; not a coroutine, since each answer would pay for one more."""
    return HttpResponse(status, body, headers).send(send)


async def send_replies(
    http_request: HttpRequest,
    status: int,
    replies: Sequence[Reply],
    headers: Headers = (),
    *,
    batch: bool = False,
) -> None:
    """Send one answer, or those of a batch, as JSON; long ones are not copied into one text.

    Long ones are charged to the connection until the client has read most of them.
    """
    parts: Sequence[bytes]
    if batch:
        every = [piece for reply in replies for piece in (b",", *pieces(reply))]
        parts = [b"[", *every[1:], b"]"]
    else:
        parts = pieces(replies[0])
    length = sum(map(len, parts))
    send = http_request.send
    if length <= SLICE_BYTES:
        await send_json(send, status, b"".join(parts), headers)
        return
    unsent = http_request.unsent
    lines = [_JSON_TYPE, (b"content-length", b"%d" % length), *headers]
    unsent.charge(length)
    try:
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await _send_body(send, parts, more=False)
    finally:
        unsent.charge(-length)


async def _send_body(send: Send, parts: Parts, *, more: bool) -> None:
    """Send the next part of a body, slice by slice if it is long.

    Args:
        send: The ASGI callable, which waits while the client reads too slowly.
        parts: The text, in order.
        more: Whether the body goes on after it.
    """
    if sum(map(len, parts)) <= SLICE_BYTES:
        body = b"".join(parts)
    else:
        body = b""
        for piece in _slices(parts):
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
                await asyncio.sleep(0)  # a fast client lets `send` return at once, again and again
            body = piece
    await send({"type": "http.response.body", "body": body, "more_body": more})


def _slices(parts: Parts) -> Iterator[bytes]:
    """Split a text into slices; short parts are joined."""
    short: list[bytes | memoryview] = []
    for part in parts:
        if len(part) < SLICE_BYTES:
            short.append(part)
            continue
        if short:
            yield b"".join(short)
            short = []
        for start in range(0, len(part), SLICE_BYTES):
            yield bytes(part[start : start + SLICE_BYTES])
    if short:
        yield b"".join(short)


async def send_empty(send: Send, status: int, headers: Headers = ()) -> None:
    """Send a response without a body."""
    await HttpResponse(status, headers=headers).send(send)


async def send_refusal(send: Send, refusal: Refusal, headers: Headers = ()) -> None:
    """Send the response of a refusal; see `refusing`."""
    await refusing(refusal, headers).send(send)


def refusal_body(refusal: Refusal) -> bytes:
    """Return the JSON-RPC error of a refusal."""
    return encode(Failure(refusal.request_id, refusal.error))


def refusal_of(error: Unavailable, request_id: bytes | None) -> Refusal:
    """Return the refusal of a request that could not be admitted because of a fault."""
    fault = error.fault
    return Refusal(
        fault.status,
        fault.error(),
        request_id,
        retry_after_s=fault.retry_after_s,
        reason=fault.reason,
    )


async def send_late_json(send: Send, reader: Reader, headers: Headers = ()) -> None:
    """Send the head of a JSON response now and its body when the answer has come.

    For clients that take no event stream. White space before JSON has no meaning, so it serves as
    keepalive.
    """
    start = {"type": "http.response.start", "status": 200, "headers": [_JSON_TYPE, *headers]}
    await send(start)
    body: Text = b""
    while (entries := await reader.read()) is not None:
        if entries:
            body = entries[-1].payload
        else:
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
    await _send_body(send, parts_of(body), more=False)


class EventStream:
    """A response that is a stream of messages, until its source or the client ends it."""

    __slots__ = ("_gone", "_headers", "_polled", "_preamble", "_prefix", "_reader")

    def __init__(
        self,
        reader: Reader,
        headers: Headers = (),
        preamble: bytes = b"",
        *,
        polled: bool = False,
    ) -> None:
        """Make a response; `serve` or `send_all` sends it.

        Args:
            reader: Delivers the stream.
            headers: Headers in addition to those of an event stream.
            preamble: Events that are sent before those of the stream.
            polled: Whether the client's revision lets the server end the connection before the
                stream does and say when to reconnect: a first event without data, and `retry:`.
        """
        self._reader = reader
        self._gone = False
        self._polled = polled
        self._prefix = reader.stream.id_prefix
        if polled and self._prefix is not None:
            preamble += _primer(self._prefix, reader.stream.delivered)
        self._preamble = preamble
        self._headers = [*_STREAM_HEADERS, *headers]

    async def serve(self, http_request: HttpRequest) -> None:
        """Send the stream as the response to a request, until it ends or its client disconnects."""
        http_request.disconnect.watch(self._left)
        try:
            await self.send_all(http_request.send)
        finally:
            http_request.disconnect.ignore()

    async def send_all(self, send: Send) -> None:
        """Send the stream to its end; the caller handles a client that disconnects."""
        reader, preamble = self._reader, self._preamble
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        # Together with the first events if they are there: each event of ASGI has its price.
        if preamble and not reader.waiting:
            await send({"type": "http.response.body", "body": preamble, "more_body": True})
            preamble = b""
        more = True
        while more and (entries := await reader.read()) is not None:
            if self._gone:
                return
            parts = _events(self._prefix, entries) if entries else [COMMENT]
            if preamble:
                parts, preamble = [preamble, *parts], b""
            more = not reader.over
            # If the client reads nothing, the connection is cut, which makes this return.
            await _send_body(send, parts, more=more)
        if more and not self._gone:
            await send({"type": "http.response.body", "body": preamble + self._reconnect_hint()})

    def _reconnect_hint(self) -> bytes:
        """Return the last bytes for a client whose connection ends before the stream."""
        if not self._polled or not self._reader.leaving:
            return b""
        retry_ms = random.randint(*_LEAVE_RETRY_MS)  # nosec B311 # spreads load, hides nothing
        # Imported at first use, since it loads a framework that most streams do not need.
        from sse_starlette.event import ServerSentEvent

        return ServerSentEvent(retry=retry_ms, sep="\n").encode()

    def _left(self) -> None:
        # Take no more from the stream: the client could not receive it, and may resume.
        self._gone = True
        self._reader.leave()


def _primer(prefix: bytes, delivered: int) -> bytes:
    """Return an event without data, which gives the client an id to resume from."""
    return b"id: %b%d\ndata: \nretry: %d\n\n" % (prefix, delivered, _RETRY_MS)


def _events(prefix: bytes | None, entries: Sequence[LogEntry]) -> Parts:
    """Return the text of events in parts, so that a long payload is not copied here."""
    # Not ServerSentEvent, which searches payloads for line ends: encoded JSON has none.
    parts: list[bytes | memoryview] = []
    for entry in entries:
        if prefix is not None:
            parts.append(b"id: %b%d\n" % (prefix, entry.number))
        parts += (b"event: message\ndata: ", *parts_of(entry.payload), b"\n\n")
    return parts
