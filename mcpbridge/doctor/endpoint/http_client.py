"""A small HTTP client that keeps time, for looking at how an endpoint answers.

Each request has a connection of its own and ends with it, as the checks of both operators do. The
head, the body and each line of an event stream can be waited for apart; a client library hides
what is looked at here: the content type as it was spelled, the length of a line, the time to the
head.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

import anyio
import httptools

_READ_BYTES = 1 << 16
_HEAD_BYTES = 1 << 16


class Event(NamedTuple):
    """One event of a stream."""

    name: str
    data: tuple[str, ...]
    """Its `data:` lines."""


class LineTooLong(Exception):
    """A line of an event stream exceeds what its reader takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"a line of the event stream exceeds {self.limit} bytes"


class Endpoint(NamedTuple):
    """Where a URL leads."""

    host: str
    port: int
    secure: bool
    authority: str
    """For the Host header."""
    path: str
    """With the query; never empty."""

    @classmethod
    def of(cls, url: str) -> Endpoint:
        """The place of an http or https URL.

        Raises:
            ValueError: It is none.
        """
        parts: SplitResult = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"{url!r} is no http URL")
        secure = parts.scheme == "https"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        authority = parts.netloc.rpartition("@")[2]
        return cls(parts.hostname, parts.port or (443 if secure else 80), secure, authority, path)

    def at(self, path: str) -> Endpoint:
        """Another path, or the path of an absolute URL, at the same host."""
        if "//" in path:
            path = Endpoint.of(path).path
        return self._replace(path=path if path.startswith("/") else f"/{path}")

    @property
    def url(self) -> str:
        """As a URL again."""
        return f"{'https' if self.secure else 'http'}://{self.authority}{self.path}"


class Response:
    """The answer to one request: the head is there, the body comes."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self._headers_done = False
        self._ended = False
        self.status = 0
        self.headers: dict[str, str] = {}
        """By lower-case name; of one that stands twice the last."""

    @property
    def content_type(self) -> str:
        """As it was spelled; empty for none."""
        return self.headers.get("content-type", "")

    async def head(self) -> None:
        """Read up to the end of the head.

        Raises:
            OSError: The connection broke, or what came is no HTTP.
        """
        while not self._headers_done:
            if not await self._read():
                raise ConnectionError("the connection was closed before an answer came")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece; raises OSError where the connection breaks in it."""
        while True:
            chunks, self._chunks = self._chunks, []
            for chunk in chunks:
                yield chunk
            if not self._ended:
                await self._read()
            elif not self._chunks:
                return

    async def body(self) -> bytes:
        """The whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def events(self, line_bytes: int | None = None) -> AsyncIterator[Event]:
        """The events of a stream, each as soon as it is whole.

        Raises:
            LineTooLong: A line is longer than `line_bytes`.
            OSError: The connection broke.
        """
        held = b""
        name, data = "", list[str]()
        async for chunk in self.chunks():
            held += chunk
            *lines, held = held.replace(b"\r\n", b"\n").split(b"\n")
            for line in lines:
                _check_length(line, line_bytes)
                field, _, value = line.decode("utf-8", "replace").partition(":")
                value = value.removeprefix(" ")
                if field == "event":
                    name = value
                elif field == "data":
                    data.append(value)
                elif not line and (name or data):
                    yield Event(name or "message", tuple(data))
                    name, data = "", []
            _check_length(held, line_bytes)
        if name or data:
            yield Event(name or "message", tuple(data))

    async def _read(self) -> bool:
        """Read once; False at the end of the connection."""
        data = await self._reader.read(_READ_BYTES)
        if not data:
            # Without a length, this is how a body ends.
            self._ended = True
            return False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise ConnectionError(f"what came is no HTTP: {error}") from error
        return True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self.status = self._parser.get_status_code()
        self._headers_done = self.status >= 200

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._ended = self._headers_done


@asynccontextmanager
async def connected(
    place: Endpoint,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection until the block ends; raises OSError where there is none."""
    context = ssl.create_default_context() if place.secure else None
    reader, writer = await asyncio.open_connection(
        place.host, place.port, ssl=context, limit=_HEAD_BYTES
    )
    try:
        yield reader, writer
    finally:
        writer.close()
        with anyio.CancelScope(shield=True), anyio.move_on_after(1), suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def requested(
    place: Endpoint, method: str, headers: Mapping[str, str], body: bytes = b""
) -> AsyncIterator[Response]:
    """Send a request; the response, whose head has not been read.

    Raises:
        OSError: No connection.
    """
    fields = {"host": place.authority, "user-agent": "mcpbridge-doctor", "connection": "close"}
    fields |= {name.lower(): value for name, value in headers.items()}
    if body or method == "POST":
        fields["content-length"] = str(len(body))
    head = [f"{method} {place.path} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items())]
    async with connected(place) as (reader, writer):
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1") + body)
        await writer.drain()
        yield Response(reader)


def _check_length(line: bytes, limit: int | None) -> None:
    if limit is not None and len(line) > limit:
        raise LineTooLong(limit)
