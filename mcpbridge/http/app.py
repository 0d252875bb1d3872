"""Where every request arrives: guarded first, then taken to its face.

A plain ASGI application: the calls that matter pass no router and no middleware, which would cost
as much as all the rest of a call.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from mcpbridge.http.admin import METRICS_PATH
from mcpbridge.http.auth.access import Door
from mcpbridge.http.origin_check import ClientGone, check_source
from mcpbridge.http.request import Begun, Head, Incoming
from mcpbridge.http.responses import send_json, send_refusal
from mcpbridge.http.transports.sse import MESSAGES_PATH, SSE_PATH, LegacySse
from mcpbridge.http.transports.streamable_http import Streamable
from mcpbridge.rules.access.hosts import HostRules, readable_by
from mcpbridge.rules.faults import INTERNAL_ERROR, INVALID_REQUEST
from mcpbridge.rules.mcp.admission import Refusal, refuse
from mcpbridge.wire.messages import Request

log = logging.getLogger("mcpbridge.http")


Verbs = dict[str, Callable[[Incoming], Awaitable[None]]]
"""What serves each HTTP method of a path."""
PROBED = ("GET", "HEAD")
"""The HTTP methods of probes and metrics."""


class Endpoint:
    """The ASGI application of one bridge."""

    def __init__(
        self,
        streamable: Streamable,
        legacy: LegacySse | None,
        admin: ASGIApp,
        rules: HostRules,
        *,
        mcp_path: str,
        root_path: str,
        door: Door | None = None,
    ) -> None:
        """Put the faces in their places.

        Args:
            streamable: Serves the MCP path and `/`.
            legacy: Serves `/sse` and `/messages`, if they are served.
            admin: Serves every other path.
            rules: Which Host and Origin may in.
            mcp_path: The MCP path.
            root_path: A prefix that a proxy may leave in the paths of requests.
            door: Finds out who calls; without one everybody may.
        """
        self._admin = admin
        self._door = door or Door()
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
        incoming = Incoming.of(scope, receive, send)
        try:
            await self._serve(incoming)
        except ClientGone:
            log.debug("request.abandoned")
        except Exception:
            # Nothing is in the table of refusals for this: a bug of ours. The server library
            # closes the connection where the response has begun already.
            log.exception("request.failed", extra={"method": incoming.method})
            await send_refusal(send, refuse(500, INTERNAL_ERROR, "internal error"))

    def methods(self, path: str) -> Iterable[str]:
        """The HTTP methods of a path; of one that is nobody's, those of probes."""
        return self._faces.get(self._own_path(path).removesuffix("/"), PROBED)

    def may_begin(self, head: Head) -> bool:
        """Whether calls under a head may be begun by `begin`: it passes all rules on heads."""
        verbs = self._faces.get(self._own_path(head.path).removesuffix("/"))
        if verbs is not self._faces[""] or head.method != "POST":
            return False
        # On the short way an answer has no headers of its own, and some page waits for such.
        origin = head.get(b"origin")
        if origin is not None and readable_by(origin, self._rules) is not None:
            return False
        return check_source(head, self._rules) is None and self._streamable.may_begin(head)

    def begin(self, head: Head, request: Request) -> Begun | None:
        """Begin a call whose head `may_begin`; None where it has to come as a request of HTTP."""
        if not self._door.may_pass(head, request):
            return None
        begun = self._streamable.begin(head, request)
        if begun is not None:
            begun.principal = head.principal
            self._door.passed(begun.principal)
        return begun

    async def _serve(self, incoming: Incoming) -> None:
        refusal = check_source(incoming, self._rules)
        if refusal is not None:
            await send_refusal(incoming.send, refusal)
            return
        path = self._own_path(incoming.path)
        verbs = self._faces.get(path.removesuffix("/"))
        refusal = await self._ask(incoming, path, verbs)
        if refusal is not None:
            await send_refusal(incoming.send, refusal)
        elif verbs is None and path in self._door.documents and incoming.method in PROBED:
            await send_json(incoming.send, 200, self._door.documents[path])
        elif verbs is None:
            await self._admin({**incoming.scope, "path": path}, incoming.receive, incoming.send)
        elif (verb := verbs.get(incoming.method)) is not None:
            await verb(incoming)
        else:
            refusal = refuse(405, INVALID_REQUEST, "method not allowed", allow=", ".join(verbs))
            await send_refusal(incoming.send, refusal)

    async def _ask(self, incoming: Incoming, path: str, verbs: Verbs | None) -> Refusal | None:
        """Find out who calls, where that matters; why it may not in."""
        door = self._door
        if verbs is None:
            # Probes are for everybody; the metrics tell of what others do.
            return await door.knows(incoming) if door.asks and path == METRICS_PATH else None
        if incoming.begun is not None:
            return None
        refusal = await door.enter(incoming)
        if refusal is None and incoming.method == "GET":
            refusal = door.charges(incoming.principal)
        return refusal

    def _own_path(self, path: str) -> str:
        """The path without the prefix that a proxy may have left in it."""
        if self._root_path and path.startswith(f"{self._root_path}/"):
            return path.removeprefix(self._root_path)
        return path
