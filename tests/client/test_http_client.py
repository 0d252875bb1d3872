"""How the checks of an endpoint read an event stream, and what they take for a URL."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest

from mcpbridge.client.http_client import (
    LineTooLong,
    at,
    bounded_events,
    cause_of,
    events,
    http_url,
)


def response(body: bytes) -> httpx.Response:
    """A response whose head says what it is in its own spelling."""
    stream = httpx.ByteStream(body)
    return httpx.Response(200, headers={"content-type": "Text/Event-Stream;x=y"}, stream=stream)


async def read(body: bytes, line_bytes: int | None = None, *, cut_short: bool = False) -> list[str]:
    """The data of all events; a line too long is the last of them."""
    found: list[str] = []
    try:
        async for event in events(response(body), line_bytes, cut_short=cut_short):
            found.append(f"{event.event}={event.data}")
    except LineTooLong as error:
        found.append(str(error))
    return found


async def test_only_events_with_data_are_events() -> None:
    """Comments, ids and waits of a stream are not, though the last id stays."""
    body = b"retry: 5\n\nid: 1\ndata:\n\n: ping\n\nid: 2\ndata: a\ndata: b\n\n: ping\n\ndata: c\n\n"
    assert await read(body) == ["message=a\nb", "message=c"]
    assert await read(body.replace(b"\n", b"\r\n")) == ["message=a\nb", "message=c"]


async def test_an_event_that_the_end_cuts_short_counts_on_demand() -> None:
    """For a reader that takes lines and not events."""
    body = b"event: x\ndata: a\n\ndata: b"
    assert await read(body) == ["x=a"]
    assert await read(body, cut_short=True) == ["x=a", "message=b"]


async def test_what_stands_before_a_line_too_long_is_read() -> None:
    """The limit is that of a line without its end."""
    body = b"data: 23456789\r\n\r\ndata: 234567890\r\n\r\n"
    assert await read(body, 14) == [
        "message=23456789",
        "a line of the event stream exceeds 14 bytes",
    ]
    assert await read(body, 15) == ["message=23456789", "message=234567890"]


def test_a_url_names_a_place_without_credentials() -> None:
    """They would be sent, and shown in a report."""
    assert str(http_url("localhost:80/x")) == "http://localhost/x"
    assert str(http_url("https://user:secret@h.example/mcp?a=1")) == "https://h.example/mcp?a=1"
    for text in ("", "ftp://h", "http://", "http://h:port/", "http://[::1"):
        with pytest.raises(ValueError, match="not an http URL"):
            http_url(text)


async def test_a_connection_that_is_refused_is_called_so() -> None:
    """And not by asyncio's words for any failure."""
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError) as caught:
                await client.get(f"http://127.0.0.1:{bound.getsockname()[1]}/")
    assert cause_of(caught.value) == "Connection refused"


async def test_a_port_without_tls_is_called_so() -> None:
    """And not by a number of a version, which was not sent."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError) as caught:
                await client.get(f"https://127.0.0.1:{port}/")
    assert "does not speak TLS at this port" in cause_of(caught.value)


def test_another_path_is_at_the_same_host() -> None:
    """Whatever host an endpoint event names."""
    place = http_url("http://h.example:81/a/sse?x=1")
    assert str(at(place, "/messages?s=1")) == "http://h.example:81/messages?s=1"
    assert str(at(place, "messages")) == "http://h.example:81/a/messages"
    assert str(at(place, "https://evil.example/m?s=1")) == "http://h.example:81/m?s=1"


class _Chunks(httpx.AsyncByteStream):
    """A body in the chunks of the test."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


async def bounded(limit: int, *chunks: bytes) -> list[str]:
    """The data of all events, those without data included; one too long is the last of them."""
    found: list[str] = []
    head = {"content-type": "text/event-stream"}
    try:
        async for event in bounded_events(
            httpx.Response(200, headers=head, stream=_Chunks(*chunks)), limit
        ):
            found.append(f"{event.id}={event.data}")
    except LineTooLong as error:
        found.append(str(error))
    return found


async def test_an_event_is_bounded_as_a_whole() -> None:
    """All its lines count, wherever chunks divide them; the next event counts from zero."""
    assert await bounded(20, b"id: 1\n\ndata: a\n\n", b"data: b\n\n") == ["1=", "1=a", "1=b"]
    too_long = "a line of the event stream exceeds 20 bytes"
    line = b"data: xx"
    for end in (b"\n", b"\r\n"):
        for cut in range(len(line + end)):
            whole = line + end
            chunks = [part for _ in range(5) for part in (whole[:cut], whole[cut:])]
            assert await bounded(20, *chunks) == [too_long], (end, cut)
            assert await bounded(20, *[whole + end] * 5) == ["=xx"] * 5
