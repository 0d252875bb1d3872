"""Health probes and metrics: what their routes answer. `http.app` has the paths.

| path | 200 when |
|---|---|
| `/livez` | the event loop answers |
| `/readyz` | a child has completed its handshake, no drain |
| `/startupz` | that has been so once |
| `/health`, `/healthz` | requests are taken: neither draining nor given up |

Each answers JSON that names what is missing; 503 otherwise.

Source: Kubernetes, liveness, readiness and start-up probes; Prometheus, exposition formats.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

READ_METHODS = ("GET", "HEAD")
"""The HTTP methods of probes, metrics and documents."""

Render = Callable[[str | None], Awaitable[tuple[bytes, str]]]
"""From an `Accept` header to the metrics and their content type."""


class Condition(Protocol):
    """What probes ask for: see `bridge.readiness.Readiness`."""

    @property
    def ready(self) -> bool:
        """Whether one more session can be served."""

    @property
    def started(self) -> bool:
        """Whether that has been so once."""

    @property
    def serving(self) -> bool:
        """Whether requests are taken."""

    @property
    def blockers(self) -> Mapping[str, str]:
        """What is missing, by name, with its reason."""


class Probes:
    """The answers of one bridge, or of a process with several, to health probes."""

    def __init__(self, readiness: Condition) -> None:
        self._readiness = readiness

    async def livez(self, request: Request) -> Response:
        """Answer that the event loop does."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """Say whether one more session can be served."""
        return _verdict(self._readiness.ready, self._readiness)

    async def startupz(self, request: Request) -> Response:
        """Say whether the bridge has been ready once."""
        return _verdict(self._readiness.started, self._readiness)

    async def health(self, request: Request) -> Response:
        """Say whether requests are taken."""
        return _verdict(self._readiness.serving, self._readiness)


def scrape(render: Render) -> Callable[[Request], Awaitable[Response]]:
    """Return the answer to scrapes of metrics."""

    async def metrics(request: Request) -> Response:
        body, content_type = await render(request.headers.get("accept"))
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    return metrics


def rendering(make: Callable[[], Callable[[str | None], tuple[bytes, str]]]) -> Render:
    """Return what renders with the function that `make` makes at the first scrape, in a thread.

    It imports much; until then an idle bridge is without it, and the loop does not wait for it.
    """
    made: list[Callable[[str | None], tuple[bytes, str]]] = []

    async def render(accept: str | None) -> tuple[bytes, str]:
        if not made:
            made.append(await to_thread.run_sync(make))
        return made[0](accept)

    return render


def _verdict(good: bool, readiness: Condition) -> JSONResponse:
    content = {"status": "ok" if good else "unavailable", "missing": dict(readiness.blockers)}
    return JSONResponse(content, 200 if good else 503)
