"""Makes channels of connected sockets, and connects or listens on either side.

A channel over a socket is one over pipes whose two descriptors are the same socket: it reads until
the peer's end of stream, writes, and closes only the writing half when it has nothing more to send.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from typing import Any

from mcpbridge.channels.pipes import PipeChannel, PipeLimits
from mcpbridge.rules.access.shares import Account
from mcpbridge.wire.socket_address import Address, TcpAddress, UnixAddress

_BACKLOG = 128
_LIVE_WITHIN_S = 1.0
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""A peer that vanished without closing the connection is detected within a minute."""


def detect_loss(
    watched: socket.socket, idle_s: int, interval_s: int, probes: int, unacknowledged_s: float
) -> None:
    """Let the kernel detect that a TCP peer has vanished, if the platform can.

    Args:
        watched: A connected socket, or one that listens, for all of its connections.
        idle_s: Seconds of silence after which a keepalive probe is sent.
        interval_s: Seconds between two probes.
        probes: Unanswered probes after which the peer is considered gone.
        unacknowledged_s: Seconds that sent data may stay unacknowledged.
    """
    options = {
        "TCP_KEEPIDLE": idle_s,
        "TCP_KEEPALIVE": idle_s,  # what macOS calls it
        "TCP_KEEPINTVL": interval_s,
        "TCP_KEEPCNT": probes,
        "TCP_USER_TIMEOUT": int(unacknowledged_s * 1000),
    }
    with contextlib.suppress(OSError):
        watched.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options.items():
        number = getattr(socket, name, None)
        if number is not None:
            with contextlib.suppress(OSError):
                watched.setsockopt(socket.IPPROTO_TCP, number, value)


def socket_channel(
    connected: socket.socket, limits: PipeLimits, account: Account | None = None
) -> PipeChannel:
    """Return a channel over a connected socket, which the channel then owns.

    Args:
        connected: The socket.
        limits: Bounds on what is read.
        account: See `PipeChannel`.
    """
    # A copy of the descriptor, so that each direction can watch and close its own one.
    write_fd = os.dup(connected.fileno())
    return PipeChannel(connected.detach(), write_fd, limits, _end_writing, account)


async def dial(address: Address) -> socket.socket:
    """Connect to an address and return the socket; the caller bounds the wait.

    Raises:
        OSError: The address does not accept connections or cannot be reached.
    """
    match address:
        case UnixAddress():
            return await _connected(socket.AF_UNIX, address.raw)
        case TcpAddress(host, port):
            return await _dial_tcp(host, port)


@contextlib.contextmanager
def listening(address: Address, mode: int) -> Iterator[socket.socket]:
    """Listen on a socket until the block ends, then remove its file, if it has one.

    The file of a listener that has ended is replaced.

    Args:
        address: Address to listen on.
        mode: Permissions of the file of a unix socket: who may write to it may connect.

    Raises:
        OSError: Another process listens there, or the system refuses.
    """
    if isinstance(address, UnixAddress) and not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "this system has no unix sockets")
    path = address.path if isinstance(address, UnixAddress) and not address.is_abstract else None
    if path is not None:
        _remove_stale(path)
    with _bound(address) as listener:
        if path is not None:
            # Before it listens: until then no client can connect, whatever the umask allows.
            os.chmod(path, mode)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        ours = os.stat(path) if path is not None else None
        try:
            yield listener
        finally:
            if path is not None and ours is not None:
                _remove_own(path, ours)


def tune(connected: socket.socket) -> None:
    """Set the options that a connection of either side needs."""
    connected.setblocking(False)
    if connected.family == getattr(socket, "AF_UNIX", None):  # Windows has none
        return
    # A message is written whole; waiting for more data would only delay it.
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):  # not everywhere
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _dial_tcp(host: str, port: int) -> socket.socket:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    problem = OSError(f"{host} has no address")
    for family, _, _, _, where in found:
        try:
            return await _connected(family, where)
        except OSError as error:
            problem = error
    raise problem


async def _connected(family: int, where: Any) -> socket.socket:
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        tune(connecting)
        await asyncio.get_running_loop().sock_connect(connecting, where)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _bound(address: Address) -> socket.socket:
    where: Any
    match address:
        case UnixAddress():
            family, where = socket.AF_UNIX, address.raw
        case TcpAddress(host, port):
            family, _, _, _, where = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_own(path: str, ours: os.stat_result) -> None:
    """Remove the file of our socket, unless another process listens there by now."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.stat(path), ours):
            os.unlink(path)


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(f"{path} exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trying:
        trying.settimeout(_LIVE_WITHIN_S)
        try:
            trying.connect(path)
        except ConnectionRefusedError:
            # Left behind by a process that had no time to remove it.
            os.unlink(path)
            return
        except OSError:
            # Either state is possible: its backlog is full, or we may not connect.
            pass
    raise OSError(f"another process listens on {path}")


def _end_writing(fd: int) -> None:
    """Tell the peer that no more data comes; it may still send."""
    with socket.socket(fileno=fd) as writing, contextlib.suppress(OSError):
        writing.shutdown(socket.SHUT_WR)
