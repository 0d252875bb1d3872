"""The limit: uvicorn with httptools and uvloop under an application that answers a constant.

Run as a program; the JSON to answer is its standard input. It reads each request's body to its
end, as any server must, and decides nothing. It tells its address as the bridge does, in one JSON
line on standard error with the event "serve.started".
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping

import uvicorn

Event = MutableMapping[str, object]


class Announcing(uvicorn.Server):
    """A server that says where it listens once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then write the start-up line."""
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()
        line = {"event": "serve.started", "url": f"http://{host}:{port}/mcp"}
        print(json.dumps(line), file=sys.stderr, flush=True)


def main() -> None:
    """Serve until SIGTERM."""
    body = sys.stdin.buffer.read()
    size = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", size)]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    end = {"type": "http.response.body", "body": body}

    async def application(
        scope: Event,
        receive: Callable[[], Awaitable[Event]],
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        while (await receive()).get("more_body"):
            pass
        await send(start)
        await send(end)

    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        application,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        log_level="critical",
        access_log=False,
    )
    Announcing(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
