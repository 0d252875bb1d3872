"""The limit below `bare_asgi`: httptools and uvloop alone, without a server around them.

Run as a program, like `bare_asgi`. A protocol that parses the requests and answers a constant; it
lacks all that makes a server: timeouts, limits, flow control, an orderly end.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

import httptools
import uvloop

# Run as a file, the folder on the path is this one; the package is found from the one above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.announced import announce, listener


class Constant(asyncio.Protocol):
    """One connection."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse; the end of a request calls the next one."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Answer."""
        self._transport.write(self._answer)


async def main() -> None:
    """Serve until SIGTERM."""
    body = sys.stdin.buffer.read()
    size = str(len(body)).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %b\r\n\r\n"
    answer = head % size + body
    listening = listener()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Constant(answer), sock=listening)
    announce(listening)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
