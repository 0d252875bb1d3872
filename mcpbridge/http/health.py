"""The answers to probes and scrapes. Imported by `http.admin` when the first of them comes."""

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
"""From an `Accept` header to a text and its content type."""


def probes(readiness: Readiness, texts: Mapping[str, Render]) -> ASGIApp:
    """The application behind every path that is not MCP's own.

    | path | 200 when |
    |---|---|
    | `/livez` | the event loop answers |
    | `/readyz` | a child has completed its handshake, no drain |
    | `/startupz` | that has been so once |
    | `/health`, `/healthz` | requests are taken: neither draining nor given up |

    Each answers JSON that names what is missing; 503 otherwise.

    Args:
        readiness: What the answers are taken from.
        texts: What else is served, by its path: the metrics.
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
    """While the process ends, the next request of whoever asked is better sent elsewhere."""
    return {"connection": "close"} if "draining" in readiness.blockers else {}
