"""Connected sockets as channels, and the making of such sockets on either side.

A channel over a socket is one over pipes whose two descriptors are the same socket: read until
the peer's end of stream, write, and close the writing half alone when nothing more will be said.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from typing import Any

from mcpbridge.channels.pipes import PipeChannel, PipeLimits
from mcpbridge.wire.socket_address import Address, TcpAddress, UnixAddress

_BACKLOG = 128
_LIVE_WITHIN_S = 1.0
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""A peer that vanished without a word is noticed within a minute."""


def socket_channel(connected: socket.socket, limits: PipeLimits) -> PipeChannel:
    """A channel over a connected socket, which it owns from now on."""
    # A copy of the descriptor, so that each direction has its own to watch and to close.
    write_fd = os.dup(connected.fileno())
    return PipeChannel(connected.detach(), write_fd, limits, close_stdin=_end_writing)


async def dial(address: Address) -> socket.socket:
    """Connect; the caller bounds the wait.

    Raises:
        OSError: Nobody listens there, or it cannot be reached.
    """
    match address:
        case UnixAddress():
            return await _connected(socket.AF_UNIX, address.raw)
        case TcpAddress(host, port):
            return await _dial_tcp(host, port)


@contextlib.contextmanager
def listening(address: Address, mode: int) -> Iterator[socket.socket]:
    """A socket that listens until the block ends; its file, if it has one, ends with it.

    The file of a listener that is no more is replaced.

    Args:
        address: Where.
        mode: Permissions of the file of a unix socket: who may write to it may connect.

    Raises:
        OSError: Somebody else listens there, or the system refuses.
    """
    path = address.path if isinstance(address, UnixAddress) and not address.is_abstract else None
    if path is not None:
        _remove_stale(path)
    with _bound(address) as listener:
        if path is not None:
            # Before it listens: until then nobody can connect, whatever the umask allows.
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
    """Set what a connection of either side needs."""
    connected.setblocking(False)
    if connected.family == socket.AF_UNIX:
        return
    # A message is written whole: waiting for more to send would only cost time.
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
    """Remove the file of our socket, unless somebody else listens there by now."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.stat(path), ours):
            os.unlink(path)


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(f"{path} is there, and it is no socket")
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
            # No answer either way: its backlog is full, or we may not connect.
            pass
    raise OSError(f"another process listens on {path}")


def _end_writing(fd: int) -> None:
    """Tell the peer that nothing more comes; it may still say what it has to say."""
    with socket.socket(fileno=fd) as writing, contextlib.suppress(OSError):
        writing.shutdown(socket.SHUT_WR)
