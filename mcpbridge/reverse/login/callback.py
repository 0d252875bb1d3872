"""Where the browser brings the code of a login: a listener on loopback, for one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

CALLBACK_PATH = "/callback"
_HOST = "127.0.0.1"
_HEAD_BYTES = 16 << 10
_HEAD_S = 10.0
_DONE = "The login is done. You may close this page."
_WRONG = "This is not the answer to the login that mcpbridge waits for."


class Callback:
    """A listener for the browser; works within `listening`."""

    def __init__(self, is_ours: Callable[[str], bool]) -> None:
        """Make it.

        Args:
            is_ours: Returns whether a URI answers this login; others are refused.
        """
        self._is_ours = is_ours
        self._answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.uri = ""
        """Where the browser must be sent."""

    @asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[None]:
        """Listen until the block ends; port 0 is a free one. Raise OSError if it is taken."""
        server = await asyncio.start_server(self._serve, _HOST, port, limit=_HEAD_BYTES)
        self.uri = f"http://{_HOST}:{server.sockets[0].getsockname()[1]}{CALLBACK_PATH}"
        try:
            yield
        finally:
            server.close()

    async def answer(self) -> str:
        """Wait for the browser; return the whole URI that it asked for."""
        return await self._answer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
            method, _, target = head.split(b"\r\n", 1)[0].decode("ascii", "replace").partition(" ")
            target = target.rpartition(" ")[0]
            uri = self.uri.removesuffix(CALLBACK_PATH) + target
            path = target.partition("?")[0]
            good = method == "GET" and path == CALLBACK_PATH and self._is_ours(uri)
            text = (_DONE if good else _WRONG).encode()
            writer.write(
                b"HTTP/1.1 %b\r\ncontent-type: text/plain; charset=utf-8\r\n"
                b"cache-control: no-store\r\nreferrer-policy: no-referrer\r\n"
                b"connection: close\r\ncontent-length: %d\r\n\r\n%b"
                % (b"200 OK" if good else b"400 Bad Request", len(text), text)
            )
            await writer.drain()
            if good and not self._answer.done():
                self._answer.set_result(uri)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # not the browser, or it has left
        finally:
            writer.close()
