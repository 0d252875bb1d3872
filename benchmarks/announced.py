"""How the servers beside the bridge listen, and tell where: as the bridge does."""

from __future__ import annotations

import json
import socket
import sys


def listener() -> socket.socket:
    """A socket that listens on a free port of the loopback."""
    return socket.create_server(("127.0.0.1", 0), backlog=2048)


def announce(listening: socket.socket) -> None:
    """Write the line that tells the address: JSON, with the event "serve.started"."""
    host, port = listening.getsockname()
    line = {"event": "serve.started", "url": f"http://{host}:{port}/mcp"}
    print(json.dumps(line), file=sys.stderr, flush=True)
