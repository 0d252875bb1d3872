"""Which address to bind, and the reason that the start-up line gives for it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mcpbridge.config.model import Bind, ListenSettings
from mcpbridge.config.reach import split_address
from mcpbridge.errors import ConfigError

COMMAND_LINE = "the command line"
"""The origin of what was given as a flag."""


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
        try:
            listen_host, listen_port = split_address(settings.listen)
        except ValueError as error:
            raise ConfigError("--listen", origin, f"{settings.listen!r} {error}") from None
        host = host if _stands_above("host", origins) else listen_host
        port = port if _stands_above("port", origins) else listen_port
    if port > 65535:
        raise ConfigError("--port", origin, f"{port} is no port", "1 to 65535, or 0 for a free one")
    if host is not None:
        return Bind(host, port, "as asked for")
    if in_cluster:
        return Bind("0.0.0.0", port, "KUBERNETES_SERVICE_HOST is set: probes come from outside")
    if os.getpid() == 1:
        return Bind("0.0.0.0", port, "process 1 of a container: its ports are reached from outside")
    return Bind("127.0.0.1", port, "only this machine may connect; --host opens it to others")


def _stands_above(field: str, origins: Mapping[str, str]) -> bool:
    """Whether --host or --port wins over a --listen: a flag over a variable, else not."""
    if origins.get(field) != COMMAND_LINE:
        return False
    if origins.get("listen") == COMMAND_LINE:
        problem = f"--{field} is given as well"
        raise ConfigError("--listen", COMMAND_LINE, problem, "give only one")
    return True
