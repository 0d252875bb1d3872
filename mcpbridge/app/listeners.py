"""The sockets that clients come to: opened before anything starts, and told of at the start."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from mcpbridge.app.server import inherited_listener, listener_at
from mcpbridge.app.sockets import watch_peers
from mcpbridge.channels.sockets import listening
from mcpbridge.config.model import Bind
from mcpbridge.wire.socket_address import UnixAddress

_EVERYWHERE = "0.0.0.0"  # nosec B104 # looked up, not bound
_REACHABLE = {_EVERYWHERE: "127.0.0.1", "::": "::1"}


def opened(bind: Bind, held: ExitStack, send_timeout_s: float) -> socket.socket | str:
    """A bound socket that `held` closes, or why there is none.

    Args:
        bind: Where.
        held: Closes it, and removes its file if it has one.
        send_timeout_s: A client that is there may read nothing for so long.
    """
    try:
        if bind.fd is not None:
            listener = held.enter_context(inherited_listener(bind.fd))
        elif bind.path is not None:
            return held.enter_context(listening(UnixAddress(bind.path), bind.mode))
        else:
            listener = held.enter_context(listener_at(bind.host, bind.port))
    except (OSError, UnicodeError) as error:
        # UnicodeError: a host that cannot even be written as a DNS name.
        return f"cannot listen on {_wanted(bind)}: {getattr(error, 'strerror', None) or error}"
    watch_peers(listener, send_timeout_s)
    return listener


def address_of(bind: Bind, listener: socket.socket) -> str:
    """Where it listens: `HOST:PORT`, or `unix:PATH,mode=0600`."""
    if bind.path is not None:
        return f"unix:{bind.path},mode={bind.mode:04o}"
    return f"{_bracketed(bind.host)}:{listener.getsockname()[1]}"


def url_of(bind: Bind, listener: socket.socket, path: str, *, secure: bool) -> str:
    """By which URL a client of this machine reaches it; of a unix socket `unix:PATH`."""
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
