"""The sockets that clients connect to: opened before any other part starts."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack

import msgspec

from mcpbridge.channels.sockets import detect_loss, listening
from mcpbridge.http.server.server import inherited_listener, listener_at
from mcpbridge.wire.socket_address import UnixAddress

_EVERYWHERE = "0.0.0.0"  # nosec B104 # looked up, not bound
_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
_FREE_PORT_TRIES = 10
_REACHABLE = {_EVERYWHERE: "127.0.0.1", "::": "::1"}


def opened(bind: Bind, held: ExitStack, send_timeout_s: float) -> Sequence[socket.socket] | str:
    """Return the bound sockets, first that of `bind.host`, or the reason why they cannot be had.

    Args:
        bind: The address.
        held: Closes the sockets, and removes the file of one that has one.
        send_timeout_s: Seconds that a connected client may read nothing.
    """
    try:
        if bind.fd is not None:
            listeners = [inherited_listener(bind.fd)]
        elif bind.path is not None:
            return [held.enter_context(listening(UnixAddress(bind.path), bind.mode))]
        elif bind.both_loopbacks:
            listeners = _loopbacks(bind.port)
        else:
            listeners = [listener_at(bind.host, bind.port)]
    except (OSError, UnicodeError) as error:
        # UnicodeError: the host cannot be written as a DNS name.
        where = getattr(error, "filename", None) or _wanted(bind)
        return f"cannot listen on {where}: {getattr(error, 'strerror', None) or error}"
    for listener in listeners:
        held.enter_context(listener)
        watch_peers(listener, send_timeout_s)
    return listeners


def _loopbacks(port: int) -> list[socket.socket]:
    """Return a socket on 127.0.0.1, and one on ::1 at the same port if the machine has IPv6.

    Raises:
        OSError: An address cannot be bound; `filename` is the address.
    """
    for tries_left in reversed(range(_FREE_PORT_TRIES if port == 0 else 1)):
        first = _bound("127.0.0.1", port)
        try:
            return [first, _bound("::1", first.getsockname()[1])]
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno in _NO_IPV6:
                return [first]
            first.close()
            # The port that the system picked for IPv4 is another program's on IPv6.
            if error.errno != errno.EADDRINUSE or tries_left == 0:
                raise
    raise AssertionError("the last try returns or raises")


def _bound(host: str, port: int) -> socket.socket:
    try:
        return listener_at(host, port)
    except socket.gaierror:
        raise
    except OSError as error:
        # Of two addresses the error must say which.
        raise OSError(error.errno, error.strerror, f"{_bracketed(host)}:{port}") from error


def address_of(bind: Bind, listener: socket.socket) -> str:
    """Return the address of a listener: `HOST:PORT`, or `unix:PATH,mode=0600`."""
    if bind.path is not None:
        return f"unix:{bind.path},mode={bind.mode:04o}"
    return f"{_bracketed(bind.host)}:{listener.getsockname()[1]}"


def url_of(bind: Bind, listener: socket.socket, path: str, *, secure: bool) -> str:
    """Return the URL for a client on this machine; `unix:PATH` for a unix socket."""
    if bind.path is not None:
        return f"unix:{bind.path}"
    host = _bracketed(_REACHABLE.get(bind.host, bind.host))
    scheme = "https" if secure else "http"
    return f"{scheme}://{host}:{listener.getsockname()[1]}{path}"


def _wanted(bind: Bind) -> str:
    if bind.fd is not None:
        return f"descriptor {bind.fd}"
    return f"{bind.host}:{bind.port}" if bind.path is None else f"unix:{bind.path}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Bind(msgspec.Struct, frozen=True):
    """An address to listen on, and where it comes from."""

    host: str
    port: int
    why: str
    fd: int | None = None
    """An inherited listening socket, whose address host and port are then; else None."""
    path: str | None = None
    """The file of a unix socket in place of host and port; begins with `@` if it is abstract. The
    host is then used for the admin port alone."""
    mode: int = 0o600
    """Permissions of that file: users that may write to it may connect."""
    both_loopbacks: bool = False
    """Listen on ::1 too, at the same port, if the machine has it: clients may find either address
    under the name `localhost`."""


IDLE_S = 30
"""Seconds of silence after which the kernel sends a keepalive probe."""
INTERVAL_S = 10
PROBES = 3
"""Unanswered probes after which the client is considered gone."""
UNACKNOWLEDGED_S = 60.0
"""Seconds that sent data may stay unacknowledged."""


def watch_peers(listener: socket.socket, send_timeout_s: float) -> None:
    """Let the kernel detect vanished clients on all connections, if the platform can.

    Args:
        listener: The socket, before or after it listens.
        send_timeout_s: Seconds that a connected client may read nothing, which Linux counts as
            unacknowledged too.
    """
    unacknowledged_s = max(UNACKNOWLEDGED_S, 2 * send_timeout_s)
    detect_loss(listener, IDLE_S, INTERVAL_S, PROBES, unacknowledged_s)
