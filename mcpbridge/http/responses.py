"""What is written to clients: one JSON answer, an event stream, an error, and nothing else.

Of sse-starlette the events are taken and not the response: as shipped it runs one task for pings,
one to watch for a signal and one to wait for the end of the connection, which costs more than the
call it carries, and an open stream that says nothing would cost 5 KiB more than it does. Here one
timer serves all streams and the drain ends them.

Source: MCP 2025-03-26 to 2025-11-25, Transports; WHATWG HTML, Server-sent events.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable

from sse_starlette.event import ServerSentEvent
from starlette.types import Receive, Scope, Send

from mcpbridge.bridge.drain import Drain
from mcpbridge.bridge.stream import Reader, Stream
from mcpbridge.errors import Unavailable
from mcpbridge.rules.admission import Refusal
from mcpbridge.rules.eventlog import Entry
from mcpbridge.wire.headers import EVENT_STREAM, JSON
from mcpbridge.wire.messages import Failure, encode

Headers = Iterable[tuple[bytes, bytes]]

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
_COMMENT = ServerSentEvent(comment="keep-alive").encode()


def farewell(drain: Drain) -> Headers:
    """While the process ends, each response asks its client to connect elsewhere next."""
    return (CLOSE,) if drain.ending else ()


async def send_json(send: Send, status: int, body: bytes, headers: Headers = ()) -> None:
    """A whole JSON answer."""
    length = (b"content-length", b"%d" % len(body))
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [_JSON_TYPE, length, *headers],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})


async def send_empty(send: Send, status: int, headers: Headers = ()) -> None:
    """A status without a body."""
    length = (b"content-length", b"0")
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": b""})


async def send_refusal(send: Send, refusal: Refusal, headers: Headers = ()) -> None:
    """An error before anything was served: status, and a JSON-RPC error with the request's id.

    Never with a session id: a deployed client adopts one from any response.
    """
    extra = [*headers]
    if refusal.allow is not None:
        extra.append((b"allow", refusal.allow.encode()))
    if refusal.retry_after_s is not None:
        extra.append((b"retry-after", b"%d" % refusal.retry_after_s))
    if refusal.challenge is not None:
        extra.append((b"www-authenticate", refusal.challenge.encode()))
    if refusal.status == 413:
        # The rest of the body is not worth reading.
        extra.append(CLOSE)
    await send_json(send, refusal.status, refusal_body(refusal), extra)


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

    __slots__ = ("_chunks", "_gone", "_headers", "_reader")

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
        self._chunks = _events(reader, greeting, polled)
        self._headers = [*_STREAM_HEADERS, *headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; two tasks, this one and one that waits for the client to leave."""
        # No task group: with its scopes it is 3 of the 20 KiB that an idle stream may cost, and
        # the one task in it neither fails nor outlives this.
        leaving = asyncio.create_task(self._until_gone(receive))
        try:
            await self.send_all(send)
        finally:
            leaving.cancel()

    async def send_all(self, send: Send) -> None:
        """Send the stream to its end; the caller sees to the client's leaving."""
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        async for chunk in self._chunks:
            if self._gone:
                return
            # A client that takes nothing is cut by the connection, which makes this return.
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if not self._gone:
            await send({"type": "http.response.body", "body": b""})

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        # What is sent to a client that has left goes nowhere: take no more from its stream.
        self._gone = True
        self._reader.leave()


async def _events(reader: Reader, greeting: bytes, polled: bool) -> AsyncIterator[bytes]:
    if greeting:
        yield greeting
    stream = reader.stream
    beginning = stream.event_id(stream.delivered)
    if polled and beginning is not None:
        yield ServerSentEvent(data="", id=str(beginning), retry=_RETRY_MS).encode()
    while (entries := await reader.read()) is not None:
        yield b"".join(_event(stream, entry) for entry in entries) if entries else _COMMENT
    if polled and reader.leaving:
        retry_ms = random.randint(*_LEAVE_RETRY_MS)  # nosec B311 # spreads load, hides nothing
        yield ServerSentEvent(retry=retry_ms).encode()


def _event(stream: Stream, entry: Entry) -> bytes:
    # ServerSentEvent would look for line ends in payloads, which cannot have any.
    event_id = stream.event_id(entry.number)
    named = b"id: %b\r\n" % str(event_id).encode() if event_id is not None else b""
    return b"%bevent: message\r\ndata: %b\r\n\r\n" % (named, entry.payload)
