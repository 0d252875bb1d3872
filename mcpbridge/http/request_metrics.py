"""Counts of an ASGI application: requests by status, and the bytes of bodies."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcpbridge.telemetry.metrics import HttpMeter

METRICS_PATH = "/metrics"

CLIENT_LEFT = 499
"""Counted in place of a status if the client disconnected before the response began."""

_METHODS = frozenset(("GET", "POST", "DELETE", "HEAD", "OPTIONS"))


class Metered:
    """An ASGI wrapper that counts an application's requests."""

    def __init__(self, app: ASGIApp, meter: HttpMeter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and count it at its end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        tap = _Tap(receive, send, self._meter)
        try:
            await self._app(scope, tap.receive, tap.send)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._meter.requests[method, tap.status] += 1


class _Tap:
    """A wrapper of one request's `receive` and `send` that counts bytes."""

    __slots__ = ("_meter", "_receive", "_send", "status")

    def __init__(self, receive: Receive, send: Send, meter: HttpMeter) -> None:
        self._receive = receive
        self._send = send
        self._meter = meter
        self.status = CLIENT_LEFT

    async def receive(self) -> Message:
        """Return the next event of the client."""
        message = await self._receive()
        self._meter.count(len(message.get("body", b"")), 0)
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Pass an event on; not a coroutine, since each response would pay for one."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self._meter.count(0, len(message.get("body", b"")))
        return self._send(message)
