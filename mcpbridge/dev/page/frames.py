"""`GET /ui/frames`: what passes to and from servers, as an event stream.

    GET /ui/frames
    Authorization: Bearer TOKEN

    event: start
    data: {"format":1,"version":"0.1.0","run":"5f0c9a1e"}

    event: frame
    id: 5f0c9a1e-7
    data: {"session_id":"5f0c-1","server_label":"demo","seq":7,"ts":"2026-11-29T12:00:00.000000Z",
           "direction":"c2s","transport":"stdio","raw":{"jsonrpc":"2.0", ...}}

    event: lost
    data: {"frames":12}

(The data of an event are one line.) The token is the fragment of the address that `mcpbridge dev`
prints: `http://127.0.0.1:8000/ui#token=TOKEN`.

- The data of `frame` are a line of a recording: docs/recording.md has the members. Each message
  comes once in each direction on a child's pipe, so its id is the bridge's own; a message of more
  than 256 KiB has `text`, its beginning, and its size in `mcpbridge.size` in place of `raw`.
- First come the frames that are kept, at most 10,000 and 32 MiB, then each one as it passes.
- `lost`: the number of frames before the next one that left the ring before they were sent.
- `Last-Event-ID: 5f0c9a1e-7` goes on after that frame if the process is still the same one.
- Secrets are removed as in a recording; `GET /ui/frames?raw=1` keeps them. `?follow=0` ends the
  stream after the frames that are kept.
- A comment is sent after each 15 s without a frame. The stream ends when mcpbridge does.
- A fifth reader gets 503, a wrong token 401, a page of another origin 403.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import parse_qs

import anyio
import msgspec
from anyio import to_thread

from mcpbridge import __version__
from mcpbridge.http.request import HttpRequest
from mcpbridge.http.responses import COMMENT, refusing
from mcpbridge.rules.faults import INTERNAL_ERROR
from mcpbridge.rules.mcp.admission import refuse
from mcpbridge.tape.recording import FORMAT, line_of, redacted
from mcpbridge.tape.ring import Read, Ring, RingReader, TooManyReaders
from mcpbridge.wire.headers import EVENT_STREAM

FRAMES_PATH = "/ui/frames"
_HEADERS = (
    (b"content-type", EVENT_STREAM.encode()),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-accel-buffering", b"no"),
)
_COMMENT_EVERY_S = 15.0
_LOOK_S = 0.25
"""Seconds after which a reader without frames looks whether the process ends."""
_BODY_BYTES = 1 << 17
"""Most bytes that are sent at once; a single frame may be longer."""
_RETRY_AFTER_S = 5


class FrameStream:
    """The event stream of all readers."""

    def __init__(self, ring: Ring, run: str, over: Callable[[], bool]) -> None:
        """Make it.

        Args:
            ring: Keeps the frames.
            run: Names this run of the process, in the ids of events.
            over: Returns whether all servers have ended, so that no frame comes.
        """
        self._ring = ring
        self._run = run
        self._over = over

    async def serve(self, http_request: HttpRequest) -> None:
        """Send frames until the client leaves, or the process ends."""
        try:
            reader = self._ring.reader(self._position(http_request.head.get(b"last-event-id")))
        except TooManyReaders as error:
            refusal = refuse(503, INTERNAL_ERROR, str(error))
            refusal = msgspec.structs.replace(refusal, retry_after_s=_RETRY_AFTER_S)
            await refusing(refusal).finish(http_request)
            return
        query = parse_qs(http_request.scope.get("query_string", b"").decode("latin-1"))
        with anyio.CancelScope() as connected:
            http_request.disconnect.watch(connected.cancel)
            try:
                raw, follows = query.get("raw") == ["1"], query.get("follow") != ["0"]
                await self._send_all(http_request, reader, raw=raw, follows=follows)
            finally:
                http_request.disconnect.ignore()
                reader.close()

    def _position(self, event_id: str | None) -> int:
        """Return where a reader goes on that has this event; 0 if it is not of this process."""
        run, _, number = (event_id or "").partition("-")
        return int(number) if run == self._run and number.isdecimal() and len(number) < 16 else 0

    async def _send_all(
        self, http_request: HttpRequest, reader: RingReader, *, raw: bool, follows: bool
    ) -> None:
        send = http_request.send
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        facts = {"format": FORMAT, "version": __version__, "run": self._run}
        body = b"event: start\ndata: %b\n\n" % msgspec.json.encode(facts)
        await send({"type": "http.response.body", "body": body, "more_body": True})
        sent_at = time.monotonic()
        while follows or not reader.at_end:
            read: Read | None = None
            with anyio.move_on_after(_LOOK_S):
                read = await reader.read()
            if read is None and self._over():
                break
            bodies = await self._bodies(read, raw=raw) if read is not None else ()
            if not bodies and time.monotonic() - sent_at >= _COMMENT_EVERY_S:
                bodies = [COMMENT]
            for body in bodies:
                sent_at = time.monotonic()
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _bodies(self, read: Read, *, raw: bool) -> Sequence[bytes]:
        if raw:
            return self._encoded(read, raw=True)
        # In a thread: to find secrets in a long message takes longer than a turn may.
        return await to_thread.run_sync(lambda: self._encoded(read, raw=False))

    def _encoded(self, read: Read, *, raw: bool) -> Sequence[bytes]:
        return list(_joined(self._events(read, raw=raw)))

    def _events(self, read: Read, *, raw: bool) -> Iterator[bytes]:
        if read.lost:
            yield b'event: lost\ndata: {"frames":%d}\n\n' % read.lost
        pairs = zip(read.frames, read.redactors, strict=True)
        for number, (frame, redactor) in enumerate(pairs, read.position + 1):
            line = line_of(redacted(frame, None if raw else redactor))
            yield b"event: frame\nid: %b-%d\ndata: %b\n" % (self._run.encode(), number, line)


def _joined(events: Iterator[bytes]) -> Iterator[bytes]:
    """Join events to bodies of a bounded size."""
    waiting: list[bytes] = []
    size = 0
    for event in events:
        if waiting and size + len(event) > _BODY_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
        waiting.append(event)
        size += len(event)
    if waiting:
        yield b"".join(waiting)
