"""Many clients that only listen: `python -m tests.suites.listeners URL COUNT`.

Each opens a session and then its standalone stream, on one connection. One word a line on standard
input, one line of JSON on standard output for it: `open` opens them all, `?` tells what they have
heard so far, `close` closes their connections. A separate process, so that reading for thousands
costs the suite's own clock nothing; bare protocols, so that it costs the machine little.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import cast
from urllib.parse import urlsplit

import uvloop

from tests.support.bridge_process import ACCEPT, initialize

AT_ONCE = 64
"""Clients that open their streams at the same moment."""
WITHIN_S = 30.0
REVISION = "2025-11-25"
COMMENT = b": keep-alive"


class Listener(asyncio.Protocol):
    """One client, from `initialize` to the end of its connection."""

    def __init__(self, host: str, heard: Counter[str]) -> None:
        self.listening = asyncio.get_running_loop().create_future()
        """Set when the head of the stream is there; failed where it will not be."""
        self.transport: asyncio.Transport
        self._host = host
        self._heard = heard
        self._begun = b""
        self._asked = False
        """The GET has been sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say `initialize`."""
        self.transport = cast(asyncio.Transport, transport)
        self._send("POST", ACCEPT, json.dumps(initialize(0, REVISION)).encode())

    def data_received(self, data: bytes) -> None:
        """Read what has come so far."""
        if self.listening.done():
            self._heard["comments"] += data.count(COMMENT)
            self._heard["events"] += data.count(b"event: message")
            return
        self._begun += data
        head, end, rest = self._begun.partition(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if end)
        if not end or len(rest) < int(lines.get(b"content-length", b"0")):
            return
        self._begun = b""
        if not head.startswith(b"HTTP/1.1 200 "):
            self.listening.set_exception(OSError(head.decode("latin-1")))
        elif self._asked:
            self._heard["open"] += 1
            self.listening.set_result(None)
        else:
            self._asked = True
            session_id = lines[b"mcp-session-id"].decode()
            headers = {"mcp-session-id": session_id, "mcp-protocol-version": REVISION}
            self._send("GET", {"accept": "text/event-stream", **headers})

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it; a caller that waits for the stream waits without end."""
        if not self.listening.done():
            self.listening.set_exception(ConnectionResetError("closed before it listened"))
        else:
            self._heard["open"] -= 1

    def _send(self, method: str, headers: dict[str, str], body: bytes = b"") -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = (
            f"{method} /mcp HTTP/1.1\r\nhost: {self._host}\r\n{lines}"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)


async def main() -> None:
    """Obey each word until there are no more."""
    url, count = urlsplit(sys.argv[1]), int(sys.argv[2])
    loop = asyncio.get_running_loop()
    heard: Counter[str] = Counter(open=0)
    made: list[Listener] = []
    places = asyncio.Semaphore(AT_ONCE)

    async def listen() -> None:
        async with places, asyncio.timeout(WITHIN_S):
            _, listener = await loop.create_connection(
                lambda: Listener(url.netloc, heard), url.hostname or "", url.port or 80
            )
            made.append(listener)
            await listener.listening

    while word := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        if word == "open":
            await asyncio.gather(*(listen() for _ in range(count)))
        elif word == "close":
            for listener in made:
                listener.transport.close()
            made.clear()
        print(json.dumps(heard), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
