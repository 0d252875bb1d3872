"""ASGI without a server: a request whose receiver a test feeds, and a sender that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from starlette.types import Message

from mcpbridge.http.disconnect import Disconnect
from mcpbridge.http.request import DISCONNECT, HttpRequest

GONE: Message = {"type": "http.disconnect"}


def body(data: bytes, *, more: bool = False) -> Message:
    """A piece of a body as a server hands it on."""
    return {"type": "http.request", "body": data, "more_body": more}


class Wire:
    """Both ends of one HTTP exchange; without more to receive the client just waits."""

    def __init__(self, *pieces: Message) -> None:
        self.sent: list[Message] = []
        self.received = 0
        """That many pieces were taken."""
        self.reads = True
        """The client takes what is sent to it."""
        self.disconnect = Disconnect()
        self._news = asyncio.Event()
        self._pieces: asyncio.Queue[Message] = asyncio.Queue()
        for piece in pieces:
            self._pieces.put_nowait(piece)

    async def receive(self) -> Message:
        """As a server's `receive`."""
        piece = await self._pieces.get()
        self.received += 1
        return piece

    async def send(self, message: Message) -> None:
        """As a server's `send`."""
        while not self.reads:
            await asyncio.Event().wait()
        self.sent.append(message)
        self._news.set()

    async def until_chunks(self, count: int) -> None:
        """Wait until the body has come in that many pieces."""
        while len(self.chunks) < count:
            self._news.clear()
            await self._news.wait()

    def leave(self) -> None:
        """The client goes away."""
        self._pieces.put_nowait(GONE)
        self.disconnect.happen()

    @property
    def status(self) -> int:
        """Of the response."""
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        """Of the response, by lower-case name."""
        return {name.decode().lower(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def chunks(self) -> list[bytes]:
        """The body so far, as it was sent; an ended one ends with an empty chunk."""
        return [message["body"] for message in self.sent[1:]]

    @property
    def ended(self) -> bool:
        """The response is whole."""
        return len(self.sent) > 1 and not self.sent[-1].get("more_body", False)


def scope(
    method: str = "POST", path: str = "/mcp", headers: Iterable[tuple[bytes, bytes]] = ()
) -> dict[str, Any]:
    """The scope of a request."""
    return {"type": "http", "method": method, "path": path, "headers": list(headers)}


def scope_on(wire: Wire, method: str = "POST", **more: Any) -> dict[str, Any]:
    """The scope of a request on a connection whose client may leave."""
    return {**scope(method, **more), DISCONNECT: wire.disconnect}


def http_request(wire: Wire, *headers: tuple[bytes, bytes]) -> HttpRequest:
    """A POST with these headers."""
    return HttpRequest.of(scope_on(wire, headers=headers), wire.receive, wire.send)
