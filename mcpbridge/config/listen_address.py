"""Which address to bind, and the reason that the start-up line gives for it."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from mcpbridge.config.command import COMMAND_LINE
from mcpbridge.config.model import ListenSettings
from mcpbridge.config.self_url import split_address, split_socket
from mcpbridge.errors import ConfigError
from mcpbridge.http.admin import AdminSettings
from mcpbridge.http.server.listeners import Bind

_FIRST_HANDED_OVER = 3


def bind_of(settings: ListenSettings, origins: Mapping[str, str], *, in_cluster: bool) -> Bind:
    """The address to listen on.

    Without a host it is loopback, since a bridge has no lock on its door, unless this process is
    somewhere that has nobody on loopback: the main process of a container, or a pod.

    Args:
        settings: What was asked for.
        origins: Where each of the fields of `settings` came from; nothing for a default.
        in_cluster: `KUBERNETES_SERVICE_HOST` is set.

    Raises:
        ConfigError: No such address or port, or two of them.
    """
    host, port, origin = settings.host, settings.port, origins.get("port", "")
    if settings.listen is not None:
        origin = origins.get("listen", "")
        above = {field: _stands_above(field, origins) for field in ("host", "port")}
        try:
            found = split_socket(settings.listen)
            if found is not None and not any(above.values()):
                host = _default(0, in_cluster=in_cluster).host
                return Bind(host, 0, "as asked for", path=found[0], mode=found[1])
            listen_host, listen_port = (
                split_address(settings.listen) if found is None else (host, port)
            )
        except ValueError as error:
            raise ConfigError("--listen", origin, f"{settings.listen!r} {error}") from None
        host = host if above["host"] else listen_host
        port = port if above["port"] else listen_port
    if port > 65535:
        raise ConfigError("--port", origin, f"{port} is no port", "1 to 65535, or 0 for a free one")
    if host is not None:
        return Bind(host, port, "as asked for")
    return _default(port, in_cluster=in_cluster)


def _default(port: int, *, in_cluster: bool) -> Bind:
    if in_cluster:
        why = "KUBERNETES_SERVICE_HOST is set: probes come from outside"
        return Bind("0.0.0.0", port, why)  # nosec B104 # only there; the start-up line says why
    if os.getpid() == 1:
        why = "process 1 of a container: its ports are reached from outside"
        return Bind("0.0.0.0", port, why)  # nosec B104 # only there; the start-up line says why
    return Bind("127.0.0.1", port, "only this machine may connect; --host opens it to others")


def handed_over(bind: Bind, env: Mapping[str, str], pid: int) -> Bind:
    """The socket that systemd opened for us in place of the address, if it did.

    Args:
        bind: Where to listen otherwise.
        env: The environment; `LISTEN_FDS` counts the sockets, `LISTEN_PID` says whom they are for.
        pid: Our own process id.

    Source: systemd, sd_listen_fds(3); the first socket is descriptor 3.
    """
    if env.get("LISTEN_PID") != str(pid) or env.get("LISTEN_FDS", "0") in ("", "0"):
        return bind
    why = "handed over by LISTEN_FDS"
    return msgspec.structs.replace(bind, fd=_FIRST_HANDED_OVER, path=None, why=why)


def admin_bind_of(settings: AdminSettings, origins: Mapping[str, str], main: Bind) -> Bind | None:
    """The address for probes and metrics alone, or None where they have none of their own.

    Args:
        settings: What was asked for.
        origins: Where each of the fields of `settings` came from.
        main: Where MCP is served.

    Raises:
        ConfigError: No such port, a host without a port, or MCP's own address.
    """
    port, origin = settings.port, origins.get("port", "")
    if port is None:
        if settings.host is not None:
            problem = "is given without --admin-port"
            raise ConfigError("--admin-host", origins.get("host", ""), problem, "give both")
        return None
    if port > 65535:
        raise ConfigError(
            "--admin-port", origin, f"{port} is no port", "1 to 65535, or 0 for a free one"
        )
    if port == main.port and port != 0:
        raise ConfigError("--admin-port", origin, f"{port} is the port of the MCP path", "another")
    return Bind(settings.host or main.host, port, "--admin-port")


def _stands_above(field: str, origins: Mapping[str, str]) -> bool:
    """Whether --host or --port wins over a --listen: a flag over a variable, else not."""
    if origins.get(field) != COMMAND_LINE:
        return False
    if origins.get("listen") == COMMAND_LINE:
        problem = f"--{field} is given as well"
        raise ConfigError("--listen", COMMAND_LINE, problem, "give only one")
    return True
