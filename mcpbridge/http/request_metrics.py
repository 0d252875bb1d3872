"""Counts what passes an ASGI application: requests by status, and the bytes of bodies."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcpbridge.telemetry.metrics import HttpMeter

CLIENT_LEFT = 499
"""Stands for the status where the client left before there was one."""

_METHODS = frozenset(("GET", "POST", "DELETE", "HEAD", "OPTIONS"))


class Metered:
    """An application whose requests are counted; otherwise the application itself."""

    def __init__(self, app: ASGIApp, meter: HttpMeter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and count it when it is over."""
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
    """Both directions of one request."""

    __slots__ = ("_meter", "_receive", "_send", "status")

    def __init__(self, receive: Receive, send: Send, meter: HttpMeter) -> None:
        self._receive = receive
        self._send = send
        self._meter = meter
        self.status = CLIENT_LEFT

    async def receive(self) -> Message:
        """The next event of the client."""
        message = await self._receive()
        self._meter.count(len(message.get("body", b"")), 0)
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Pass an event on; no coroutine of its own, since every response pays for it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self._meter.count(0, len(message.get("body", b"")))
        return self._send(message)
