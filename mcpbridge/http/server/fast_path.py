"""The fast path: a POST under a known head is handled without parser, ASGI scope or task.

The heads that a client sends on one connection differ only in the digits of Content-Length. The
parser and the rules would decide the same for the same bytes, so they run once for each such head.
A call whose only event is its answer needs no task, no event queue and no timer: the code that
receives the answer from the child writes it to the connection.

Some clients (httpx, and so the official Python SDK) send the head and the body of a request apart.
A connection holds what comes under a known head for a moment, until the rest can be read with it.

It decides nothing about the request: `StreamableHttp.handle` does, on both paths. If a call has
more than one answer (a stream, a wait longer than `--json-window`, a second request before the
answer, the end of the process), it goes on as an ASGI request, with the call that has begun. So
does, from the start, a call whose client takes nothing but an event stream.
Measured with `benchmarks/throughput.py`: about half of the processor time of a call.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from typing import Any, Protocol

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.channels.off_loop import LONG_BYTES
from mcpbridge.http.body import TRACEPARENT, BodyLimits
from mcpbridge.http.request import HEAD, RequestHead, StartedCall
from mcpbridge.http.responses import SLICE_BYTES, HttpResponse
from mcpbridge.rules.access.hosts import HostRules, readable_by
from mcpbridge.telemetry.metrics import HttpMeter
from mcpbridge.wire.messages import Result, encode

MAX_HEAD_BYTES = 4096
"""Longest head that is remembered, which costs memory for each connection."""
MAX_KNOWN = 4
"""Most heads remembered for a connection: a client of 2026-07-28 names the tool in the head."""

_STRANGE = 2 * MAX_KNOWN
"""After this number of unknown heads in a row, only one in as many is remembered: if a proxy sends
many clients' requests on one connection, the next request has another head."""
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,7})(?=\r\n)", re.IGNORECASE)
_MAX_DIGITS = 7
_KEPT = ("method", "path", "raw_path", "query_string", "headers")
"""Members of a scope that depend on the head alone; others would keep their request in memory."""
_NOT_PLAIN = (b"transfer-encoding", b"expect", b"upgrade")

CutHead = tuple[bytes, bytes]
"""A head before and after the digits of its Content-Length."""


class KnownHead(msgspec.Struct, frozen=True):
    """A head that has passed every rule on heads, cut at the digits of its Content-Length."""

    before: bytes
    after: bytes
    head: RequestHead
    scope: dict[str, Any]
    """The members of the ASGI scope that are the same for all of its requests."""

    def body_of(self, data: bytes) -> tuple[bytes, int] | None:
        """Return what the data hold of the body, and how many bytes of it are still to come.

        None if they do not begin with this head, whole, or go on behind the body.
        """
        # Slices are compared: `startswith` takes three times as many instructions.
        start = len(self.before)
        if data[:start] != self.before:
            return None
        digits, mark, _ = data[start : start + _MAX_DIGITS + 1].partition(b"\r")
        end = start + len(digits)
        behind = end + len(self.after)
        if not mark or data[end:behind] != self.after:
            return None
        if not digits.isdigit():
            return None
        # What is behind the body is another request, which the parser must see.
        body = data[behind:]
        missing = int(digits) - len(body)
        return (body, missing) if missing >= 0 else None


class PostHandler(Protocol):
    """A handler of POSTs to the MCP path; see `http.app.PostHandling.handle`."""

    def handle(self, head: RequestHead, body: bytes) -> StartedCall | HttpResponse | None:
        """Handle a POST whose head has passed the rules; None: it must go the ordinary path."""


class FastPath:
    """A fast path for the POSTs of all connections of one listener."""

    def __init__(
        self,
        handler: PostHandler,
        limits: BodyLimits,
        rules: HostRules,
        window_s: float,
        meter: HttpMeter | None = None,
    ) -> None:
        """Make a fast path.

        Args:
            handler: Handles POSTs.
            limits: The limits on bodies.
            rules: Say which web pages may read answers: those answers need CORS headers.
            window_s: Seconds after which an answer is an event stream.
            meter: Counts what is answered on the fast path.
        """
        self.meter = meter or HttpMeter()
        self._handler = handler
        self.max_bytes = min(limits.max_bytes, LONG_BYTES - 1)
        """Size of the largest body: a longer one is read in a thread, which cannot be awaited."""
        self._rules = rules
        self.window_s = window_s
        self._headers: Sequence[tuple[bytes, bytes]] = ()
        self._heads: dict[tuple[int, bool], bytes] = {}
        """Heads of responses with these headers."""

    def cut(self, data: bytes) -> tuple[CutHead, int] | None:
        """Return the head in the data of one request, and the bytes of it that are still to come.

        None if the head is not worth remembering.

        Args:
            data: What was read at once, beginning with the request's first byte.
        """
        if self.window_s <= 0:
            return None
        length = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) + 4
        found = _LENGTH.search(data, 0, length)
        if found is None:
            return None
        missing = length + int(found[1]) - len(data)
        if missing < 0:
            return None
        return (data[: found.start(1)], data[found.end(1) : length]), missing

    def known(self, cut: CutHead, scope: MutableMapping[str, Any]) -> KnownHead | None:
        """Return what to remember of a request that was served; None if its head must not be used.

        Args:
            cut: The head of the request.
            scope: The ASGI scope that the parser and the application made of it.
        """
        head: RequestHead | None = scope.get(HEAD)
        if head is None:
            return None
        # Each request has another trace: such a head would not come again.
        if TRACEPARENT in head.values or any(name in head.values for name in _NOT_PLAIN):
            return None
        origin = head.get(b"origin")
        if origin is not None and readable_by(origin, self._rules) is not None:
            return None
        return KnownHead(*cut, head, {name: scope[name] for name in _KEPT})

    def handle(self, known: KnownHead, body: bytes) -> StartedCall | HttpResponse | None:
        """Handle a POST; None: it was not touched and must go the ordinary path.

        Args:
            known: Its head.
            body: Its body, of at most `max_bytes`.
        """
        return self._handler.handle(known.head, body)

    def head_of(self, status: int, headers: Sequence[tuple[bytes, bytes]], has_body: bool) -> bytes:
        """Return the head of a response, up to the digits of its Content-Length.

        Args:
            status: Its status.
            headers: Those of every response; uvicorn makes new ones each second.
            has_body: It is JSON.
        """
        if headers is not self._headers:
            self._headers, self._heads = headers, {}
        head = self._heads.get((status, has_body))
        if head is None:
            lines = b"".join(b"%b: %b\r\n" % header for header in headers)
            kind = b"content-type: application/json\r\n" if has_body else b""
            head = b"%b%b%bcontent-length: " % (STATUS_LINE[status], lines, kind)
            self._heads[status, has_body] = head
        return head

    def answer_of(self, exchange: Exchange) -> bytes | None:
        """Return the body of a plain 200 for a call; None if it needs another response."""
        reply = exchange.reply
        # The transport decides the status of a failure; and it sends a long answer in slices.
        if not isinstance(reply, Result) or len(reply.result) > SLICE_BYTES:
            return None
        return encode(reply) if exchange.stream is None else None


class Heads:
    """The heads that are remembered for one connection."""

    __slots__ = ("_fast_path", "_fresh", "_known", "_missing", "_strange")

    def __init__(self, fast_path: FastPath) -> None:
        self._fast_path = fast_path
        self._known: tuple[KnownHead, ...] = ()
        """Known heads, the newest first."""
        self._fresh: CutHead | None = None
        """The head of the request that is being answered, if it is unknown; else None."""
        self._missing = 0
        """Bytes of that request that are still to come; negative if more have come."""
        self._strange = 0
        """Number of unknown heads since the last known one."""

    def find(self, data: bytes) -> tuple[KnownHead, bytes, int] | None:
        """Return the head that these data begin with, if it is known, and what `body_of` does."""
        for known in self._known:
            found = known.body_of(data)
            if found is not None:
                self._strange = 0
                return known, *found
        return None

    def see(self, data: bytes) -> None:
        """Note the head of a request that came alone and goes the ordinary path."""
        # A request with a known head goes the ordinary path if its body is not a call.
        for known in self._known:
            if known.body_of(data) is not None:
                return
        self._fresh, self._missing = self._fast_path.cut(data) or (None, 0)

    def follow(self, size: int) -> None:
        """Note that more bytes have come; forget the noted head if they go on behind its request.

        They begin another request then, which may be the one that is answered next.
        """
        self._missing -= size
        if self._missing < 0:
            self._fresh = None

    def learn(self, scope: MutableMapping[str, Any]) -> None:
        """Remember the noted head, whose request is answered, if the fast path can use it."""
        fresh, self._fresh = self._fresh, None
        if fresh is None:
            return
        self._strange += 1
        if self._strange > _STRANGE and self._strange % _STRANGE:
            return
        known = self._fast_path.known(fresh, scope)
        if known is not None:
            self._known = (known, *self._known[: MAX_KNOWN - 1])
