"""HTTP as bytes: for what a client library would be too polite to send, or would not show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

WITHIN_S = 20.0


class RawResponse(NamedTuple):
    """One HTTP response."""

    status: int
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes = b""

    @property
    def error(self) -> Any:
        """The JSON-RPC error object in the body."""
        return json.loads(self.body)["error"]


class Wire:
    """One connection to a bridge."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """These bytes and no others."""
        self._writer.write(data)
        await self._writer.drain()

    async def head(self) -> RawResponse:
        """The head of the next response."""
        async with asyncio.timeout(WITHIN_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        pairs = (line.split(":", 1) for line in lines)
        return RawResponse(int(first.split()[1]), {n.lower(): value.strip() for n, value in pairs})

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        async with asyncio.timeout(WITHIN_S):
            size = int(await self._reader.readline(), 16)
            return (await self._reader.readexactly(size + 2))[:-2]

    async def response(self) -> RawResponse:
        """The next response, whole."""
        head = await self.head()
        if head.headers.get("transfer-encoding") == "chunked":
            body = b""
            while chunk := await self.chunk():
                body += chunk
        else:
            size = int(head.headers.get("content-length", "0"))
            async with asyncio.timeout(WITHIN_S):
                body = await self._reader.readexactly(size)
        return head._replace(body=body)

    async def rest(self) -> bytes:
        """All that comes until the other end closes the connection."""
        async with asyncio.timeout(WITHIN_S):
            return await self._reader.read()


@asynccontextmanager
async def wire(
    port: int, source: str = "127.0.0.1", host: str = "127.0.0.1"
) -> AsyncIterator[Wire]:
    """Connect from an address of this machine."""
    local = None if source == "127.0.0.1" else (source, 0)
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 24, local_addr=local)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def post(body: bytes, *headers: str, path: str = "/mcp") -> bytes:
    """A POST as bytes; a header given here stands in the place of the default one."""
    defaults = ("Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}")
    given = {header.partition(":")[0].lower() for header in headers}
    kept = [line for line in defaults if line.partition(":")[0].lower() not in given]
    lines = [f"POST {path} HTTP/1.1", *kept, *(line for line in headers if line[-1] != ":")]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def exchanged(port: int, data: bytes, host: str = "127.0.0.1") -> RawResponse:
    """Send on its own connection; the response."""
    async with wire(port, host=host) as connection:
        await connection.send(data)
        return await connection.response()


class Events:
    """The messages of an event stream, one at a time."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> Any:
        """The next message; None at the end of the stream."""
        async with asyncio.timeout(WITHIN_S):
            async for line in self._lines:
                if line.startswith("data:") and line[5:].strip():
                    return json.loads(line[5:])
        return None

    async def rest(self) -> list[Any]:
        """All messages up to the end."""
        found = []
        while (message := await self.next()) is not None:
            found.append(message)
        return found


@asynccontextmanager
async def streaming(
    client: httpx.AsyncClient, headers: dict[str, str], message: Any = None
) -> AsyncIterator[Events]:
    """POST a message and read the event stream that answers it; without a message GET one."""
    verb = "GET" if message is None else "POST"
    async with client.stream(verb, "/mcp", json=message, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"] == "text/event-stream"
        yield Events(response)


def recorded(folder: Path) -> bytes:
    """Everything that any recorder of this folder has read."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
