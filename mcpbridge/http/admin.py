"""Health probes: is the loop alive, may traffic come, is the start over.

Source: Kubernetes, liveness, readiness and start-up probes.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcpbridge.bridge.gate import Gate
from mcpbridge.http.responses import refusal_body
from mcpbridge.rules.admission import refuse
from mcpbridge.rules.faults import INVALID_REQUEST


def admin_app(gate: Gate) -> Starlette:
    """The application behind every path that is not MCP's own.

    | path | 200 when |
    |---|---|
    | `/livez` | the event loop answers |
    | `/readyz` | a child has completed its handshake, there is room for a session, no drain |
    | `/startupz` | that has been so once |
    | `/health`, `/healthz` | requests are taken: neither draining nor given up |

    Each answers JSON that names what is missing; 503 otherwise.
    """

    async def livez(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        return _verdict(gate.ready, gate.missing)

    async def startupz(request: Request) -> Response:
        return _verdict(gate.started, gate.missing)

    async def health(request: Request) -> Response:
        return _verdict(gate.serving, gate.missing)

    routes = [
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/startupz", startupz),
        Route("/health", health),
        Route("/healthz", health),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _refused})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = refuse(error.status_code, INVALID_REQUEST, error.detail)
    return Response(
        refusal_body(refusal),
        error.status_code,
        headers=dict(error.headers or {}),
        media_type="application/json",
    )


def _verdict(good: bool, missing: Mapping[str, str]) -> JSONResponse:
    status = "ok" if good else "unavailable"
    return JSONResponse({"status": status, "missing": dict(missing)}, 200 if good else 503)
