"""`mcpbridge sidecar`: a proxy in front of an MCP server in the same pod that counts requests.

It replaces the MCP Operator's metrics sidecar: the same flags, ports, probes and metric names. It
reads no environment variables and writes no file.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import anyio
import msgspec
import uvicorn
from anyio.abc import TaskGroup
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Router
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mcpbridge import __version__
from mcpbridge.http.pages import PageRoute, router_of
from mcpbridge.http.server.connection import protocol_with
from mcpbridge.http.server.limits import BAND, ArrivalLimits, ConnectionLimits, Connections
from mcpbridge.http.server.server import HttpServer, listener_at, server_of
from mcpbridge.rules.access.hosts import HostRules
from mcpbridge.rules.mcp.methods import KNOWN_REQUESTS
from mcpbridge.rules.supervision.fd_budget import OWN
from mcpbridge.runtime.exit_status import EXIT_FORCED, EXIT_OK, EXIT_START
from mcpbridge.runtime.loop_watchdog import has_uvloop
from mcpbridge.runtime.open_files import raise_open_files
from mcpbridge.runtime.signals import EndOrders, heard_signals
from mcpbridge.sidecar.metrics import Dashboard
from mcpbridge.sidecar.proxy import ReverseProxy
from mcpbridge.sidecar.upstream import Upstream
from mcpbridge.telemetry.logs import LogSettings, logging_to_stderr

log = logging.getLogger("mcpbridge.app")

DRAIN_S = 20.0
"""Seconds that open responses may take after the first signal; a pod has 30 s in all."""
_ENDING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGQUIT") if hasattr(signal, name)
)

_FILES_OF_REQUEST = 2
"""A connection of a client, and one to the server."""
_ANY_SIZE = 1 << 50
"""Bodies are passed on piece by piece, so only the server bounds their size."""

Address = tuple[str, int]


class SidecarSettings(msgspec.Struct, frozen=True):
    """The addresses, TLS and limits of the sidecar."""

    target: Address
    listen: Address
    metrics: Address
    cert_file: str | None = None
    """With `key_file`: serve TLS."""
    key_file: str | None = None
    newest_only: bool = False
    """Accept only TLS 1.3."""
    unknown: tuple[str, ...] = ()
    """Unknown flags, which are ignored."""
    max_connections: int | None = None
    """Client connections at once; None for as many as the limit on open files allows."""
    connections: ConnectionLimits = msgspec.field(default_factory=ConnectionLimits)
    arrival: ArrivalLimits = msgspec.field(default_factory=ArrivalLimits)


def run(settings: SidecarSettings, logs: LogSettings) -> int:
    """Serve until told to end; return the exit status.

    | status | meaning |
    |---|---|
    | 0 | ended as asked |
    | 1 | could not listen, or could not read the certificate |
    | 3 | ended by a second signal |
    """
    with logging_to_stderr(logs), ExitStack() as held:
        for flag in settings.unknown:
            log.warning("sidecar.unknown_flag", extra={"flag": flag})
        try:
            main, metrics = (
                held.enter_context(listener_at(*address))
                for address in (settings.listen, settings.metrics)
            )
            sidecar = Sidecar(settings, main, metrics)
        except (OSError, UnicodeError, ssl.SSLError) as error:
            problem = getattr(error, "strerror", None) or str(error)
            log.error("sidecar.failed", extra={"problem": problem})
            return EXIT_START
        return anyio.run(sidecar.run, backend_options={"use_uvloop": has_uvloop()})


class Sidecar:
    """One run of the program, from its first signal handler to its exit status."""

    def __init__(
        self, settings: SidecarSettings, main: socket.socket, metrics: socket.socket
    ) -> None:
        """Build the parts; raise OSError if a certificate cannot be read."""
        self._upstream = Upstream(*settings.target)
        self._dashboard = Dashboard(__version__, self._upstream.url, KNOWN_REQUESTS)
        self._relay = ReverseProxy(self._upstream, self._dashboard)
        self._sockets = (main, metrics)
        more: dict[str, Any] = {
            "date_header": False,
            "timeout_keep_alive": settings.connections.keep_alive_s,
        }
        if settings.cert_file is not None:
            more |= {"ssl_certfile": settings.cert_file, "ssl_keyfile": settings.key_file}
        protocol = protocol_with(settings.arrival, self._connections(settings))
        server = server_of(self._relay, protocol, **more)
        if settings.cert_file is not None:
            _load_tls(server.config, newest_only=settings.newest_only)
        self._servers: tuple[HttpServer, ...] = (
            server,
            server_of(self._probes(), HttpToolsProtocol),
        )
        self._ending = anyio.Event()
        self._status = EXIT_OK

    def _connections(self, settings: SidecarSettings) -> Connections:
        most = (raise_open_files() - OWN - BAND) // _FILES_OF_REQUEST
        return Connections(
            settings.connections,
            self._relay,
            most=max(1, min(most, settings.max_connections or most)),
            max_request_bytes=_ANY_SIZE,
            rules=HostRules(loopback=False),
        )

    async def run(self) -> int:
        """Run the sidecar; return the exit status."""
        with heard_signals() as signals:
            async with anyio.create_task_group() as watch, self._upstream.open():
                watch.start_soon(self._hear_signals, signals)
                async with anyio.create_task_group() as serving:
                    await self._serve(serving)
                watch.cancel_scope.cancel()
        log.info("sidecar.ended", extra={"status": self._status})
        return self._status

    async def _serve(self, serving: TaskGroup) -> None:
        for server, listener in zip(self._servers, self._sockets, strict=True):
            serving.start_soon(server.serve, [listener])
            await server.listening.wait()
        addresses = [listener.getsockname() for listener in self._sockets]
        facts = {
            "listen": f"{addresses[0][0]}:{addresses[0][1]}",
            "metrics": f"{addresses[1][0]}:{addresses[1][1]}",
            "target": self._upstream.url,
            "version": __version__,
        }
        log.info("sidecar.started", extra=facts)
        await self._ending.wait()
        await self._relay.drain(DRAIN_S if self._status == EXIT_OK else 0.0)
        for server in self._servers:
            server.stop()

    async def _hear_signals(self, signals: AsyncIterator[signal.Signals]) -> None:
        orders = EndOrders()
        async for received in signals:
            if received not in _ENDING:
                continue
            order = orders.received()
            log.info("sidecar.signal", extra={"signal": received.name, "count": orders.count})
            if order is None:
                continue
            if order == 1:
                self._ending.set()
            elif order == 2:
                self._status = EXIT_FORCED
                for server in self._servers:
                    server.stop_now()
                self._relay.end_all()
            else:
                os._exit(128 + signal.SIGINT)

    def _probes(self) -> Router:
        async def healthz(request: Request) -> Response:
            return JSONResponse({"status": "ok"})

        async def readyz(request: Request) -> Response:
            missing = {}
            if self._relay.draining:
                missing["draining"] = "shutting down"
            elif not await self._upstream.reachable():
                missing["target"] = f"{self._upstream.url} does not accept connections"
            content = {"status": "unavailable" if missing else "ok", "missing": missing}
            return JSONResponse(content, 503 if missing else 200)

        async def metrics(request: Request) -> Response:
            body, content_type = self._dashboard.render(request.headers.get("accept"))
            return Response(body, headers={"content-type": content_type})

        named = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
        return router_of([PageRoute(path, answer) for path, answer in named.items()])


def _load_tls(config: uvicorn.Config, *, newest_only: bool) -> None:
    """Read certificate and key now, so that an invalid one stops the start."""
    config.load()
    if config.ssl is not None:
        newest, usual = ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2
        config.ssl.minimum_version = newest if newest_only else usual
