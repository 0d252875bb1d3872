"""Who may read the frames: a client with the token that `mcpbridge dev` prints, of no other site.

The token is sent in `Authorization` and never as a cookie, so that a page of another site cannot
make the browser send it. It is checked last: a request of another site is refused for that.

Source: RFC 6750, 2.1 and 3; W3C, Fetch Metadata Request Headers, 2.2.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from mcpbridge.http.auth.authenticator import bearer_token, challenged
from mcpbridge.http.request import HttpRequest, RequestHead
from mcpbridge.http.responses import refusing
from mcpbridge.rules.faults import INVALID_REQUEST
from mcpbridge.rules.mcp.admission import Reason, Refusal, refuse

_CHALLENGE = 'Bearer realm="mcpbridge dev"'
_UNKNOWN = "the token that mcpbridge dev prints is needed in the Authorization header"
_OWN_SITES = (None, "none", "same-origin")
"""Values of `Sec-Fetch-Site`: a program, a person who pastes the address, the page itself."""

Serve = Callable[[HttpRequest], Awaitable[None]]


class PageAccess:
    """The check of requests for what the page shows and does."""

    def __init__(self, token: str) -> None:
        """Make it for this token, which it compares in constant time."""
        self._token = token.encode()

    def refusal(self, head: RequestHead) -> Refusal | None:
        """Return why a request is refused; None if it may be served.

        Host, Origin and Fetch Metadata have passed the rules for all requests, by which pages of
        other programs on this machine may be served; here they may not.
        """
        origin = head.get(b"origin")
        if origin is not None and _host_of(origin) != (head.get(b"host") or "").lower():
            problem = "only the page of mcpbridge itself may ask for this"
            return refuse(403, INVALID_REQUEST, problem, reason=Reason.ORIGIN)
        if head.get(b"sec-fetch-site") not in _OWN_SITES:
            problem = "another site may not ask for this"
            return refuse(403, INVALID_REQUEST, problem, reason=Reason.CROSS_SITE)
        token = bearer_token(head)
        if token is None or not secrets.compare_digest(token.encode(), self._token):
            return challenged(401, _UNKNOWN, _CHALLENGE)
        return None


class Guarded:
    """An ASGI application with one method, for requests that `PageAccess` admits."""

    def __init__(self, access: PageAccess, method: str, serve: Serve) -> None:
        self._access = access
        self._method = method
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        http_request = HttpRequest.of(scope, receive, send)
        head = http_request.head
        refusal = self._access.refusal(head)
        if refusal is None and head.method != self._method:
            refusal = refuse(405, INVALID_REQUEST, "method not allowed", allow=self._method)
        if refusal is not None:
            await refusing(refusal).finish(http_request)
        else:
            await self._serve(http_request)


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
