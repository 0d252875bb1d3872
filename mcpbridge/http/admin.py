"""Health probes, and metrics: is the loop alive, may traffic come, is the start over, how much.

They are served beside MCP, or, with `--admin-port`, on a port of their own: a NetworkPolicy cannot
tell paths apart. Then the probes stay on both, since whoever balances MCP asks for them there.

Source: Kubernetes, liveness, readiness and start-up probes; Prometheus, exposition formats.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mcpbridge.bridge.gate import Gate
from mcpbridge.http.guard import check_source
from mcpbridge.http.incoming import Head
from mcpbridge.http.responses import refusal_body, send_refusal
from mcpbridge.rules.admission import refuse
from mcpbridge.rules.faults import INVALID_REQUEST
from mcpbridge.rules.hosts import HostRules
from mcpbridge.settings import Unit, setting

METRICS_PATH = "/metrics"

Render = Callable[[str | None], Awaitable[tuple[bytes, str]]]
"""From an `Accept` header to the metrics and their content type."""


@dataclasses.dataclass(frozen=True, slots=True)
class AdminSettings:
    """Where probes and metrics are served."""

    port: int | None = setting(
        None,
        "--admin-port",
        "Port for health probes and `/metrics` alone; without one they are beside the MCP path."
        " 0 picks a free one.",
        group="Listening",
        unit=Unit.INTEGER,
        minimum=0,
    )
    host: str | None = setting(
        None,
        "--admin-host",
        "Address to bind for --admin-port; that of the MCP path if not given.",
        group="Listening",
        metavar="ADDRESS",
    )


class AdminDoor:
    """The application behind `--admin-port`: the rules on Host and Origin, then `admin_app`."""

    def __init__(self, app: ASGIApp, rules: HostRules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        refusal = check_source(Head.in_scope(scope), self._rules)
        if refusal is not None:
            await send_refusal(send, refusal)
        else:
            await self._app(scope, receive, send)


def admin_app(gate: Gate, render: Render | None = None) -> Starlette:
    """The application behind every path that is not MCP's own.

    | path | 200 when |
    |---|---|
    | `/livez` | the event loop answers |
    | `/readyz` | a child has completed its handshake, there is room for a session, no drain |
    | `/startupz` | that has been so once |
    | `/health`, `/healthz` | requests are taken: neither draining nor given up |

    Each answers JSON that names what is missing; 503 otherwise. With `render` there is `/metrics`
    besides.
    """

    async def livez(request: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_farewell(gate))

    async def readyz(request: Request) -> Response:
        return _verdict(gate.ready, gate)

    async def startupz(request: Request) -> Response:
        return _verdict(gate.started, gate)

    async def health(request: Request) -> Response:
        return _verdict(gate.serving, gate)

    routes = [
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/startupz", startupz),
        Route("/health", health),
        Route("/healthz", health),
    ]
    if render is not None:
        routes.append(Route(METRICS_PATH, _metrics(render)))
    return Starlette(routes=routes, exception_handlers={HTTPException: _refused})


def _metrics(render: Render) -> Callable[[Request], Awaitable[Response]]:
    async def metrics(request: Request) -> Response:
        body, content_type = await render(request.headers.get("accept"))
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    return metrics


def rendering(make: Callable[[], Callable[[str | None], tuple[bytes, str]]]) -> Render:
    """Renders with what `make` makes at the first scrape, in a thread.

    It imports much; until then an idle bridge is without it, and the loop does not wait for it.
    """
    made: list[Callable[[str | None], tuple[bytes, str]]] = []

    async def render(accept: str | None) -> tuple[bytes, str]:
        if not made:
            made.append(await to_thread.run_sync(make))
        return made[0](accept)

    return render


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = refuse(error.status_code, INVALID_REQUEST, error.detail)
    return Response(
        refusal_body(refusal),
        error.status_code,
        headers=dict(error.headers or {}),
        media_type="application/json",
    )


def _verdict(good: bool, gate: Gate) -> JSONResponse:
    content = {"status": "ok" if good else "unavailable", "missing": dict(gate.missing)}
    return JSONResponse(content, 200 if good else 503, headers=_farewell(gate))


def _farewell(gate: Gate) -> Mapping[str, str]:
    """While the process ends, the next request of whoever asked is better sent elsewhere."""
    return {"connection": "close"} if "draining" in gate.missing else {}
