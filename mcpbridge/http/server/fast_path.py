"""The fast path: a POST under a head that came before is handled without parser, scope or task.

What a client sends on one connection differs, head for head, only in the digits of its
Content-Length. What the parser and the rules made of the first such head they would make of the
next, byte for byte, so they are not asked again. And a call whose answer is the first thing that
comes of it needs no task, no queue of events and no timer: what brings the answer writes it.

It decides nothing about the request: that is `StreamableHttp.handle` on either path. If there is
more to come than one answer (a stream, a wait longer than `--json-window`, a second request before
the answer, the end of the process), the request goes on as an ASGI request, with what was begun.
Measured with `benchmarks/throughput.py`: about half of the processor time of a call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping
from typing import Any, Protocol

import msgspec

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.channels.off_loop import LONG_BYTES
from mcpbridge.http.body import TRACEPARENT, BodyLimits
from mcpbridge.http.request import HEAD, RequestHead, StartedCall
from mcpbridge.http.responses import HttpResponse
from mcpbridge.rules.access.hosts import HostRules, readable_by
from mcpbridge.telemetry.metrics import HttpMeter
from mcpbridge.wire.messages import Result, encode

MAX_HEAD_BYTES = 4096
"""A longer head is not worth remembering for each connection."""
MAX_KNOWN = 4
"""Heads remembered for a connection: a client of 2026-07-28 names the tool in the head."""

_STRANGE = 2 * MAX_KNOWN
"""After so many heads in a row that were not known, only one of as many is remembered: where many
clients share a connection, the next one has another."""
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,7})(?=\r\n)", re.IGNORECASE)
_MAX_DIGITS = 7
_KEPT = ("method", "path", "raw_path", "query_string", "headers")
"""What of a scope the head decides; more would outlive its request with all that hangs on it."""
_NOT_PLAIN = (b"transfer-encoding", b"expect", b"upgrade")

CutHead = tuple[bytes, bytes]
"""A head before and after the digits of its Content-Length."""


class KnownHead(msgspec.Struct, frozen=True):
    """A head that passed every rule on heads, cut at the digits of its Content-Length."""

    before: bytes
    after: bytes
    head: RequestHead
    scope: dict[str, Any]
    """What of the scope of its requests is always the same."""

    def body_of(self, data: bytes) -> bytes | None:
        """The body, if the data are this head, whatever the length, and one whole body."""
        if not data.startswith(self.before):
            return None
        start = len(self.before)
        end = data.find(b"\r", start, start + _MAX_DIGITS + 1)
        if end <= start or not data.startswith(self.after, end):
            return None
        digits, body = data[start:end], data[end + len(self.after) :]
        return body if digits.isdigit() and int(digits) == len(body) else None


class PostHandler(Protocol):
    """Handles POSTs to the MCP path; see `HttpApp.handle`."""

    def handle(self, head: RequestHead, body: bytes) -> StartedCall | HttpResponse | None:
        """Handle one under a head that has passed; None: it must be served by ASGI instead."""


class FastPath:
    """Remembers heads and has POSTs under them handled, for all connections of one listener."""

    def __init__(
        self,
        handler: PostHandler,
        limits: BodyLimits,
        rules: HostRules,
        window_s: float,
        ending: Callable[[], bool],
        meter: HttpMeter | None = None,
    ) -> None:
        """Make it.

        Args:
            handler: Handles POSTs.
            limits: On bodies.
            rules: Which pages may read answers, which then have headers of their own.
            window_s: After this time an answer is a stream.
            ending: The process is about to end, and responses say more than their answer.
            meter: Counts what is answered on the fast path.
        """
        self.meter = meter or HttpMeter()
        self._handler = handler
        # A longer one is read in a thread.
        self._max_bytes = min(limits.max_bytes, LONG_BYTES - 1)
        self._rules = rules
        self._ending = ending
        self.window_s = window_s

    def cut(self, data: bytes) -> CutHead | None:
        """Return the head in the data of one request; None if it is not worth remembering.

        Args:
            data: All that was read of the connection, begun with the request's first byte.
        """
        if self.window_s <= 0:
            return None
        length = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) + 4
        found = _LENGTH.search(data, 0, length)
        if found is None or length + int(found[1]) != len(data):
            return None
        return data[: found.start(1)], data[found.end(1) : length]

    def known(self, cut: CutHead, scope: MutableMapping[str, Any]) -> KnownHead | None:
        """Return what to remember of a request that was served; None if no fast path may follow.

        Args:
            cut: Its head.
            scope: What became of it in the parser and the application.
        """
        head: RequestHead | None = scope.get(HEAD)
        if head is None or not head.accepts.json:
            return None
        # A trace is another one for each request.
        if TRACEPARENT in head.values or any(name in head.values for name in _NOT_PLAIN):
            return None
        origin = head.get(b"origin")
        if origin is not None and readable_by(origin, self._rules) is not None:
            return None
        return KnownHead(*cut, head, {name: scope[name] for name in _KEPT})

    def handle(self, known: KnownHead, body: bytes) -> StartedCall | HttpResponse | None:
        """Have a POST handled; None leaves it to the ordinary path, untouched."""
        if len(body) > self._max_bytes:
            return None
        return self._handler.handle(known.head, body)

    def answer_of(self, exchange: Exchange) -> bytes | None:
        """Return the body of a plain 200; None if there is more to say of a call."""
        reply = exchange.reply
        # The status of a failure is for the transport to say.
        plain = isinstance(reply, Result) and exchange.stream is None
        return encode(reply) if plain and reply is not None and not self._ending() else None


class Heads:
    """The heads that one connection knows."""

    __slots__ = ("_fast_path", "_fresh", "_known", "_strange")

    def __init__(self, fast_path: FastPath) -> None:
        self._fast_path = fast_path
        self._known: tuple[KnownHead, ...] = ()
        """Of calls that may take the fast path; the one seen last first."""
        self._fresh: CutHead | None = None
        """Of the request that is being answered, if it is not known."""
        self._strange = 0
        """How many were not known since the last one that was."""

    def find(self, data: bytes) -> tuple[KnownHead, bytes] | None:
        """Return the head that these data begin with, if it is known, and the body behind it."""
        for known in self._known:
            body = known.body_of(data)
            if body is not None:
                self._strange = 0
                return known, body
        return None

    def see(self, data: bytes) -> None:
        """A request has come with these data, alone and whole, and is served the ordinary path."""
        # A head may be known and its body be no call.
        if all(known.body_of(data) is None for known in self._known):
            self._fresh = self._fast_path.cut(data)

    def forget(self) -> None:
        """More has come before the answer: remember nothing of that request."""
        self._fresh = None

    def learn(self, scope: MutableMapping[str, Any]) -> None:
        """The request that was seen is answered: remember its head, if that will serve."""
        fresh, self._fresh = self._fresh, None
        if fresh is None:
            return
        self._strange += 1
        if self._strange > _STRANGE and self._strange % _STRANGE:
            return
        known = self._fast_path.known(fresh, scope)
        if known is not None:
            self._known = (known, *self._known[: MAX_KNOWN - 1])
