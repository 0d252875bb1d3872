"""The Starlette application of one bridge: every path it serves, and what all requests pass.

A request passes CORS if an origin is listed (`http.cors`), then `Guard`, then the routes. The MCP
routes are raw ASGI endpoints: a call pays for the router once, and for no middleware that would
wrap each event of a stream.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from mcpbridge.http.auth.access import LOGIN_PATHS, AccessControl
from mcpbridge.http.cors import Cors
from mcpbridge.http.health import READ_METHODS, Probes, Render, scrape
from mcpbridge.http.origin_check import ClientGone, check_source
from mcpbridge.http.pages import PageRoute, router_of
from mcpbridge.http.refusals import Refusals
from mcpbridge.http.request import HttpRequest, RequestHead, StartedCall, route_path
from mcpbridge.http.request_metrics import METRICS_PATH, Metered
from mcpbridge.http.responses import HttpResponse, refusal_body, refusing, send_json
from mcpbridge.http.transports.sse import SseTransport
from mcpbridge.http.transports.streamable_http import StreamableHttp
from mcpbridge.rules.access.client_address import TrustedProxies
from mcpbridge.rules.access.hosts import HostRules
from mcpbridge.rules.faults import INTERNAL_ERROR, INVALID_REQUEST
from mcpbridge.rules.mcp.admission import refuse
from mcpbridge.telemetry.metrics import HttpMeter

log = logging.getLogger("mcpbridge.http")

Verbs = Mapping[str, Callable[[HttpRequest], Awaitable[None]]]
"""What serves each HTTP method of a path."""


def mcp_routes(
    streamable: StreamableHttp,
    sse: SseTransport | None,
    mcp_paths: Iterable[str],
    access: AccessControl,
) -> list[McpRoute]:
    """Return the routes of MCP."""
    streams: Verbs = {
        "POST": streamable.post,
        "GET": streamable.get,
        "DELETE": streamable.delete,
    }
    paths = dict.fromkeys(mcp_paths, streams)
    if sse is not None:
        # After the MCP path: if that is one of these, the transport that needs both has it.
        paths[sse.stream_path] = {"GET": sse.connect}
        paths[sse.messages_path] = {"POST": sse.post}
    return [McpRoute(path, verbs, access) for path, verbs in paths.items()]


def admin_routes(
    probes: Probes, render: Render | None, access: AccessControl | None = None
) -> list[BaseRoute]:
    """Return the routes of health probes, and of the metrics if `render` is given.

    Probes are for all; the metrics say what others do, so `access` asks who reads them.
    """
    routes: list[BaseRoute] = [
        PageRoute("/livez", probes.livez),
        PageRoute("/readyz", probes.readyz),
        PageRoute("/startupz", probes.startupz),
        PageRoute("/health", probes.health),
        PageRoute("/healthz", probes.health),
    ]
    if render is not None:
        asking = [Middleware(AccessCheck, access)] if access is not None and access.asks else []
        routes.append(PageRoute(METRICS_PATH, scrape(render), middleware=asking))
    return routes


def login_routes(access: AccessControl) -> list[BaseRoute]:
    """Return the routes of OAuth metadata, or of the paths at which clients look for a login."""
    routes: list[BaseRoute] = [
        PageRoute(path, JsonDocument(200, text), methods=READ_METHODS)
        for path, text in access.documents.items()
    ]
    if access.no_login is not None:
        routes += [PageRoute(path, JsonDocument(404, access.no_login)) for path in LOGIN_PATHS]
    return routes


class HttpApp(Starlette):
    """The application behind one listener, or mounted in another program."""

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        rules: HostRules,
        *,
        root_path: str = "",
        meter: HttpMeter | None = None,
        headers: Iterable[str] = (),
        trusted: TrustedProxies | None = None,
        refusals: Refusals | None = None,
        methods: Callable[[str], Iterable[str]] | None = None,
    ) -> None:
        """Set up the routes.

        Args:
            routes: The route table.
            rules: Which Host and Origin may in.
            root_path: A prefix that a proxy may leave in the paths of requests.
            meter: Counts requests.
            headers: Further headers that requests of pages may carry.
            trusted: The peers that may name their client; None: none may.
            refusals: Logs and counts refused requests.
            methods: Returns the HTTP methods of paths that are not in the table.
        """
        super().__init__()
        self.router = router_of(routes)
        self._rules = rules
        self._prefix = root_path.rstrip("/")
        self._meter = meter
        self._headers = tuple(headers)
        self._trusted = trusted
        self._refusals = refusals
        self._methods = methods or _unknown_methods
        self._verbs = {
            route.path.removesuffix("/"): route.verbs
            for route in routes
            if isinstance(route, McpRoute)
        }

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Serve one request; what Starlette's own does, without a coroutine for each request."""
        prefix = self._prefix
        if prefix and scope["type"] == "http" and scope["path"].startswith(f"{prefix}/"):
            scope["root_path"] = prefix
        scope["app"] = self
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        return self.middleware_stack(scope, receive, send)  # type: ignore[return-value]

    def build_middleware_stack(self) -> ASGIApp:
        """Return what requests pass before the routes.

        Starlette's own two layers for errors are not among them: they wrap each event of a stream,
        the outer one raises after its answer, and `Guard` logs what it answers.
        """
        # The router's stack, not the router, which is one more coroutine around it.
        routes = self.router.middleware_stack
        app: ASGIApp = Guard(routes, self._rules, self._trusted, self._refusals)
        if self._rules.allowed_origins:
            app = Cors(app, self._rules, self.methods, self._headers)
        return app if self._meter is None else Metered(app, self._meter)

    def methods(self, path: str) -> Iterable[str]:
        """Return the HTTP methods of a path; of an unknown one, those of probes."""
        return self._verbs.get(path.removesuffix("/")) or self._methods(path)


class PostHandling:
    """Handles POSTs that a connection has whole, for `http.server.fast_path`."""

    def __init__(self, streamable: StreamableHttp, access: AccessControl) -> None:
        self._streamable = streamable
        self._access = access

    def handle(self, head: RequestHead, body: bytes) -> StartedCall | HttpResponse | None:
        """Handle a POST to the MCP path under a head that has passed all rules before.

        Returns:
            What `StreamableHttp.handle` does; None if its client must be asked again who it is.
        """
        if self._access.asks and not self._access.still(head.principal):
            return None
        try:
            return self._streamable.handle(head, body)
        except Exception as error:
            return _failed(head, error)


class Guard:
    """What every request passes before its route: Host and Origin; and the answers to errors."""

    def __init__(
        self,
        app: ASGIApp,
        rules: HostRules,
        trusted: TrustedProxies | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self._app = app
        self._rules = rules
        self._trusted = trusted
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        http_request = HttpRequest.of(scope, receive, send)
        head = http_request.head
        try:
            if http_request.started is not None:
                # The connection has had it handled: it passed the rules with the first of its head.
                await http_request.started(http_request)
            elif (refusal := check_source(head, self._rules)) is not None:
                await refusing(refusal).finish(http_request)
            else:
                if self._trusted is not None:
                    head.find_peer(self._trusted)
                http_request.pass_head_on()
                await self._app(scope, receive, send)
        except HTTPException as error:
            refusal = refuse(error.status_code, INVALID_REQUEST, error.detail)
            lines = [(n.lower().encode(), v.encode()) for n, v in (error.headers or {}).items()]
            await refusing(refusal, lines).finish(http_request)
        except ClientGone:
            log.debug("request.abandoned")
        except Exception as error:
            # The server library closes the connection if the response has begun already.
            await _failed(head, error).send(send)
        # After the answer: a slow log must not hold it up.
        if self._refusals is not None and (refused := http_request.refusal) is not None:
            self._refusals.note(refused, head)


class McpRoute(BaseRoute):
    """One path of MCP, with or without a slash at its end, without redirects."""

    def __init__(self, path: str, verbs: Verbs, access: AccessControl) -> None:
        self.path = path
        self.verbs = verbs
        self._bare = path.removesuffix("/")
        self._access = access

    def __repr__(self) -> str:
        """The route as a table of routes shows it."""
        return f"McpRoute(path={self.path!r}, methods={list(self.verbs)!r})"

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell whether a request is for this path, whatever its method."""
        if scope["type"] == "http" and route_path(scope).removesuffix("/") == self._bare:
            return Match.FULL, {}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request: find out who asks, then by its method."""
        http_request = HttpRequest.of(scope, receive, send)
        head = http_request.head
        refusal = await self._access.enter(head)
        # A POST is counted with its messages, which are not read yet; a GET carries none.
        if refusal is None and head.method == "GET":
            refusal = self._access.charges(head.principal)
        if refusal is not None:
            await refusing(refusal).finish(http_request)
        elif (verb := self.verbs.get(head.method)) is not None:
            await verb(http_request)
        else:
            allow = ", ".join(self.verbs)
            refusal = refuse(405, INVALID_REQUEST, "method not allowed", allow=allow)
            await refusing(refusal).finish(http_request)


class JsonDocument:
    """An ASGI application with one answer."""

    def __init__(self, status: int, text: bytes) -> None:
        self._status = status
        self._text = text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await send_json(send, self._status, self._text)


class AccessCheck:
    """An application that only known clients may read, beside MCP itself."""

    def __init__(self, app: ASGIApp, access: AccessControl) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        http_request = HttpRequest.of(scope, receive, send)
        refusal = await self._access.knows(http_request.head)
        if refusal is not None:
            await refusing(refusal).finish(http_request)
        else:
            await self._app(scope, receive, send)


def _unknown_methods(path: str) -> Iterable[str]:
    return READ_METHODS


def _failed(head: RequestHead, error: Exception) -> HttpResponse:
    """Log an exception that is not in the table of refusals, a bug, and return its answer."""
    log.error("request.failed", exc_info=error, extra={"method": head.method})
    return HttpResponse(500, refusal_body(refuse(500, INTERNAL_ERROR, "internal error")))
