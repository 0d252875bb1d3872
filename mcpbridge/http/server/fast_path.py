"""The fast path of the request that comes most: a call under the same head as the one before it.

What a client sends on one connection differs, head for head, in nothing but the digits of its
Content-Length. What the parser and the rules made of the first such head they would make of the
next, byte for byte, so it need not be asked again. And a call whose answer is the first thing that
comes of it needs no task, no queue of events and no timer: whoever brings the answer writes it.

It is a short cut and no second road: the call itself is begun by the face that serves it either
way, and as soon as it turns out to be more than one answer (a stream, a wait longer than
`--json-window`, a second request on its heels, the end of the process) it goes on as the request
it was, from the parser on, with what was begun. Whatever is not plainly such a call never comes
here. Measured with `benchmarks/throughput.py`: about half of the processor time of a call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping
from typing import Any, Protocol

import msgspec

from mcpbridge.channels.off_loop import LONG_BYTES
from mcpbridge.errors import WireError
from mcpbridge.http.body import BodyLimits
from mcpbridge.http.request import CALLED, PRINCIPAL, RequestHead, StartedCall
from mcpbridge.telemetry.metrics import HttpMeter
from mcpbridge.wire.messages import Request, Result, decode, encode

MAX_HEAD_BYTES = 4096
"""A longer head is not worth remembering for each connection."""
MAX_KNOWN = 4
"""Heads remembered for a connection: a client of 2026-07-28 names the tool in the head."""

_STRANGE = 2 * MAX_KNOWN
"""After so many heads in a row that were not known, only one of as many is remembered: where many
clients share a connection, the next one has another."""
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,7})(?=\r\n)", re.IGNORECASE)
_MAX_DIGITS = 7
_KEPT = ("type", "method", "path", "headers", PRINCIPAL)
_POSTED = ("POST", 200)
_NOT_PLAIN = (b"transfer-encoding", b"expect", b"upgrade")

CutHead = tuple[bytes, bytes]
"""A head before and after the digits of its Content-Length."""


class KnownHead(msgspec.Struct, frozen=True):
    """A head that passed every rule on heads, cut at the digits of its Content-Length."""

    before: bytes
    after: bytes
    head: RequestHead

    def body_of(self, data: bytes) -> bytes | None:
        """The body, where the data are this head, whatever the length, and one whole body."""
        if not data.startswith(self.before):
            return None
        start = len(self.before)
        end = data.find(b"\r", start, start + _MAX_DIGITS + 1)
        if end <= start or not data.startswith(self.after, end):
            return None
        digits, body = data[start:end], data[end + len(self.after) :]
        return body if digits.isdigit() and int(digits) == len(body) else None


class FastPathTarget(Protocol):
    """What takes calls without a response: the endpoint."""

    def may_begin(self, head: RequestHead) -> bool:
        """Whether calls under this head may be begun."""

    def begin(self, head: RequestHead, request: Request) -> StartedCall | None:
        """Begin a call; None leaves it to the ordinary path, untouched."""


class FastPath:
    """Knows heads and begins calls under them, for all connections of one endpoint."""

    def __init__(
        self,
        entry: FastPathTarget,
        limits: BodyLimits,
        window_s: float,
        ending: Callable[[], bool],
        meter: HttpMeter | None = None,
    ) -> None:
        """Make it.

        Args:
            entry: The endpoint.
            limits: On bodies.
            window_s: After this time an answer is a stream.
            ending: The process is about to end, and responses say more than their answer.
            meter: Counts what is answered on the fast path.
        """
        self._meter = meter or HttpMeter()
        self._entry = entry
        self._limits = limits
        self._ending = ending
        self.window_s = window_s

    def cut(self, data: bytes) -> CutHead | None:
        """The head in the data of one request, where others that come like it could be known by it.

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
        """What to remember of a request that was served, if calls like it may take the fast path.

        Args:
            cut: Its head.
            scope: What became of it in the parser and the application.
        """
        if CALLED not in scope:
            return None
        # No more of the scope than that: it would outlive its request with all that hangs on it.
        head = RequestHead.in_scope({name: scope[name] for name in _KEPT})
        plain = not any(name in head.values for name in _NOT_PLAIN)
        if not plain or not head.accepts.json or not self._entry.may_begin(head):
            return None
        return KnownHead(*cut, head)

    def begin(self, known: KnownHead, body: bytes) -> StartedCall | None:
        """Begin the call in a body; None leaves it to the ordinary path, untouched."""
        if self._ending() or len(body) > min(self._limits.max_bytes, LONG_BYTES):
            return None
        try:
            message = decode(body, self._limits.max_depth)
        except WireError:
            return None
        if not isinstance(message, Request):
            return None
        return self._entry.begin(known.head, message)

    def answer(self, call: StartedCall, received: int) -> bytes | None:
        """Return the body of a plain 200, which is sent; None if there is more to say of a call.

        Args:
            call: Begun here.
            received: Bytes of the body that it came in.
        """
        reply = call.exchange.reply
        # The status of a failure is for the face to say.
        plain = isinstance(reply, Result) and call.exchange.stream is None
        if not plain or reply is None or self._ending():
            return None
        body = encode(reply)
        self._meter.requests[_POSTED] += 1
        self._meter.count(received, len(body))
        return body


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
        """The head that these data begin with and the body behind it, if it is known."""
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
