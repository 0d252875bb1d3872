"""The client of other replicas."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from mcpbridge.replicas.peer_client import (
    BUFFER_BYTES,
    IDLE_S,
    Lost,
    PeerClient,
    PeerConnection,
    Unreachable,
)
from mcpbridge.replicas.session_id import Replica

ASK = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[Replica]:
    """A replica at a free port, with this behaviour; its connections are closed at the end."""
    served: dict[asyncio.StreamWriter, asyncio.Event] = {}

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over = served[writer] = asyncio.Event()
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await serve(reader, writer)
        over.set()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield Replica("127.0.0.1", server.sockets[0].getsockname()[1], 1)
    finally:
        server.close()
        for writer, over in served.items():
            writer.close()
            await over.wait()
        await server.wait_closed()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request without a body."""
    return await reader.readuntil(b"\r\n\r\n")


def saying(*parts: bytes, then_close: bool = False) -> Serve:
    """Answers each request with these parts."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            await read_request(reader)
            for part in parts:
                writer.write(part)
                await writer.drain()
            if then_close:
                writer.close()

    return serve


async def ask(connection: PeerConnection, use: bytes = b"") -> None:
    """Send a request and wait for the head of its response."""
    connection.begin(ASK, use)
    while not connection.has_head:
        await connection.news()


async def read(connection: PeerConnection) -> bytes:
    """More of the body; empty at its end."""
    while not (piece := connection.take()) and not connection.complete:
        await connection.news()
    return piece


async def whole(client: PeerClient, target: Replica, use: bytes = b"") -> tuple[int, bytes]:
    """Ask once; status and body."""
    connection = await client.connection(target, use)
    await ask(connection)
    body = b""
    while piece := await read(connection):
        body += piece
    client.release(connection, target)
    return connection.status, body


async def test_a_connection_is_kept_for_the_next_request() -> None:
    """Also after an informational response and a chunked body."""
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    chunked = b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    async with serving(saying(early, chunked)) as target:
        client = PeerClient()
        first = await client.connection(target, b"")
        client.release(first, target)
        assert await client.connection(target, b"") is not first, "it had no response yet"
        assert await whole(client, target) == (201, b"ok")
        kept = await client.connection(target, b"")
        await ask(kept)
        assert [name for name, _ in kept.take_headers()] == [b"transfer-encoding"]
        client.close()


async def test_the_connection_of_the_same_use_is_preferred() -> None:
    """The other replica knows the head of its requests."""
    async with serving(saying(OK)) as target:
        client = PeerClient()
        a, b = await client.connection(target, b"a"), await client.connection(target, b"b")
        for each, use in ((a, b"a"), (b, b"b")):
            await ask(each, use)
            assert await read(each) == b"ok"
            client.release(each, target)
        assert await client.connection(target, b"a") is a
        assert await client.connection(target, b"c") is b
        client.close()


async def test_a_connection_kept_for_long_is_not_used_again() -> None:
    """The other replica may be about to close it, and the request would be lost."""
    async with serving(saying(OK)) as target:
        client = PeerClient()
        assert await whole(client, target) == (200, b"ok")
        kept = await client.connection(target, b"")
        await ask(kept)
        await read(kept)
        client.release(kept, target)
        kept.idle_since -= IDLE_S
        assert await client.connection(target, b"") is not kept
        client.close()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
async def test_a_response_that_breaks_off_is_told_from_a_whole_one(said: bytes) -> None:
    """The request may have been executed."""
    async with serving(saying(said, then_close=True)) as target:
        with pytest.raises(Lost):
            await whole(PeerClient(), target)


async def test_a_response_that_was_not_asked_for_is_no_answer() -> None:
    """A connection on which one comes is not used again."""
    async with serving(saying(OK, OK)) as target:
        client = PeerClient()
        connection = await client.connection(target, b"")
        await ask(connection)
        assert await read(connection) == b"ok"
        with pytest.raises(Lost):
            await ask(connection)


async def test_nothing_was_sent_if_no_connection_could_be_made() -> None:
    """Whether the port is closed, or nothing answers there."""
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    with pytest.raises(Unreachable) as caught:
        await PeerClient().connection(Replica("127.0.0.1", port, 1), b"")
    assert caught.value.refused
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        target = Replica("127.0.0.1", full.getsockname()[1], 1)
        client = PeerClient()

        async def connect_to_the_last() -> None:
            # What the backlog takes is connected; the next one gets no answer.
            for _ in range(8):
                await client.connection(target, b"")

        with pytest.raises(Unreachable) as caught:
            await connect_to_the_last()
        assert not caught.value.refused


async def test_a_reader_that_waits_makes_the_other_replica_wait() -> None:
    """No more is read from it than a few buffers, however much it has to say."""
    size = 64 * BUFFER_BYTES
    sent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        # Small buffers in the kernel, so that the sender has to wait for the reader.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(64):
            writer.write(bytes(BUFFER_BYTES))
            await writer.drain()
        sent.set()

    async with serving(serve) as target:
        client = PeerClient()
        connection = await client.connection(target, b"")
        await ask(connection)
        got = len(await read(connection))
        assert not sent.is_set()
        while piece := await read(connection):
            assert len(piece) <= 8 * BUFFER_BYTES
            got += len(piece)
        assert (got, sent.is_set()) == (size, True)
        client.release(connection, target)
        client.close()


async def test_the_end_of_a_client_reaches_the_other_replica() -> None:
    """It sees its own client leave, and cancels what that cancels."""
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        with suppress(ConnectionResetError):
            await reader.read(1)
        left.set()

    async with serving(serve) as target:
        connection = await PeerClient().connection(target, b"")
        await ask(connection)
        connection.abort()
        await left.wait()
        with pytest.raises(Lost):
            await read(connection)
