"""The responses to probes and scrapes; imported by `http.admin` with the first of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from mcpbridge.bridge.readiness import Readiness
from mcpbridge.http.responses import refusal_body
from mcpbridge.rules.faults import INVALID_REQUEST
from mcpbridge.rules.mcp.admission import refuse

Render = Callable[[str | None], Awaitable[tuple[bytes, str]]]
"""Returns a text and its content type for an `Accept` header."""


def probes(readiness: Readiness, texts: Mapping[str, Render]) -> ASGIApp:
    """Return the application for all paths outside MCP.

    | path | 200 when |
    |---|---|
    | `/livez` | the event loop answers |
    | `/readyz` | a child has completed its handshake, no drain |
    | `/startupz` | `/readyz` was 200 once |
    | `/health`, `/healthz` | requests are accepted: not draining and not given up |

    Otherwise 503; the body is JSON that names what is missing.

    Args:
        readiness: Says what is missing.
        texts: Further texts by path: the metrics.
    """

    async def livez(request: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_farewell(readiness))

    async def readyz(request: Request) -> Response:
        return _verdict(readiness.ready, readiness)

    async def startupz(request: Request) -> Response:
        return _verdict(readiness.started, readiness)

    async def health(request: Request) -> Response:
        return _verdict(readiness.serving, readiness)

    routes = [
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/startupz", startupz),
        Route("/health", health),
        Route("/healthz", health),
    ]
    routes += [Route(path, _metrics(render)) for path, render in texts.items()]
    return Starlette(routes=routes, exception_handlers={HTTPException: _refused})


def _metrics(render: Render) -> Callable[[Request], Awaitable[Response]]:
    async def metrics(request: Request) -> Response:
        body, content_type = await render(request.headers.get("accept"))
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    return metrics


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = refuse(error.status_code, INVALID_REQUEST, error.detail)
    return Response(
        refusal_body(refusal),
        error.status_code,
        headers=dict(error.headers or {}),
        media_type="application/json",
    )


def _verdict(good: bool, readiness: Readiness) -> JSONResponse:
    content = {"status": "ok" if good else "unavailable", "missing": dict(readiness.blockers)}
    return JSONResponse(content, 200 if good else 503, headers=_farewell(readiness))


def _farewell(readiness: Readiness) -> Mapping[str, str]:
    """Return `Connection: close` while the process drains: its client connects elsewhere."""
    return {"connection": "close"} if "draining" in readiness.blockers else {}
