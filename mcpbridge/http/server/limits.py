"""Bounds on connections: how many, how long idle, how slowly read, how slowly a request arrives.

A process runs out of descriptors first, and without a free one it can neither start a server nor
open a log. So connections are limited before that: idle ones are closed to make room, and if all
are busy a few more are accepted for one request each, because a health probe among them must be
answered.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcpbridge.bridge.budget import Budget
from mcpbridge.http.cors import readable
from mcpbridge.http.refusals import Refusals
from mcpbridge.http.request import RequestHead
from mcpbridge.http.responses import CLOSE, refusal_body, refusal_of, send_refusal
from mcpbridge.rules.access.client_address import TrustedProxies
from mcpbridge.rules.access.hosts import HostRules
from mcpbridge.rules.faults import Unavailable, capacity
from mcpbridge.rules.mcp.admission import Refusal
from mcpbridge.settings import SettingsSection, Unit, setting
from mcpbridge.telemetry.metrics import Meters

log = logging.getLogger("mcpbridge.http")

BAND = 8
"""Connections over the limit that are accepted for one request each; the reserve covers them."""
BAND_HEADER_S = 2.0
"""Seconds that a client over the limit has to send its request."""
_PROBES = ("/livez", "/readyz", "/startupz", "/health", "/healthz")
_LOG_EVERY_S = 10.0


class ConnectionLimits(SettingsSection, frozen=True):
    """Settings of how many connections there may be, and how long one may be idle or stalled."""

    max_connections: int | None = setting(
        None,
        "--max-connections",
        "Connections at once; by default as many as the limit on open files leaves after the"
        " server processes and a reserve of 40.",
        group="Limits",
        unit=Unit.INTEGER,
        minimum=1,
    )
    keep_alive_s: float = setting(
        75.0,
        "--keep-alive-timeout",
        "Close a connection that has been idle for this long. Longer than the 60 s after which most"
        " proxies close theirs, since one that is reused while it closes loses a request.",
        group="Limits",
        unit=Unit.SECONDS,
        minimum=0.1,
    )
    send_s: float = setting(
        30.0,
        "--send-timeout",
        "Cut a connection whose client has read nothing for this long while data wait for it.",
        group="Limits",
        unit=Unit.SECONDS,
        minimum=0.1,
    )


class Connections:
    """State that all connections of the process share; made in `app.lifecycle`."""

    def __init__(
        self,
        limits: ConnectionLimits,
        app: ASGIApp,
        *,
        most: int,
        max_request_bytes: int,
        rules: HostRules,
        budget: Budget | None = None,
        trusted: TrustedProxies | None = None,
        meters: Meters | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        """Make the shared state.

        Args:
            limits: The settings.
            app: The application that serves requests.
            most: Most connections at once.
            max_request_bytes: Largest body of a request.
            rules: Say which web pages may read a refusal.
            budget: Counts the bytes of requests in arrival; None: they count for nothing.
            trusted: The peers that may name their client; None: none may.
            meters: Count connections that gave way; None: they are not counted.
            refusals: Logs and counts refused requests.
        """
        self._rules = rules
        self.limits = limits
        self.most = most
        self.max_request_bytes = max_request_bytes
        self.budget = budget if budget is not None else Budget()
        self._app = app
        self._refusals = refusals
        self._logged_at = float("-inf")
        self._trusted = trusted
        self._meters = meters if meters is not None else Meters()

    def trusts(self, address: str | None) -> bool:
        """Return whether this peer may name its client: it speaks for many."""
        return self._trusted is not None and self._trusted.trusts(address)

    def gave_way(self) -> None:
        """Count a connection that ended for a new one."""
        self._meters.tally("gave_way", "connection")

    async def overflow(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the only request on a connection over the limit, as an ASGI application.

        A probe is answered, any other request is refused.
        """
        if scope["type"] != "http":
            return
        if str(scope["path"]).removesuffix("/").endswith(_PROBES):
            await self._app(scope, receive, _closing(send))
        else:
            lines = readable(scope, self._rules) or ()
            await send_refusal(send, self._over(), [CLOSE, *lines])

    def refusal(self) -> bytes:
        """Return the whole response for a connection whose request is not read."""
        refusal = self._over()
        body = refusal_body(refusal)
        return (
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
            b"connection: close\r\nretry-after: %d\r\ncontent-length: %d\r\n\r\n%b"
            % (refusal.retry_after_s or 1, len(body), body)
        )

    def note(
        self,
        refusal: Refusal,
        head: RequestHead | None,
        client: tuple[str, int] | None = None,
    ) -> None:
        """Log and count a refused request: see `Refusals.note`."""
        if self._refusals is not None:
            self._refusals.note(refusal, head, client[0] if client else None)

    def _over(self) -> Refusal:
        """Return the refusal of a connection over the limit, counted; `log_full` logs it."""
        fault = capacity("--max-connections", self.most)
        refusal = refusal_of(Unavailable(fault), None)
        if self._refusals is not None:
            self._refusals.count(refusal)
        return refusal

    def log_full(self, now: float) -> None:
        """Log that the limit is reached, at most once in `_LOG_EVERY_S`."""
        if now - self._logged_at >= _LOG_EVERY_S:
            # A flood of connections must not become a flood of records; the metric counts each.
            self._logged_at = now
            log.warning("connection.limit_reached", extra={"limit": self.most})


class SendWatch:
    """A watch on a connection whose client reads more slowly than the bridge writes.

    A client on a slow line may need long for a large answer; so a connection is cut only if the
    client has read nothing at all within the limit.
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
        """Begin to watch: data wait for the client."""
        # `_look` begins again as well: one timer at a time.
        self.end()
        self._left = self._untaken()
        self._timer = self._loop.call_later(self._limit_s, self._look)

    def end(self) -> None:
        """Stop watching: the client has caught up or is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        left = self._untaken()
        # Not less than at the last look: the client has read nothing, even if the bridge has
        # written.
        if 0 < self._left <= left:
            self._timer = None
            log.info("connection.stalled", extra={"seconds": self._limit_s, "bytes": left})
            # Not `close`, which waits until the client has read what is left.
            self._transport.abort()
        else:
            self.begin()

    def _untaken(self) -> int:
        """Return the bytes that the client has not taken: in our buffer and in the kernel's.

        Ours alone does not suffice: the kernel takes more only once much of its data is gone, for
        which a slow client may need longer than the limit.
        """
        ours = self._transport.get_write_buffer_size()
        connection = self._transport.get_extra_info("socket")
        return ours + (queued_bytes(connection.fileno()) if connection is not None else 0)


def queued_bytes(fd: int) -> int:
    """Return the bytes in the kernel that the peer has not acknowledged; 0 if unknown."""
    try:
        import fcntl
        import termios

        # Not every system has it: then only the bridge's own buffer counts.
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


class ArrivalLimits(SettingsSection, frozen=True):
    """Settings of how long a request may take to arrive, and how large its head may be."""

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
