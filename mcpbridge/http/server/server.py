"""uvicorn as a part: it takes no signals, tells when it listens, and leaves nobody behind."""

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

_GRACE_S = 3
_STALLED_AFTER_S = 2.0
_BACKLOG = 1024


class HttpServer(uvicorn.Server):
    """uvicorn, driven: signals are not its business, and it tells when it listens."""

    def __init__(self, config: uvicorn.Config, listening_options: Mapping[str, Any]) -> None:
        """Make a server.

        Args:
            config: Uvicorn's.
            listening_options: More for the event loop's `create_server`, as for TLS.
        """
        super().__init__(config)
        self.listening = anyio.Event()
        self._stalled_after_s = _STALLED_AFTER_S
        self._listening_options = listening_options

    def stop(self, stalled_after_s: float = _STALLED_AFTER_S) -> None:
        """Begin to end: `serve` returns when connections have ended.

        Args:
            stalled_after_s: How long clients have to take their last bytes.
        """
        self._stalled_after_s = stalled_after_s
        self.should_exit = True

    def stop_now(self) -> None:
        """End without waiting for connections."""
        self.should_exit = self.force_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: there is one owner of signals, and it is not this."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and tell."""
        # uvicorn knows neither of unix sockets that are open already nor of a bound on handshakes.
        self.servers = [await self._listen(each) for each in sockets or ()]
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
        """End, without waiting for clients that do not read."""
        async with anyio.create_task_group() as abort:
            abort.start_soon(self._abort_stalled)
            await super().shutdown(sockets)
            abort.cancel_scope.cancel()

    async def _abort_stalled(self) -> None:
        # Everything has been written by now; a client that does not read would be waited for.
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
    """A server of an application; `protocol` makes what serves each connection.

    Args:
        app: The ASGI application.
        protocol: As `http.server.connection.protocol_with` makes it.
        listening_options: More for the event loop's `create_server`.
        more: Further settings of uvicorn's.
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
    """A bound socket that does not listen yet: a taken port is known before anything starts.

    Raises:
        OSError: The address cannot be bound.
        UnicodeError: The host cannot even be written as a DNS name.
    """
    # Of a text Python would make a DNS name, with tables that take 3 ms and 1 MiB to load.
    name = host.encode() if host.isascii() else host
    family, kind, protocol, _, address = socket.getaddrinfo(
        name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and host == "::":
            # All addresses are meant, those of IPv4 too, however the system is set.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener


def inherited_listener(fd: int) -> socket.socket:
    """The listening socket that the one who started us had opened for us.

    Raises:
        OSError: It is no socket, or no TCP socket that listens.
    """
    listener = socket.socket(fileno=fd)
    listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if listener.family not in (socket.AF_INET, socket.AF_INET6) or not listens:
        listener.close()
        raise OSError("it is no TCP socket that listens")
    listener.set_inheritable(False)
    return listener
