"""What is written to clients: one JSON answer, an event stream, an error, and nothing else.

Of sse-starlette the events are taken and not the response: as shipped it runs one task for pings,
one to watch for a signal and one to wait for the end of the connection, which costs more than the
call it carries, and an open stream that says nothing would cost 5 KiB more than it does. Here one
timer serves all streams and the drain ends them.

Source: MCP 2025-03-26 to 2025-11-25, Transports; WHATWG HTML, Server-sent events.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
from starlette.types import Send

from mcpbridge.bridge.calls.stream import Reader, Stream
from mcpbridge.bridge.drain import Drain
from mcpbridge.http.request import HttpRequest
from mcpbridge.rules.event_log import LogEntry
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.mcp.admission import Refusal
from mcpbridge.wire.headers import EVENT_STREAM, JSON
from mcpbridge.wire.messages import Failure, encode

Headers = Sequence[tuple[bytes, bytes]]

SESSION_HEADER = b"mcp-session-id"
CLOSE: tuple[bytes, bytes] = (b"connection", b"close")

_JSON_TYPE = (b"content-type", JSON.encode())
_RETRY_MS = 1000
"""When a client whose connection broke should come back."""
_LEAVE_RETRY_MS = (500, 3000)
"""Clients that are sent elsewhere come back at different moments."""
_STREAM_HEADERS = (
    (b"content-type", EVENT_STREAM.encode()),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
"""The last one keeps nginx from holding events back."""
# LF alone: deployed parsers split at LF LF and see nothing in a stream of CR LF.
COMMENT = b": keep-alive\n\n"


def farewell(drain: Drain) -> Headers:
    """While the process ends, each response asks its client to connect elsewhere next."""
    return (CLOSE,) if drain.ending else ()


class HttpResponse(msgspec.Struct, frozen=True):
    """A whole answer: nothing more is to come."""

    status: int
    body: bytes = b""
    """JSON, if it is not empty."""
    headers: Headers = ()
    """Further ones than its content type and length."""

    async def finish(self, http_request: HttpRequest) -> None:
        """Send it as the response to a request."""
        await self.send(http_request.send)

    async def send(self, send: Send) -> None:
        """Send it by an ASGI server."""
        lines = [_JSON_TYPE] if self.body else []
        lines += [(b"content-length", b"%d" % len(self.body)), *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": lines})
        await send({"type": "http.response.body", "body": self.body})


def refusing(refusal: Refusal, headers: Headers = ()) -> HttpResponse:
    """Return the answer to what is not served: a JSON-RPC error with the request's id.

    Never with a session id: a deployed client adopts one from any response.
    """
    extra = [*headers]
    if refusal.allow is not None:
        extra.append((b"allow", refusal.allow.encode()))
    if refusal.retry_after_s is not None:
        extra.append((b"retry-after", b"%d" % refusal.retry_after_s))
    if refusal.challenge is not None:
        extra.append((b"www-authenticate", refusal.challenge.encode()))
    if refusal.status == 413 and CLOSE not in extra:
        # The rest of the body is not worth reading.
        extra.append(CLOSE)
    return HttpResponse(refusal.status, refusal_body(refusal), tuple(extra))


async def send_json(send: Send, status: int, body: bytes, headers: Headers = ()) -> None:
    """A whole JSON answer."""
    await HttpResponse(status, body, headers).send(send)


async def send_empty(send: Send, status: int, headers: Headers = ()) -> None:
    """A status without a body."""
    await HttpResponse(status, headers=headers).send(send)


async def send_refusal(send: Send, refusal: Refusal, headers: Headers = ()) -> None:
    """Answer what is not served; see `refusing`."""
    await refusing(refusal, headers).send(send)


def refusal_body(refusal: Refusal) -> bytes:
    """The JSON-RPC text of a refusal."""
    return encode(Failure(refusal.request_id, refusal.error))


def refusal_of(error: Unavailable, request_id: bytes | None) -> Refusal:
    """How a fault is told where the request was not admitted."""
    fault = error.fault
    return Refusal(fault.status, fault.error(), request_id, retry_after_s=fault.retry_after_s)


async def send_late_json(send: Send, reader: Reader, headers: Headers = ()) -> None:
    """A JSON answer whose head goes out now and whose body follows when it is there.

    For clients that take no event stream. White space before a JSON text means nothing, so it
    serves as the sign of life.
    """
    start = {"type": "http.response.start", "status": 200, "headers": [_JSON_TYPE, *headers]}
    await send(start)
    body = b""
    while (entries := await reader.read()) is not None:
        if entries:
            body = entries[-1].payload
        else:
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
    await send({"type": "http.response.body", "body": body})


class EventStream:
    """A stream of messages to one client, until its source or the client ends it."""

    __slots__ = ("_gone", "_greeting", "_headers", "_polled", "_reader")

    def __init__(
        self,
        reader: Reader,
        headers: Headers = (),
        greeting: bytes = b"",
        *,
        polled: bool = False,
    ) -> None:
        """Prepare a response.

        Args:
            reader: Delivers the stream.
            headers: Further headers.
            greeting: Events that come before those of the stream.
            polled: The client's revision lets the server end the connection before the stream
                and tell when to come back: a first event without data, and `retry:`.
        """
        self._reader = reader
        self._gone = False
        self._polled = polled
        self._greeting = greeting + _primer(reader.stream) if polled else greeting
        self._headers = [*_STREAM_HEADERS, *headers]

    async def serve(self, http_request: HttpRequest) -> None:
        """Send the stream as the response to a request, until it ends or its client leaves."""
        http_request.disconnect.watch(self._left)
        try:
            await self.send_all(http_request.send)
        finally:
            http_request.disconnect.ignore()

    async def send_all(self, send: Send) -> None:
        """Send the stream to its end; the caller sees to the client's leaving."""
        reader = self._reader
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        if self._greeting:
            await send({"type": "http.response.body", "body": self._greeting, "more_body": True})
        more = True
        while more and (entries := await reader.read()) is not None:
            if self._gone:
                return
            chunk = _events(reader.stream, entries) if entries else COMMENT
            more = not reader.over
            # A client that takes nothing is cut by the connection, which makes this return.
            await send({"type": "http.response.body", "body": chunk, "more_body": more})
        if more and not self._gone:
            await send({"type": "http.response.body", "body": self._parting()})

    def _parting(self) -> bytes:
        """What is said last to a client whose connection ends before the stream."""
        if not self._polled or not self._reader.leaving:
            return b""
        retry_ms = random.randint(*_LEAVE_RETRY_MS)  # nosec B311 # spreads load, hides nothing
        # With it comes a framework; the start does without, and most streams do.
        from sse_starlette.event import ServerSentEvent

        return ServerSentEvent(retry=retry_ms, sep="\n").encode()

    def _left(self) -> None:
        # What is sent to a client that has left goes nowhere: take no more from its stream.
        self._gone = True
        self._reader.leave()


def _primer(stream: Stream) -> bytes:
    """An event without data, so that a client has an id to come back with."""
    prefix = stream.id_prefix
    if prefix is None:
        return b""
    return b"id: %b%d\ndata: \nretry: %d\n\n" % (prefix, stream.delivered, _RETRY_MS)


def _events(stream: Stream, entries: Sequence[LogEntry]) -> bytes:
    # ServerSentEvent would look for line ends in payloads, which cannot have any.
    prefix = stream.id_prefix
    if prefix is None:
        return b"".join(b"event: message\ndata: %b\n\n" % e.payload for e in entries)
    return b"".join(
        b"id: %b%d\nevent: message\ndata: %b\n\n" % (prefix, e.number, e.payload) for e in entries
    )
