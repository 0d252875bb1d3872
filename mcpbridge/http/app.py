"""Where every request arrives: checked first, then taken to what serves its path.

A plain ASGI application: the calls that matter pass no router and no middleware, which would cost
as much as all the rest of a call.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from mcpbridge.http.admin import METRICS_PATH
from mcpbridge.http.auth.access import AccessControl
from mcpbridge.http.origin_check import ClientGone, check_source
from mcpbridge.http.request import HttpRequest, RequestHead, StartedCall
from mcpbridge.http.responses import HttpResponse, refusing, send_json, send_refusal
from mcpbridge.http.transports.sse import SseTransport
from mcpbridge.http.transports.streamable_http import StreamableHttp
from mcpbridge.rules.access.hosts import HostRules
from mcpbridge.rules.faults import INTERNAL_ERROR, INVALID_REQUEST
from mcpbridge.rules.mcp.admission import Refusal, refuse

log = logging.getLogger("mcpbridge.http")


Verbs = dict[str, Callable[[HttpRequest], Awaitable[None]]]
"""What serves each HTTP method of a path."""
PROBED = ("GET", "HEAD")
"""The HTTP methods of probes and metrics."""


class HttpApp:
    """The ASGI application of one bridge."""

    def __init__(
        self,
        streamable: StreamableHttp,
        sse: SseTransport | None,
        admin: ASGIApp,
        rules: HostRules,
        *,
        mcp_paths: Iterable[str],
        root_path: str,
        access: AccessControl | None = None,
    ) -> None:
        """Set up the routes.

        Args:
            streamable: Serves the MCP paths.
            sse: Serves HTTP+SSE on its paths, if that is served.
            admin: Serves every other path.
            rules: Which Host and Origin may in.
            mcp_paths: The paths of Streamable HTTP.
            root_path: A prefix that a proxy may leave in the paths of requests.
            access: Finds out who calls; None: all clients may.
        """
        self._admin = admin
        self._access = access or AccessControl()
        self._streamable = streamable
        self._rules = rules
        self._root_path = root_path.rstrip("/")
        mcp: Verbs = {
            "POST": streamable.post,
            "GET": streamable.get,
            "DELETE": streamable.delete,
        }
        self._routes: dict[str, Verbs] = {path.rstrip("/"): mcp for path in mcp_paths}
        if sse is not None:
            self._routes[sse.stream_path] = {"GET": sse.connect}
            self._routes[sse.messages_path] = {"POST": sse.post}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        if scope["type"] != "http":
            return
        http_request = HttpRequest.of(scope, receive, send)
        try:
            if http_request.started is not None:
                await http_request.started(http_request)
            else:
                await self._serve(http_request)
        except ClientGone:
            log.debug("request.abandoned")
        except Exception as error:
            # The server library closes the connection if the response has begun already.
            await _failed(http_request.head, error).send(send)

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

    def methods(self, path: str) -> Iterable[str]:
        """The HTTP methods of a path; of an unknown one, those of probes."""
        return self._routes.get(self._own_path(path).removesuffix("/"), PROBED)

    async def _serve(self, http_request: HttpRequest) -> None:
        head = http_request.head
        refusal = check_source(head, self._rules)
        if refusal is not None:
            await send_refusal(http_request.send, refusal)
            return
        path = self._own_path(head.path)
        verbs = self._routes.get(path.removesuffix("/"))
        refusal = await self._ask(head, path, verbs)
        if refusal is not None:
            await send_refusal(http_request.send, refusal)
        elif verbs is None and path in self._access.documents and head.method in PROBED:
            await send_json(http_request.send, 200, self._access.documents[path])
        elif verbs is None and (no_login := self._access.no_login_at(path)) is not None:
            await send_json(http_request.send, 404, no_login)
        elif verbs is None:
            await self._admin(
                {**http_request.scope, "path": path}, http_request.receive, http_request.send
            )
        elif (verb := verbs.get(head.method)) is not None:
            await verb(http_request)
        else:
            refusal = refuse(405, INVALID_REQUEST, "method not allowed", allow=", ".join(verbs))
            await send_refusal(http_request.send, refusal)

    async def _ask(self, head: RequestHead, path: str, verbs: Verbs | None) -> Refusal | None:
        """Find out who calls, if that matters; return why it may not in."""
        access = self._access
        if verbs is None:
            # Probes are for all; the metrics say what others do.
            return await access.knows(head) if access.asks and path == METRICS_PATH else None
        refusal = await access.enter(head)
        if refusal is None and head.method == "GET":
            refusal = access.charges(head.principal)
        return refusal

    def _own_path(self, path: str) -> str:
        """The path without the prefix that a proxy may have left in it."""
        if self._root_path and path.startswith(f"{self._root_path}/"):
            return path.removeprefix(self._root_path)
        return path


def _failed(head: RequestHead, error: Exception) -> HttpResponse:
    """Log an exception that is not in the table of refusals, a bug, and return its answer."""
    log.error("request.failed", exc_info=error, extra={"method": head.method})
    return refusing(refuse(500, INTERNAL_ERROR, "internal error"))
