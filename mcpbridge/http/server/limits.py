"""Bounds on connections, whatever is asked on them: how many, how idle, how slow to read.

Descriptors are what a process runs out of first, and a process that has none left can neither
start a server nor open a log. So connections stop before that: those that are idle make room, and
where all are busy a few more are let in to be told so, because a health probe among them must be
answered.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcpbridge.http.cors import readable
from mcpbridge.http.responses import CLOSE, refusal_body, refusal_of, send_refusal
from mcpbridge.rules.access.hosts import HostRules
from mcpbridge.rules.faults import Unavailable, capacity
from mcpbridge.settings import Unit, setting

log = logging.getLogger("mcpbridge.http")

BAND = 8
"""Connections over the limit that are let in for one request each; the reserve has them."""
BAND_HEADER_S = 2.0
"""How long those may take to send it."""
_PROBES = ("/livez", "/readyz", "/startupz", "/health", "/healthz")
_LOG_EVERY_S = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections there may be, and how long one may do nothing."""

    max_connections: int | None = setting(
        None,
        "--max-connections",
        "Connections at once; by default as many as the limit on open files leaves beside the"
        " server processes and a reserve of 40.",
        group="Limits",
        unit=Unit.INTEGER,
        minimum=1,
    )
    keep_alive_s: float = setting(
        75.0,
        "--keep-alive-timeout",
        "Close a connection that has been idle for so long. Longer than the 60 s after which most"
        " proxies close theirs, since one that is reused while it closes loses a request.",
        group="Limits",
        unit=Unit.SECONDS,
        minimum=0.1,
    )
    send_s: float = setting(
        30.0,
        "--send-timeout",
        "Cut a connection whose client has read nothing for so long while something waits for it.",
        group="Limits",
        unit=Unit.SECONDS,
        minimum=0.1,
    )


class Connections:
    """What all connections of the process share; made in `app.lifecycle` and handed down."""

    def __init__(
        self,
        limits: ConnectionLimits,
        app: ASGIApp,
        *,
        most: int,
        max_request_bytes: int,
        rules: HostRules,
    ) -> None:
        """Make it.

        Args:
            limits: What the operator asked for.
            app: What serves them.
            most: Connections at once.
            max_request_bytes: Of a body.
            rules: Which pages may read a refusal.
        """
        self._rules = rules
        self.limits = limits
        self.most = most
        self.max_request_bytes = max_request_bytes
        self._app = app
        self._logged_at = float("-inf")

    async def overflow(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request on a connection over the limit, as an ASGI application: the last one.

        A probe is answered, anything else is refused.
        """
        if scope["type"] != "http":
            return
        if str(scope["path"]).endswith(_PROBES):
            await self._app(scope, receive, _closing(send))
        else:
            fault = capacity("--max-connections", self.most)
            lines = readable(scope, self._rules) or ()
            await send_refusal(send, refusal_of(Unavailable(fault), None), [CLOSE, *lines])

    def refusal(self) -> bytes:
        """The whole response on a connection that is not even asked what it wants."""
        fault = capacity("--max-connections", self.most)
        body = refusal_body(refusal_of(Unavailable(fault), None))
        return (
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
            b"connection: close\r\nretry-after: %d\r\ncontent-length: %d\r\n\r\n%b"
            % (fault.retry_after_s or 1, len(body), body)
        )

    def log_full(self, now: float) -> None:
        """Say that the limit is reached, not more often than an operator wants to read it."""
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            log.warning("connection.limit_reached", extra={"limit": self.most})


class SendWatch:
    """Looks after one connection while its client reads more slowly than is written to it.

    Time alone would cut a client on a slow line in the middle of a large answer; so it must have
    taken nothing at all.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        limit_s: float,
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._limit_s = limit_s
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Something waits for the client."""
        self.end()
        self._left = self._untaken()
        self._timer = self._loop.call_later(self._limit_s, self._look)

    def end(self) -> None:
        """It has read on, or is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        left = self._untaken()
        if 0 < self._left <= left:
            self._timer = None
            log.info("connection.stalled", extra={"seconds": self._limit_s, "bytes": left})
            # What is left would keep a polite end from ever coming.
            self._transport.abort()
        else:
            self.begin()

    def _untaken(self) -> int:
        """Bytes that the client has not taken: ours, and those that the kernel has for it.

        Ours alone would not do: the kernel takes more only when much of its own is gone, for
        which a slow client may need longer than the limit.
        """
        ours = self._transport.get_write_buffer_size()
        connection = self._transport.get_extra_info("socket")
        return ours + (queued_bytes(connection.fileno()) if connection is not None else 0)


def queued_bytes(fd: int) -> int:
    """What the kernel holds of a connection that its peer has not acknowledged; 0 if unknown."""
    try:
        import fcntl
        import termios

        return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (ImportError, AttributeError, OSError):
        return 0


def _closing(send: Send) -> Send:
    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", []) if pair[0].lower() != CLOSE[0]]
            message = {**message, "headers": [*kept, CLOSE]}
        await send(message)

    return closing


@dataclasses.dataclass(frozen=True, slots=True)
class ArrivalLimits:
    """How long a request may take to arrive, and how large its head may be."""

    header_s: float = setting(
        10.0,
        "--header-timeout",
        "Longest time from the connection, or from a request's first byte, to the end of its head.",
        group="Limits",
        unit=Unit.SECONDS,
        minimum=0.1,
    )
    body_s: float = setting(
        30.0,
        "--body-timeout",
        "Longest time from the end of a request's head to the end of its body.",
        group="Limits",
        unit=Unit.SECONDS,
        minimum=0.1,
    )
    max_header_bytes: int = setting(
        64 << 10,
        "--max-header-bytes",
        "Largest head of a request; servers and proxies commonly allow 8 to 64 KiB.",
        group="Limits",
        unit=Unit.BYTES,
        minimum=1 << 10,
    )
