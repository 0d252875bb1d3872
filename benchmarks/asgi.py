"""The HTTP server of the bridge under an application of a few lines: what limits are made of."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, MutableMapping

import uvicorn

from benchmarks.announced import announce, listener

Event = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Event, Receive, Send], Awaitable[None]]


class _Announcing(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        announce((sockets or [])[0])


def serve(application: Application) -> None:
    """Serve with httptools and uvloop until SIGTERM."""
    config = uvicorn.Config(
        application,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        log_level="critical",
        access_log=False,
    )
    _Announcing(config).run(sockets=[listener()])


def head(size: int) -> Event:
    """The event that begins a 200 with that many bytes of JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(size).encode())]
    return {"type": "http.response.start", "status": 200, "headers": headers}
