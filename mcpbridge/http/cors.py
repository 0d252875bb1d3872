"""CORS: which responses web pages of the origins in `--allow-origin` may read.

It wraps the whole application, so that a preflight needs no credentials (a browser sends none) and
pages can read every response: refusals, event streams and probes as well. If no origin is listed,
the application is not wrapped; a request without Origin passes unchanged.

The bridge uses no cookies, so credentials are never allowed; a token is a header like any other.

Starlette's `CORSMiddleware` was tried; 15 of 18 tests of this module fail with it. The names of
`Mcp-Param-*` headers come with each tool, and it can only allow a fixed list of headers, or all
that a preflight asks for, without a bound. It has one list of methods for all paths, answers a
preflight of any origin itself and before the Host is checked, and adds headers to responses for
pages that may not read them.

Source: WHATWG Fetch, 3.2 CORS protocol; WICG Private Network Access, 2.2 and 3.1.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcpbridge.http.origin_check import check_source
from mcpbridge.http.request import RequestHead, route_path
from mcpbridge.rules.access.hosts import ANY_ORIGIN, HostRules, readable_by

Lines = tuple[tuple[bytes, bytes], ...]
"""Headers of a response."""

MAX_AGE_S = 7200
"""Seconds that a browser may cache a preflight; Chromium's own limit."""

_REQUEST_HEADERS = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Last-Event-ID",
    "Mcp-Method",
    "Mcp-Name",
    "Mcp-Protocol-Version",
    "Mcp-Session-Id",
    "Traceparent",
    "Tracestate",
)
_RESPONSE_HEADERS = b"Mcp-Session-Id, Retry-After, WWW-Authenticate"
_PARAMETER = r"mcp-param-[0-9a-z!#$%&'*+.^_`|~-]{1,100}\Z"
"""Headers whose names the schema of a tool defines (`x-mcp-header`, 2026-07-28)."""
_MAX_PARAMETERS = 64
_VARY = (b"vary", b"Origin")


class Cors:
    """An ASGI wrapper that lets pages of the listed origins read an application's responses."""

    def __init__(
        self,
        app: ASGIApp,
        rules: HostRules,
        methods: Callable[[str], Iterable[str]],
        headers: Iterable[str] = (),
    ) -> None:
        """Wrap an application.

        Args:
            app: The application.
            rules: The listed origins, and the rules on Host.
            methods: Returns the HTTP methods of a path, without the path of a mount.
            headers: Further headers that requests may carry.
        """
        self._app = app
        self._rules = rules
        self._methods = methods
        self._headers = (*_REQUEST_HEADERS, *headers)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request; not a coroutine, since each request would pay for one."""
        lines = readable(scope, self._rules) if scope["type"] == "http" else None
        if lines is None:
            return self._app(scope, receive, send)
        if scope["method"] == "OPTIONS":
            head = RequestHead.in_scope(scope)
            is_preflight = b"access-control-request-method" in head.values
            # A preflight ends here, so Host and Origin are checked here and not in `Guard`.
            if is_preflight and check_source(head, self._rules) is None:
                return self._answer(head, route_path(scope), lines, send)
        return self._app(scope, receive, carrying(send, lines))

    async def _answer(self, head: RequestHead, path: str, lines: Lines, send: Send) -> None:
        """Answer a preflight with the methods and headers that a request may have."""
        asked = head.get(b"access-control-request-headers") or ""
        headers = [
            *lines,
            (b"access-control-allow-methods", ", ".join(self._methods(path)).encode()),
            (b"access-control-allow-headers", self._allowed(asked).encode()),
            (b"access-control-max-age", b"%d" % MAX_AGE_S),
        ]
        if head.values.get(b"access-control-request-private-network") == b"true":
            headers.append((b"access-control-allow-private-network", b"true"))
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    def _allowed(self, asked: str) -> str:
        names = (name.strip().lower() for name in asked.split(","))
        parameters = [name for name in names if re.match(_PARAMETER, name)]
        return ", ".join([*self._headers, *parameters[:_MAX_PARAMETERS]])


def readable(scope: MutableMapping[str, Any], rules: HostRules) -> Lines | None:
    """Return the headers that let a request's page read the response; None if it may not."""
    for name, value in scope["headers"]:
        if name == b"origin":
            reader = readable_by(value.decode("latin-1"), rules)
            return None if reader is None else _lines(reader)
    return None


def carrying(send: Send, lines: Lines) -> Send:
    """Return a `send` that adds these headers to the response."""

    def sending(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *lines]}
        return send(message)

    return sending


def _lines(reader: str) -> Lines:
    allowed = (b"access-control-allow-origin", reader.encode("latin-1"))
    exposed = (b"access-control-expose-headers", _RESPONSE_HEADERS)
    return (allowed, exposed) if reader == ANY_ORIGIN else (allowed, exposed, _VARY)
