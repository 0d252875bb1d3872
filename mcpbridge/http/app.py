"""Where every request arrives: guarded first, then taken to its face.

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
from mcpbridge.http.responses import send_json, send_refusal
from mcpbridge.http.transports.sse import MESSAGES_PATH, SSE_PATH, SseTransport
from mcpbridge.http.transports.streamable_http import StreamableHttp
from mcpbridge.rules.access.hosts import HostRules, readable_by
from mcpbridge.rules.faults import INTERNAL_ERROR, INVALID_REQUEST
from mcpbridge.rules.mcp.admission import Refusal, refuse
from mcpbridge.wire.messages import Request

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
        legacy: SseTransport | None,
        admin: ASGIApp,
        rules: HostRules,
        *,
        mcp_path: str,
        root_path: str,
        access: AccessControl | None = None,
    ) -> None:
        """Put the faces in their places.

        Args:
            streamable: Serves the MCP path and `/`.
            legacy: Serves `/sse` and `/messages`, if they are served.
            admin: Serves every other path.
            rules: Which Host and Origin may in.
            mcp_path: The MCP path.
            root_path: A prefix that a proxy may leave in the paths of requests.
            access: Finds out who calls; without one everybody may.
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
        self._faces: dict[str, Verbs] = {"": mcp, "/" + mcp_path.strip("/"): mcp}
        if legacy is not None:
            self._faces[SSE_PATH] = {"GET": legacy.connect}
            self._faces[MESSAGES_PATH] = {"POST": legacy.post}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        if scope["type"] != "http":
            return
        http_request = HttpRequest.of(scope, receive, send)
        try:
            await self._serve(http_request)
        except ClientGone:
            log.debug("request.abandoned")
        except Exception:
            # Nothing is in the table of refusals for this: a bug of ours. The server library
            # closes the connection where the response has begun already.
            log.exception("request.failed", extra={"method": http_request.method})
            await send_refusal(send, refuse(500, INTERNAL_ERROR, "internal error"))

    def methods(self, path: str) -> Iterable[str]:
        """The HTTP methods of a path; of one that is nobody's, those of probes."""
        return self._faces.get(self._own_path(path).removesuffix("/"), PROBED)

    def may_begin(self, head: RequestHead) -> bool:
        """Whether calls under a head may be begun by `begin`: it passes all rules on heads."""
        verbs = self._faces.get(self._own_path(head.path).removesuffix("/"))
        if verbs is not self._faces[""] or head.method != "POST":
            return False
        # On the fast path an answer has no headers of its own, and some page waits for such.
        origin = head.get(b"origin")
        if origin is not None and readable_by(origin, self._rules) is not None:
            return False
        return check_source(head, self._rules) is None and self._streamable.may_begin(head)

    def begin(self, head: RequestHead, request: Request) -> StartedCall | None:
        """Begin a call whose head `may_begin`; None where it has to come as a request of HTTP."""
        if not self._access.may_pass(head, request):
            return None
        begun = self._streamable.begin(head, request)
        if begun is not None:
            self._access.passed(begun.principal)
        return begun

    async def _serve(self, http_request: HttpRequest) -> None:
        refusal = check_source(http_request, self._rules)
        if refusal is not None:
            await send_refusal(http_request.send, refusal)
            return
        path = self._own_path(http_request.path)
        verbs = self._faces.get(path.removesuffix("/"))
        refusal = await self._ask(http_request, path, verbs)
        if refusal is not None:
            await send_refusal(http_request.send, refusal)
        elif verbs is None and path in self._access.documents and http_request.method in PROBED:
            await send_json(http_request.send, 200, self._access.documents[path])
        elif verbs is None and (no_login := self._access.no_login_at(path)) is not None:
            await send_json(http_request.send, 404, no_login)
        elif verbs is None:
            await self._admin(
                {**http_request.scope, "path": path}, http_request.receive, http_request.send
            )
        elif (verb := verbs.get(http_request.method)) is not None:
            await verb(http_request)
        else:
            refusal = refuse(405, INVALID_REQUEST, "method not allowed", allow=", ".join(verbs))
            await send_refusal(http_request.send, refusal)

    async def _ask(
        self, http_request: HttpRequest, path: str, verbs: Verbs | None
    ) -> Refusal | None:
        """Find out who calls, where that matters; why it may not in."""
        access = self._access
        if verbs is None:
            # Probes are for everybody; the metrics tell of what others do.
            return (
                await access.knows(http_request) if access.asks and path == METRICS_PATH else None
            )
        if http_request.begun is not None:
            return None
        refusal = await access.enter(http_request)
        if refusal is None and http_request.method == "GET":
            refusal = access.charges(http_request.principal)
        return refusal

    def _own_path(self, path: str) -> str:
        """The path without the prefix that a proxy may have left in it."""
        if self._root_path and path.startswith(f"{self._root_path}/"):
            return path.removeprefix(self._root_path)
        return path
