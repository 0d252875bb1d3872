"""uvicorn as a part of the process: no signal handlers, an event for listening, a bounded end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, cast

import anyio
import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import Server

_GRACE_S = 3
_STALLED_AFTER_S = 2.0
_BACKLOG = 1024


class HttpServer(Server):
    """A uvicorn server that handles no signals and sets an event when it listens."""

    def __init__(self, config: uvicorn.Config, listening_options: Mapping[str, Any]) -> None:
        """Make a server.

        Args:
            config: The configuration of uvicorn.
            listening_options: Further arguments of the event loop's `create_server`, as for TLS.
        """
        super().__init__(config)
        self.listening = anyio.Event()
        self._stalled_after_s = _STALLED_AFTER_S
        self._listening_options = listening_options

    def end_keep_alive(self) -> None:
        """Have the responses that have not begun say `Connection: close`.

        For requests that are in flight; those that come later ask whether the process ends.
        """
        for connection in self.server_state.connections:
            cast(Any, connection).end_keep_alive()

    def stop(self, stalled_after_s: float = _STALLED_AFTER_S) -> None:
        """Begin to end: `serve` returns when connections have ended.

        Args:
            stalled_after_s: Seconds that clients have to take their last bytes.
        """
        self._stalled_after_s = stalled_after_s
        self.should_exit = True

    def stop_now(self) -> None:
        """End without waiting for connections."""
        self.should_exit = self.force_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: `runtime.signals` alone handles signals."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and set `listening`."""
        # uvicorn supports neither an open unix socket nor a time limit for TLS handshakes.
        self.servers = [await self._listen(each) for each in sockets or ()]
        # Set by the method that this one replaces: uvicorn calls `shutdown` only if it is set.
        self.started = True
        self.listening.set()

    async def _listen(self, listener: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        unix = listener.family == getattr(socket, "AF_UNIX", None)
        create = loop.create_unix_server if unix else loop.create_server
        options = {"ssl": self.config.ssl, **self._listening_options}
        return await create(self._protocol, sock=listener, backlog=_BACKLOG, **options)

    def _protocol(self) -> asyncio.Protocol:
        make = cast(Callable[..., asyncio.Protocol], self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state={})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; cut clients that do not read after `stalled_after_s`."""
        # Beside uvicorn's own end, which waits until each connection has sent what it has.
        async with anyio.create_task_group() as abort:
            abort.start_soon(self._abort_stalled)
            await super().shutdown(sockets)
            abort.cancel_scope.cancel()

    async def _abort_stalled(self) -> None:
        # All responses are written by now; uvicorn would wait for a client that does not read.
        await anyio.sleep(self._stalled_after_s)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()


def server_of(
    app: ASGIApp,
    protocol: Callable[..., asyncio.Protocol],
    *,
    listening_options: Mapping[str, Any] = MappingProxyType({}),
    **more: Any,
) -> HttpServer:
    """Return a server of an application.

    Args:
        app: The ASGI application.
        protocol: Makes the protocol of each connection; see `connection.protocol_with`.
        listening_options: Further arguments of the event loop's `create_server`.
        more: Further settings of uvicorn.
    """
    return HttpServer(
        uvicorn.Config(
            cast(Any, app),
            interface="asgi3",
            http=cast(Any, protocol),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_GRACE_S,
            **more,
        ),
        listening_options,
    )


def listener_at(host: str, port: int) -> socket.socket:
    """Return a bound socket that does not listen yet, so that a taken port is known at once.

    Raises:
        OSError: The address cannot be bound.
        UnicodeError: The host cannot be written as a DNS name.
    """
    # As bytes: Python would encode a str as a DNS name, with tables that take 3 ms and 1 MiB.
    name = host.encode() if host.isascii() else host
    family, kind, protocol, _, address = socket.getaddrinfo(
        name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # On Windows SO_REUSEADDR lets two programs listen on one port, and this one forbids it.
        exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
        listener.setsockopt(socket.SOL_SOCKET, exclusive or socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and host == "::":
            # `::` means all addresses, those of IPv4 too, whatever the system's default is.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener


def inherited_listener(fd: int) -> socket.socket:
    """Return the listening socket that the parent process has opened.

    Raises:
        OSError: The descriptor is not a listening TCP socket.
    """
    listener = socket.socket(fileno=fd)
    listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if listener.family not in (socket.AF_INET, socket.AF_INET6) or not listens:
        listener.close()
        raise OSError("not a listening TCP socket")
    listener.set_inheritable(False)
    return listener
