"""Where every request arrives: guarded first, then taken to its face.

A plain ASGI application: the calls that matter pass no router and no middleware, which would cost
as much as all the rest of a call.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from mcpbridge.http.guard import ClientGone, check_source
from mcpbridge.http.incoming import Incoming
from mcpbridge.http.responses import send_refusal
from mcpbridge.http.stateful import METHODS, Stateful
from mcpbridge.rules.admission import refuse
from mcpbridge.rules.faults import INTERNAL_ERROR, INVALID_REQUEST
from mcpbridge.rules.hosts import HostRules

log = logging.getLogger("mcpbridge.http")


class Endpoint:
    """The ASGI application of one bridge."""

    def __init__(self, stateful: Stateful, admin: ASGIApp, mcp_path: str, rules: HostRules) -> None:
        self._admin = admin
        self._rules = rules
        bare = "/" + mcp_path.strip("/")
        self._mcp_paths = frozenset(("/", bare, f"{bare}/"))
        self._verbs: dict[str, Callable[[Incoming], Awaitable[None]]] = {
            "POST": stateful.post,
            "GET": stateful.get,
            "DELETE": stateful.delete,
        }

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

    async def _serve(self, incoming: Incoming) -> None:
        refusal = check_source(incoming, self._rules)
        if refusal is not None:
            await send_refusal(incoming.send, refusal)
        elif incoming.path not in self._mcp_paths:
            await self._admin(incoming.scope, incoming.receive, incoming.send)
        elif (verb := self._verbs.get(incoming.method)) is not None:
            await verb(incoming)
        else:
            refusal = refuse(405, INVALID_REQUEST, "method not allowed", allow=METHODS)
            await send_refusal(incoming.send, refusal)
