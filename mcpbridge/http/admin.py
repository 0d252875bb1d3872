"""Health probes, and metrics: is the loop alive, may traffic come, is the start over, how much.

They are served beside MCP, or, with `--admin-port`, on a port of their own: a NetworkPolicy cannot
tell paths apart. Then the probes stay on both, since whoever balances MCP asks for them there.

Source: Kubernetes, liveness, readiness and start-up probes; Prometheus, exposition formats.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable

from anyio import to_thread
from starlette.types import ASGIApp, Receive, Scope, Send

from mcpbridge.bridge.readiness import Readiness
from mcpbridge.http.origin_check import check_source
from mcpbridge.http.request import RequestHead
from mcpbridge.http.responses import send_refusal
from mcpbridge.rules.access.hosts import HostRules
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


class AdminApp:
    """The application behind `--admin-port`: the rules on Host and Origin, then `admin_app`."""

    def __init__(self, app: ASGIApp, rules: HostRules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        refusal = check_source(RequestHead.in_scope(scope), self._rules)
        if refusal is not None:
            await send_refusal(send, refusal)
        else:
            await self._app(scope, receive, send)


def admin_app(readiness: Readiness, render: Render | None = None) -> ASGIApp:
    """The application behind every path that is not MCP's own: what `http.health` says.

    It is made when the first request comes, in a thread, so that the loop does not wait for it:
    the framework it is written in would be a tenth of the start, and 2 MiB.
    """
    made: list[ASGIApp] = []

    def make() -> ASGIApp:
        from mcpbridge.http.health import probes

        return probes(readiness, {} if render is None else {METRICS_PATH: render})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if not made:
            made.append(await to_thread.run_sync(make))
        await made[0](scope, receive, send)

    return app


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
