"""HTTP for checks and event streams: httpx, with all that a check must see left visible.

Each request of `requested` has a separate connection, as the checks of both operators have. The
head, the body and each event of a stream can be awaited separately, and the longest line of a
stream can be bounded, as its reader bounds it. Proxies of the environment are not used, and
certificates are verified with the system's authorities.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress

import anyio
import httpx
from httpx_sse import EventSource, ServerSentEvent

from mcpbridge.wire.headers import EVENT_STREAM

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HEADERS = {
    "user-agent": "mcpbridge-doctor",
    "connection": "close",
    "accept-encoding": "identity",
}
_PLAIN = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
"""What releases of OpenSSL call an answer that is not TLS."""


class LineTooLong(Exception):
    """A line of an event stream that exceeds what its reader accepts."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"a line of the event stream exceeds {self.limit} bytes"


class NoConnection(OSError):
    """A connection that could not be made."""


def http_url(text: str) -> httpx.URL:
    """Parse an http or https URL; without a scheme it is http.

    Raises:
        ValueError: Not such a URL; the text says so.
    """
    try:
        url = httpx.URL(text if "//" in text else f"http://{text}")
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in _DEFAULT_PORTS or not url.host:
        raise ValueError(f"{text!r} is not an http URL")
    return url.copy_with(userinfo=b"")  # otherwise it would be sent and appear in the report


def at(place: httpx.URL, path: str) -> httpx.URL:
    """Return the URL of another path, or of the path of an absolute URL, at the same host.

    Raises:
        ValueError: `path` cannot be part of a URL.
    """
    try:
        return place.copy_with(raw_path=place.join(path).raw_path)
    except httpx.InvalidURL as error:
        raise ValueError(f"{path!r} is not a path") from error


def authority(place: httpx.URL) -> str:
    """Return host and port as in the Host header."""
    return place.netloc.decode("ascii")


def path_of(place: httpx.URL) -> str:
    """Return the path with the query; never empty."""
    return place.raw_path.decode("ascii")


async def connect(place: httpx.URL) -> None:
    """Connect and disconnect; raise OSError if there is no connection."""
    port = place.port or _DEFAULT_PORTS[place.scheme]
    _, writer = await asyncio.open_connection(place.host, port, ssl=_trusted(place))
    writer.close()
    with anyio.CancelScope(shield=True), anyio.move_on_after(1), suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def requested(
    place: httpx.URL, method: str, headers: Mapping[str, str], body: bytes = b""
) -> AsyncIterator[httpx.Response]:
    """Send a request; yield the response, with its head read and its body still to come.

    Raises:
        NoConnection: No connection could be made.
        OSError: The connection broke, in the head or the body, or the response is not HTTP.
    """
    try:
        async with (
            httpx.AsyncClient(
                timeout=httpx.Timeout(None),  # the callers bound the time
                trust_env=False,
                verify=_trusted(place) or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            ) as client,
            client.stream(method, place, headers={**_HEADERS, **headers}, content=body) as response,
        ):
            yield response
    except httpx.ConnectError as error:
        raise NoConnection(cause_of(error)) from error
    except httpx.ProtocolError as error:
        raise ConnectionError(f"the response is not HTTP: {error}") from error
    except httpx.TransportError as error:
        raise ConnectionError(cause_of(error)) from error


async def events(
    response: httpx.Response, line_bytes: int | None = None, *, cut_short: bool = False
) -> AsyncGenerator[ServerSentEvent]:
    """Yield the events of a stream that have data, each when it is complete.

    Args:
        response: Its head has the content type of an event stream, in any spelling.
        line_bytes: The longest line that its reader accepts.
        cut_short: Whether the last event counts if the stream ends before the event does; by the
            rules of HTML it does not.

    Raises:
        LineTooLong: A line is longer than `line_bytes`.
    """
    async with aclosing(_events(_Lines(response, line_bytes, cut_short=cut_short))) as found:
        async for event in found:
            # After an id the library takes an empty line alone for an event.
            if event.data:
                yield event


async def bounded_events(
    response: httpx.Response, event_bytes: int
) -> AsyncGenerator[ServerSentEvent]:
    """Yield every event of a stream, those with an id and no data included.

    Raises:
        LineTooLong: An event is longer than `event_bytes`, all its lines counted.
    """
    async with aclosing(_events(_Lines(response, event_bytes, whole_events=True))) as found:
        async for event in found:
            yield event


async def _events(lines: _Lines) -> AsyncGenerator[ServerSentEvent]:
    # The library requires the exact content type, and a stream can only be UTF-8.
    headers = {"content-type": EVENT_STREAM}
    found = EventSource(httpx.Response(200, headers=headers, stream=lines)).aiter_sse()
    async with aclosing(found):
        async for event in found:
            yield event


class _Lines(httpx.AsyncByteStream):
    """The body of a response, line by line, so that everything before an overlong line is read."""

    def __init__(
        self,
        response: httpx.Response,
        limit: int | None,
        *,
        cut_short: bool = False,
        whole_events: bool = False,
    ) -> None:
        self._response = response
        self._limit = limit
        self._cut_short = cut_short
        self._whole_events = whole_events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        length = since_line_end = 0
        after_cr = False
        async for chunk in self._response.aiter_raw():
            for line in chunk.splitlines(keepends=True):
                text = line.rstrip(b"\r\n")
                length += len(text)
                since_line_end += len(text)
                if self._limit is not None and length > self._limit:
                    raise LineTooLong(self._limit)
                # A CRLF that two chunks divide is one line end and no empty line.
                if line.endswith((b"\r", b"\n")) and not (after_cr and line == b"\n"):
                    # The reader keeps the lines of an event until an empty line ends it.
                    if not (self._whole_events and since_line_end):
                        length = 0
                    since_line_end = 0
                after_cr = line.endswith(b"\r")
                yield line
        if self._cut_short:
            yield b"\n\n"


def _trusted(place: httpx.URL) -> ssl.SSLContext | None:
    return ssl.create_default_context() if place.scheme == "https" else None


def cause_of(error: BaseException) -> str:
    """Return the system's message for an error of httpx, which only says that attempts failed."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    if not isinstance(error, OSError):
        return str(error)
    if isinstance(error, ssl.SSLError) and error.reason in _PLAIN:
        return "it does not speak TLS at this port: write http:// if that is meant"
    if error.errno and (error.strerror or "").startswith("Connect call failed"):
        # asyncio's own words for any failure, with the address that the caller names anyway.
        return os.strerror(error.errno)
    return error.strerror or str(error)
