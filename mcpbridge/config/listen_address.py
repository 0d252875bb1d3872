"""Chooses the address to bind, and the reason that the start-up line gives for it."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
from collections.abc import Mapping

import msgspec

from mcpbridge import DISTRIBUTION
from mcpbridge.config.command import COMMAND_LINE
from mcpbridge.config.model import AdminSettings, Config, ListenSettings
from mcpbridge.config.self_url import split_address, split_socket
from mcpbridge.config.values import shown
from mcpbridge.errors import ConfigError
from mcpbridge.http.server.listeners import Bind
from mcpbridge.rules.supervision.shutdown_times import times_within
from mcpbridge.settings import Unit

_FIRST_HANDED_OVER = 3
_LOCALHOST = "localhost"


def bind_of(settings: ListenSettings, origins: Mapping[str, str], *, in_cluster: bool) -> Bind:
    """Return the address to listen on.

    Without a host it is loopback, by IPv4 and IPv6, since the bridge does not authenticate by
    default, unless this process runs where no client is on loopback: as the main process of a
    container, or in a pod.

    Args:
        settings: The settings.
        origins: The origin of each field of `settings`; none for a default.
        in_cluster: `KUBERNETES_SERVICE_HOST` is set.

    Raises:
        ConfigError: An invalid address or port, or two of them.
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
        raise ConfigError(
            "--port", origin, f"invalid port {port} (expected 1-65535)", "0 picks a free one"
        )
    if host is not None:
        return Bind(host, port, "as asked for", both_loopbacks=host == _LOCALHOST)
    return _default(port, in_cluster=in_cluster)


def _default(port: int, *, in_cluster: bool) -> Bind:
    if in_cluster:
        why = "KUBERNETES_SERVICE_HOST is set: probes come from outside"
        return Bind("0.0.0.0", port, why)  # nosec B104 # only there; the start-up line says why
    if os.getpid() == 1:
        why = "process 1 of a container: its ports are reached from outside"
        return Bind("0.0.0.0", port, why)  # nosec B104 # only there; the start-up line says why
    why = "only this machine may connect; --host opens it to others"
    return Bind("127.0.0.1", port, why, both_loopbacks=True)


def handed_over(bind: Bind, env: Mapping[str, str], pid: int) -> Bind:
    """Return the socket that systemd passed to this process, else `bind`.

    Args:
        bind: Address to listen on otherwise.
        env: The environment; `LISTEN_FDS` counts the sockets, `LISTEN_PID` names their process.
        pid: Id of this process.

    Source: systemd, sd_listen_fds(3); the first socket is descriptor 3.
    """
    if env.get("LISTEN_PID") != str(pid) or env.get("LISTEN_FDS", "0") in ("", "0"):
        return bind
    why = "handed over by LISTEN_FDS"
    return msgspec.structs.replace(bind, fd=_FIRST_HANDED_OVER, path=None, why=why)


def admin_bind_of(settings: AdminSettings, origins: Mapping[str, str], main: Bind) -> Bind | None:
    """Return the address of the admin listener, or None if it shares the MCP port.

    Args:
        settings: The settings.
        origins: The origin of each field of `settings`.
        main: Address of the MCP listener.

    Raises:
        ConfigError: An invalid port, a host without a port, or the address of the MCP listener.
    """
    port, origin = settings.port, origins.get("port", "")
    if port is None:
        if settings.host is not None:
            problem = "is given without --admin-port"
            raise ConfigError("--admin-host", origins.get("host", ""), problem, "give both")
        return None
    if port > 65535:
        raise ConfigError(
            "--admin-port", origin, f"invalid port {port} (expected 1-65535)", "0 picks a free one"
        )
    if port == main.port and port != 0:
        raise ConfigError("--admin-port", origin, f"{port} is the port of the MCP path", "another")
    both = main.both_loopbacks if settings.host is None else settings.host == _LOCALHOST
    return Bind(settings.host or main.host, port, "--admin-port", both_loopbacks=both)


def peer_bind_of(config: Config, origins: Mapping[str, str], env: Mapping[str, str]) -> Bind | None:
    """Return the address at which other replicas reach this one; None if it serves alone.

    Args:
        config: The configuration otherwise.
        origins: The origin of each field of its settings of replicas.
        env: The environment; `POD_IP` is the address of this replica.

    Raises:
        ConfigError: There is no key, no address, the port is taken, several servers are served,
            there is a store that cannot be used, or no time in which sessions could be held.
    """
    replicas = config.settings.replicas
    peers, origin = replicas.peers, origins.get("peers", "")
    if replicas.store is not None:
        _check_store(origins.get("store", ""), peers=peers is not None)
    if replicas.hold_sessions_s:
        _check_hold(config, origins.get("hold_sessions_s", ""))
    if peers is None:
        return None
    if config.settings.servers.config is not None:
        problem = "replicas of a process with several servers are not supported"
        raise ConfigError("--peers", origin, problem, "give each server a Deployment")
    if config.keyring is None:
        problem = "replicas need a common key, with which they prove themselves to each other"
        remedy = "set MCPBRIDGE_STATE_KEY or MCPBRIDGE_STATE_KEY_FILE to the same key for all"
        raise ConfigError("--peers", origin, problem, remedy)
    if peers.port in (config.bind.port, config.admin_bind and config.admin_bind.port):
        problem = f"{peers.port} is the port of clients or of probes"
        raise ConfigError("--peers", origin, problem, "give another, as NAME:PORT")
    return Bind(_own_address(env), peers.port, "--peers")


def _check_store(origin: str, *, peers: bool) -> None:
    """Refuse a store that no replica would use, or that cannot be asked."""
    if not peers:
        problem = "only replicas that serve together have a store"
        raise ConfigError("--store", origin, problem, "give --peers as well")
    if importlib.util.find_spec("redis") is None:
        problem, remedy = "redis-py is not installed", f"pip install '{DISTRIBUTION}[redis]'"
        raise ConfigError("--store", origin, problem, remedy)


def _check_hold(config: Config, origin: str) -> None:
    """Refuse a time for which no replica would hold sessions, or no pod lives."""
    flag = "--hold-sessions"
    replicas, grace_s = config.settings.replicas, config.settings.shutdown.grace_s
    if replicas.peers is None:
        problem = "only replicas that serve together hold sessions at their end"
        raise ConfigError(flag, origin, problem, "give --peers as well")
    cutoff_s = times_within(grace_s).cutoff_s
    if replicas.hold_sessions_s >= cutoff_s:
        held, grace = (shown(s, Unit.SECONDS) for s in (replicas.hold_sessions_s, grace_s))
        problem = f"{held} leaves no time to hand sessions over within --grace {grace}"
        remedy = f"give less than {shown(cutoff_s, Unit.SECONDS)}, or lengthen --grace"
        raise ConfigError(flag, origin, problem, remedy)


def _own_address(env: Mapping[str, str]) -> str:
    text = env.get("POD_IP", "").strip()
    remedy = "set it to an address at which other replicas reach this one"
    try:
        if not text:
            text = socket.gethostbyname(socket.gethostname())
        address = ipaddress.ip_address(text)
    except OSError as error:
        problem = f"is not set, and the host name has no address: {error.strerror or error}"
        raise ConfigError("POD_IP", "", problem, remedy) from None
    except ValueError:
        raise ConfigError("POD_IP", "", f"{text!r} is not an IP address", remedy) from None
    if address.is_unspecified or address.is_multicast:
        raise ConfigError("POD_IP", "", f"{text} is not the address of a host", remedy)
    return str(address)


def _stands_above(field: str, origins: Mapping[str, str]) -> bool:
    """Return whether --host or --port overrides --listen, as a flag overrides a variable."""
    if origins.get(field) != COMMAND_LINE:
        return False
    if origins.get("listen") == COMMAND_LINE:
        problem = f"--{field} is given as well"
        raise ConfigError("--listen", COMMAND_LINE, problem, "give only one")
    return True
