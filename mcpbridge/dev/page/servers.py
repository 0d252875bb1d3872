"""`GET /ui/state` and `POST /ui/reload`: the servers of the page, their clients, and the reload.

    GET /ui/state
    {"version": "0.1.0", "authenticates": false, "servers": [{"name": "demo", "state": "ready",
     "reason": "", "pid": 7, "path": "/mcp", "clients": ["vscode 1.120#a1b2"]}]}

    POST /ui/reload?server=demo
    {"problem": null}

A reload replaces the processes of a server that is configured already, as a save of its files does;
the page starts nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import parse_qs

import msgspec

from mcpbridge import __version__
from mcpbridge.bridge.bridge import Bridge
from mcpbridge.fleet.member import Status
from mcpbridge.http.request import HttpRequest
from mcpbridge.http.responses import HttpResponse, refusing
from mcpbridge.rules.access.hosts import shown
from mcpbridge.rules.faults import INTERNAL_ERROR, INVALID_REQUEST
from mcpbridge.rules.mcp.admission import refuse
from mcpbridge.telemetry.logs import SERVER

STATE_PATH = "/ui/state"
RELOAD_PATH = "/ui/reload"
_NO_STORE = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_MOST_CLIENTS = 100
"""Most sessions of one server that are named."""


class ShownServer(msgspec.Struct, frozen=True):
    """A server of the page."""

    name: str
    path: str
    """Where its clients connect, below the address of the listener."""
    status: Status
    bridge: Bridge | None
    """None if it cannot be served."""
    log_name: str | None = None
    """Its name in the log; None if the process has one server."""


ShownServers = Callable[[], Iterable[ShownServer]]
"""Returns the servers as they are now."""


class ServersView:
    """The answers to requests for the servers, and for a reload of one."""

    def __init__(self, servers: ShownServers, *, authenticates: bool) -> None:
        """Make it.

        Args:
            servers: Returns the servers.
            authenticates: Whether clients of MCP need credentials.
        """
        self._servers = servers
        self._authenticates = authenticates

    async def state(self, http_request: HttpRequest) -> None:
        """Answer which servers there are, and which clients have sessions with them."""
        servers = [
            {
                "name": each.name,
                "state": each.status.state,
                "reason": each.status.reason,
                "pid": each.status.pid,
                "path": each.path,
                "clients": _clients(each.bridge),
            }
            for each in self._servers()
        ]
        facts = {"version": __version__, "authenticates": self._authenticates, "servers": servers}
        await _answer(http_request, facts)

    async def reload(self, http_request: HttpRequest) -> None:
        """Reload the server that the request names; answer when that is done."""
        query = parse_qs(http_request.scope.get("query_string", b"").decode("latin-1"))
        name = query.get("server", [""])[0]
        found = [each for each in self._servers() if each.name == name]
        if not found:
            problem = f"unknown server {shown(name)!r}"
            await refusing(refuse(404, INVALID_REQUEST, problem)).finish(http_request)
            return
        (server,) = found
        bridge = server.bridge
        if bridge is None or bridge.drain.ending:
            problem = f"the server {shown(name)!r} is not running"
            await refusing(refuse(503, INTERNAL_ERROR, problem)).finish(http_request)
            return
        # The reload runs in a task that takes this context over.
        SERVER.set(server.log_name)
        record = await bridge.reloader.reload("asked for on the page")
        await _answer(http_request, {"problem": record.problem})


async def _answer(http_request: HttpRequest, facts: object) -> None:
    body = msgspec.json.encode(facts)
    await HttpResponse(200, body, _NO_STORE).finish(http_request)


def _clients(bridge: Bridge | None) -> list[str]:
    if bridge is None:
        return []
    names = [session.in_flight.client_name for session in bridge.sessions if session.used]
    return names[-_MOST_CLIENTS:]
