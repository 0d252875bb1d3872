"""The routes of several servers in one process: each below `/servers/NAME`.

| path | answer |
|---|---|
| `/servers` | the state of each server, as JSON |
| `/servers/NAME/mcp`, `/sse`, `/messages` | MCP |
| `/servers/NAME/readyz` | whether this server is ready |
| `/mcp`, `/sse` | those of the only server, or of the one marked as default |

The names change while the program runs, so that one route finds the server of each request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from mcpbridge.fleet.directory import Directory
from mcpbridge.fleet.member import Member
from mcpbridge.http.auth.access import AccessControl
from mcpbridge.http.health import READ_METHODS, Probes
from mcpbridge.http.request import (
    PARSED_HEAD,
    HttpRequest,
    RequestHead,
    StartedCall,
    route_path,
)
from mcpbridge.http.responses import HttpResponse, refusing
from mcpbridge.http.server.fast_path import PostHandler
from mcpbridge.rules.faults import INTERNAL_ERROR, INVALID_REQUEST
from mcpbridge.rules.mcp.admission import Refusal, refuse
from mcpbridge.telemetry.logs import SERVER

SERVERS_PATH = "/servers"
_MCP = "/mcp"
_SSE = "/sse"
_READYZ = "/readyz"

Verbs = Mapping[str, Callable[[HttpRequest], Awaitable[None]]]

E = TypeVar("E")


def below_of(name: str) -> str:
    """Return the path below which a server is reached, without a slash at its end."""
    return f"{SERVERS_PATH}/{quote(name, safe='')}"


def address_of(name: str) -> str:
    """Return the path of Streamable HTTP of a server."""
    return below_of(name) + _MCP


class PathRoute(Protocol):
    """A route of one path; see `http.app.McpRoute`."""

    path: str
    verbs: Verbs

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""


class ServerPaths:
    """What leads to one server."""

    def __init__(
        self,
        name: str,
        routes: Iterable[PathRoute],
        posts: PostHandler,
        probes: Probes,
        window_s: float,
    ) -> None:
        """Make it.

        Args:
            name: The server's name.
            routes: The routes of MCP, each for a path below `below_of(name)`.
            posts: Handles POSTs on the fast path.
            probes: Answer whether the server is ready.
            window_s: Seconds after which an answer is an event stream.
        """
        self.window_s = window_s
        self.posts = posts
        self.probes = probes
        self._routes = {route.path.removeprefix(below_of(name)): route for route in routes}

    def route(self, tail: str) -> PathRoute | None:
        """Return the route of a path below the server's; None if there is none."""
        return self._routes.get(tail)


class MemberHead(RequestHead):
    """The head of a request to one server, for its further requests under the same bytes."""

    __slots__ = ("member", "original")

    def __init__(self, member: Member[ServerPaths], head: RequestHead) -> None:
        """Make it of the head as it came.

        Args:
            member: The server.
            head: The head, whose checks before the routes have found the client's address.
        """
        parts = (head.raw, head.values, head.names, head.accepts, head.client)
        super().__init__(head.method, head.path, *parts)
        self.member = member
        self.original = head

    @property
    def peer(self) -> str:
        """The client's address, as the checks before the routes have found it."""
        return self.original.peer


class FleetPosts(Generic[E]):
    """Handles POSTs that a connection has whole, for `http.server.fast_path`."""

    def __init__(self, directory: Directory[E, ServerPaths], window_s: float) -> None:
        """Make it.

        Args:
            directory: Knows which servers take calls.
            window_s: Seconds after which an answer is an event stream, on the fast path.
        """
        self._directory = directory
        self._window_s = window_s

    def handle(self, head: RequestHead, body: bytes) -> StartedCall | HttpResponse | None:
        """Handle a POST as `PostHandling` does; None if its server has been replaced since."""
        if not isinstance(head, MemberHead):
            return None
        member = head.member
        if self._directory.find(member.name) is not member:
            return None
        if member.paths.window_s != self._window_s:
            return None
        return member.paths.posts.handle(head, body)


class ServerRoutes(BaseRoute, Generic[E]):
    """The paths of all servers by name, and those of the default one."""

    def __init__(
        self,
        directory: Directory[E, ServerPaths],
        access: AccessControl,
        mcp_paths: Iterable[str],
        sse_below: str,
    ) -> None:
        """Make the route.

        Args:
            directory: Finds the server of a name.
            access: Finds out who asks for a server that is not there.
            mcp_paths: Where the default server serves Streamable HTTP.
            sse_below: The path below which it serves HTTP+SSE, without a slash at its end.
        """
        self._directory = directory
        self._access = access
        self._defaults = {path.removesuffix("/"): _MCP for path in mcp_paths}
        self._defaults.setdefault(sse_below + _SSE, _SSE)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell whether a request is for one of these paths, whatever its method."""
        if scope["type"] == "http" and self._target(route_path(scope)) is not None:
            return Match.FULL, {}
        return Match.NONE, {}

    def methods(self, path: str) -> Iterable[str]:
        """Return the HTTP methods of a path; of an unknown one, those of probes."""
        target = self._target(path)
        member = self._directory.find(target[0]) if target and target[0] is not None else None
        route = member.paths.route(target[1]) if member is not None and target else None
        return READ_METHODS if route is None else route.verbs

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request by the server that its path names."""
        target = self._target(route_path(scope))
        assert target is not None
        name, tail = target
        member = self._directory.find(name) if name is not None else None
        if tail == _READYZ and name is not None and self._directory.status(name) is not None:
            response = await self._readyz(name, member, Request(scope))
            await response(scope, receive, send)
            return
        route = member.paths.route(tail) if member is not None else None
        if member is None or route is None:
            await self._refuse(name, tail, scope, receive, send)
            return
        scope[PARSED_HEAD] = MemberHead(member, HttpRequest.of(scope, receive, send).head)
        token = SERVER.set(member.name)
        try:
            await route.handle(scope, receive, send)
        finally:
            SERVER.reset(token)

    def _target(self, path: str) -> tuple[str | None, str] | None:
        """Return name and tail of a path; a name of None if there is no default server."""
        bare = path.removesuffix("/")
        if bare.startswith(f"{SERVERS_PATH}/"):
            name, slash, tail = bare[len(SERVERS_PATH) + 1 :].partition("/")
            return name, slash + tail
        tail = self._defaults.get(bare, "")
        return (self._directory.default, tail) if tail else None

    async def _readyz(
        self, name: str, member: Member[ServerPaths] | None, request: Request
    ) -> Response:
        if member is not None:
            return await member.paths.probes.readyz(request)
        return JSONResponse({"status": "unavailable", "missing": {name: "failed"}}, 503)

    async def _refuse(
        self, name: str | None, tail: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        http_request = HttpRequest.of(scope, receive, send)
        refusal = await self._access.enter(http_request.head)
        await refusing(refusal or self._why_not(name, tail)).finish(http_request)

    def _why_not(self, name: str | None, tail: str) -> Refusal:
        names = ", ".join(self._directory.names) or "none"
        if name is None:
            problem = f"no server is the default one: ask for {SERVERS_PATH}/NAME{tail}"
            return refuse(404, INVALID_REQUEST, f"{problem} (servers: {names})")
        status = self._directory.status(name)
        if status is None:
            return refuse(404, INVALID_REQUEST, f"unknown server {name!r} (servers: {names})")
        if self._directory.find(name) is None:
            problem = f"the server {name!r} cannot be served: {status.reason}"
            return refuse(503, INTERNAL_ERROR, problem)
        return refuse(404, INVALID_REQUEST, f"unknown path {tail!r} (paths: /mcp, /sse, /readyz)")


class ServerList(Generic[E]):
    """The answer to `/servers`: the state of each server."""

    def __init__(self, directory: Directory[E, ServerPaths]) -> None:
        self._directory = directory

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        base = str(request.base_url).rstrip("/")
        servers = [self._described(name, base) for name in self._directory.names]
        return JSONResponse({"servers": servers}, headers={"cache-control": "no-store"})

    def _described(self, name: str, base: str) -> Mapping[str, Any]:
        status = self._directory.status(name)
        assert status is not None
        return {
            "name": name,
            "state": status.state,
            "reason": status.reason,
            "pid": status.pid,
            "address": base + address_of(name),
            "default": name == self._directory.default,
        }
