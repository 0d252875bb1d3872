"""The HTTP servers of the program: one for MCP, and one for probes and metrics if asked for."""

from __future__ import annotations

import errno
import functools
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from starlette.types import ASGIApp

from mcpbridge.app.build import host_rules, trusted_proxies
from mcpbridge.bridge.budget import Budget
from mcpbridge.config.model import Config
from mcpbridge.http.refusals import Refusals
from mcpbridge.http.server.connection import protocol_with
from mcpbridge.http.server.fast_path import FastPath
from mcpbridge.http.server.limits import BAND, Connections
from mcpbridge.http.server.listeners import Bind, address_of, opened, url_of
from mcpbridge.http.server.server import HttpServer, server_of
from mcpbridge.http.server.tls import Certificates, listening_options
from mcpbridge.rules.access.client_address import TrustedProxies
from mcpbridge.telemetry.metrics import Meters

if TYPE_CHECKING:
    from mcpbridge.app.replicas import PeerEndpoint

Listeners = Sequence[socket.socket]
_ALL = tuple(map(ipaddress.ip_network, ("0.0.0.0/0", "::/0")))
_PROOF_BYTES = 8 << 10
_PORT_FLAGS = ("--port", "--admin-port", "--peers NAME:PORT")
"""What chooses the port of each of the addresses."""
_FIRST_FREE_PORT = 1024
"""The ports below it are root's, unless the system is set up otherwise."""


class Sockets(msgspec.Struct, frozen=True):
    """The sockets of a process, bound."""

    mcp: Listeners
    admin: Listeners = ()
    """Those of `--admin-port`; empty if there is none."""
    peers: Listeners = ()
    """Those for other replicas; empty if there are none."""


def all_opened(config: Config, held: ExitStack) -> Sockets | str:
    """Return the bound sockets of a process, or why one of them cannot be had; see `opened`."""
    found: list[Listeners] = []
    binds = (config.bind, config.admin_bind, config.peer_bind)
    for flag, bind in zip(_PORT_FLAGS, binds, strict=True):
        sockets = opened(bind, held, config.settings.connections.send_s) if bind else ()
        if isinstance(sockets, str):
            return f"{sockets}{remedy_of(sockets, bind, flag)}" if bind else sockets
        found.append(sockets)
    return Sockets(*found)


def remedy_of(problem: str, bind: Bind, flag: str) -> str:
    """Return what to do about an address that cannot be had; empty if only its problem can say it.

    Args:
        problem: The error, which ends with that of the system.
        bind: The address.
        flag: The flag that chooses its port.
    """
    if problem.endswith(os.strerror(errno.EADDRINUSE)):
        return f"; give another port with {flag}"
    low = bind.path is None and bind.fd is None and bind.port < _FIRST_FREE_PORT
    if low and problem.endswith(os.strerror(errno.EACCES)):
        return f"; give a port from {_FIRST_FREE_PORT} on with {flag}"
    return ""


class Endpoints(msgspec.Struct, frozen=True):
    """The applications behind the listeners."""

    mcp: ASGIApp
    fast_path: FastPath
    admin: ASGIApp | None
    """The application on `--admin-port`, if there is one."""
    ending: Callable[[], bool]
    """Returns whether the process is about to end: responses then say so."""
    meters: Meters
    """Count the connections for MCP that are refused."""
    refusals: Refusals
    """Logs and counts refused requests."""
    peers: PeerEndpoint | None = None
    """The port for other replicas, if there are any."""


class Listening:
    """The HTTP servers of the program, on sockets that are bound already."""

    def __init__(
        self,
        config: Config,
        endpoints: Endpoints,
        budget: Budget,
        sockets: Sockets,
    ) -> None:
        """Make the servers; `serve` listens.

        Args:
            config: The configuration of the process.
            endpoints: The applications.
            budget: Counts the bytes of requests that arrive.
            sockets: The sockets of the process.
        """
        self._config = config
        self._listeners, self._admin, self._peers = sockets.mcp, sockets.admin, sockets.peers
        settings = config.settings
        self._certificates = Certificates(settings.tls) if settings.tls.cert is not None else None
        options: Mapping[str, Any] = {}
        if self._certificates is not None:
            options = listening_options(self._certificates.context, settings.arrival.header_s)
        make = functools.partial(_server, config, endpoints, budget)
        mcp = make(endpoints.mcp, endpoints.fast_path, options, endpoints.meters)
        self._servers = [(mcp, sockets.mcp)]
        if endpoints.admin is not None and sockets.admin:
            self._servers.append((make(endpoints.admin), sockets.admin))
        if endpoints.peers is not None and sockets.peers:
            server = make(endpoints.peers.app, endpoints.peers.fast_path, of_peers=True)
            self._servers.append((server, sockets.peers))

    async def serve(self, body: Callable[[], Awaitable[None]]) -> None:
        """Serve while `body` runs, from the moment when all servers listen; then until `stop`."""
        async with anyio.create_task_group() as serving:
            for server, listeners in self._servers:
                serving.start_soon(server.serve, list(listeners))
                # Before the address is announced: it may be used at once.
                await server.listening.wait()
            await body()

    def end_keep_alive(self) -> None:
        """Have responses say `Connection: close`, so that clients connect elsewhere next."""
        for server, _ in self._servers:
            server.end_keep_alive()

    def stop(self, last_bytes_s: float) -> None:
        """Begin to end; clients have `last_bytes_s` seconds to take their last bytes."""
        for server, _ in self._servers:
            server.stop(last_bytes_s)

    def stop_now(self) -> None:
        """End without waiting for connections."""
        for server, _ in self._servers:
            server.stop_now()

    def reread_certificates(self) -> bool:
        """Read the files of certificates again; return whether there are any."""
        if self._certificates is None:
            return False
        self._certificates.reread()
        return True

    def url(self, path: str) -> str:
        """Return the URL of a path for a client on this machine."""
        secure = self._certificates is not None
        return url_of(self._config.bind, self._listeners[0], path, secure=secure)

    def addresses(self) -> dict[str, str]:
        """Return the addresses of the listeners, as fields of the start-up log record."""
        bind, admin_bind = self._config.bind, self._config.admin_bind
        addresses = {"address": address_of(bind, self._listeners[0]), "because": bind.why}
        if len(self._listeners) > 1:
            host, port, *_ = self._listeners[1].getsockname()
            addresses["also"] = f"[{host}]:{port}"
        if admin_bind is not None and self._admin:
            addresses["admin"] = address_of(admin_bind, self._admin[0])
        if self._config.peer_bind is not None and self._peers:
            addresses["peers"] = address_of(self._config.peer_bind, self._peers[0])
        return addresses


def _server(
    config: Config,
    endpoints: Endpoints,
    budget: Budget,
    endpoint: ASGIApp,
    fast_path: FastPath | None = None,
    listening_options: Mapping[str, Any] = MappingProxyType({}),
    meters: Meters | None = None,
    *,
    of_peers: bool = False,
) -> HttpServer:
    """Return the server for the connections of one listener; `of_peers`: to other replicas."""
    settings, arrival = config.settings, config.settings.arrival
    if of_peers:
        # The proof of the other replica stands beside what its client has sent.
        most = arrival.max_header_bytes + _PROOF_BYTES
        arrival = msgspec.structs.replace(arrival, max_header_bytes=most)
    connections = Connections(
        settings.connections,
        endpoint,
        most=settings.connections.max_connections or BAND,
        max_request_bytes=settings.guard.max_request_bytes,
        rules=host_rules(config, config.bind),
        budget=budget,
        # A replica speaks for many clients, as a trusted proxy does.
        trusted=trusted_proxies(config) if not of_peers else TrustedProxies(_ALL),
        meters=meters,
        refusals=endpoints.refusals,
    )
    return server_of(
        endpoint,
        protocol_with(arrival, connections, endpoints.ending, fast_path),
        listening_options=listening_options,
        timeout_keep_alive=settings.connections.keep_alive_s,
    )
