"""A raw HTTP/1.1 client that costs little: one connection, one request at a time.

The suites make hundreds of thousands of calls on the processors that the bridge needs too; a full
client would take the larger part of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.support.bridge_process import ACCEPT, initialize, messages

MAX_HEAD_BYTES = 1 << 16


class Response(NamedTuple):
    """One whole answer."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    def messages(self) -> list[Any]:
        """The JSON-RPC messages in it, of a JSON body or of an event stream."""
        return messages(self.body.decode()) if self.body.strip() else []


class Connection:
    """One connection to a bridge; opened with the first request, and again when it was closed.

    Not for two requests at once.
    """

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._host = place.hostname or "127.0.0.1"
        self._port = place.port or 80
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(
        self, method: str, headers: Mapping[str, str], body: bytes = b"", *, path: str = "/mcp"
    ) -> Response:
        """Send a request and read its whole answer.

        Raises:
            OSError, EOFError: The connection failed or ended before the answer did.
        """
        reader = await self.send(method, headers, body, path=path)
        try:
            return await self._read(reader)
        except BaseException:
            self.close()
            raise

    async def send(
        self, method: str, headers: Mapping[str, str], body: bytes = b"", *, path: str = "/mcp"
    ) -> asyncio.StreamReader:
        """Send a request and leave its answer to the caller.

        Raises:
            OSError: There is no connection.
        """
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(
                self._host, self._port, limit=MAX_HEAD_BYTES
            )
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n{lines}"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        return self._reader

    def close(self) -> None:
        """Close the connection, in the middle of an answer if need be."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _read(self, reader: asyncio.StreamReader) -> Response:
        response = await _read_response(reader)
        if response.headers.get("connection") == "close":
            self.close()
        return response


async def read_response(reader: asyncio.StreamReader) -> Response | None:
    """The next whole answer; None if the connection has ended after the one before.

    Raises:
        OSError, EOFError: The connection failed, or ended within an answer.
    """
    try:
        return await _read_response(reader)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None


async def _read_response(reader: asyncio.StreamReader) -> Response:
    status, headers = await read_head(reader)
    if headers.get("transfer-encoding") == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Response(status, headers, body)


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """The status and the headers of an answer.

    Raises:
        OSError, EOFError: The connection failed or ended before the head did.
    """
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split(" ", 2)[1]), {
        name.lower(): value.strip().lower() if name.lower() != "mcp-session-id" else value.strip()
        for name, _, value in pairs
    }


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(chunks)


async def open_session(
    connection: Connection, revision: str = "2025-11-25", capabilities: Any = None
) -> dict[str, str]:
    """Initialize a session on a connection; the headers that name it in every further request."""
    hello = json.dumps(initialize(0, revision, capabilities)).encode()
    response = await connection.request("POST", ACCEPT, hello)
    assert response.status == 200, response
    assert "result" in response.messages()[-1], response
    headers = {
        **ACCEPT,
        "mcp-session-id": response.headers["mcp-session-id"],
        "mcp-protocol-version": revision,
    }
    told = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
    response = await connection.request("POST", headers, told)
    assert response.status == 202, response
    return headers


def echo_call(request_id: str, text: str) -> bytes:
    """The body of a call of the tool `echo`; `request_id` as JSON, `text` without quotes."""
    return (
        f'{{"jsonrpc":"2.0","id":{request_id},"method":"tools/call",'
        f'"params":{{"name":"echo","arguments":{{"text":"{text}"}}}}}}'
    ).encode()
