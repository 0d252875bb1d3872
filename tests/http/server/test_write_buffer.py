"""A transport that writes once a turn, over a real socket, on both event loops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from mcpbridge.http.server.write_buffer import WriteBuffer

Loops = Callable[[], asyncio.AbstractEventLoop]
LOOPS = pytest.mark.parametrize("loops", [asyncio.new_event_loop, uvloop.new_event_loop])
WITHIN_S = 20.0
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


async def read_all(client: socket.socket, size: int) -> bytes:
    """That many bytes, read as they come."""
    found = bytearray()
    async with asyncio.timeout(WITHIN_S):
        while len(found) < size:
            found += await asyncio.get_running_loop().sock_recv(client, 1 << 20)
    return bytes(found)


@LOOPS
@pytest.mark.parametrize("size", [10, (1 << 16) - 1, 1 << 16, 3_000_000])
def test_what_one_turn_writes_comes_whole_and_in_order(loops: Loops, size: int) -> None:
    """Head, body and what follows, whether the body is copied to its neighbours or not."""
    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(_whole_and_in_order(size))


async def _whole_and_in_order(size: int) -> None:
    loop = asyncio.get_running_loop()
    ours, client = socket.socketpair()
    client.setblocking(False)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    buffer = WriteBuffer(transport, loop, bool)
    body = bytes(range(256)) * (size // 256 + 1)
    with client:
        buffer.write(HEAD)
        buffer.write(body)
        buffer.write(b"next")
        with pytest.raises(BlockingIOError):
            client.recv(1)
        wanted = HEAD + body + b"next"
        assert await read_all(client, len(wanted)) == wanted
        buffer.write(HEAD)
        buffer.write(body)
        buffer.close()
        assert await read_all(client, len(HEAD + body)) == HEAD + body
        async with asyncio.timeout(WITHIN_S):
            assert await loop.sock_recv(client, 1) == b""


@LOOPS
def test_nothing_is_written_to_a_transport_that_closes(loops: Loops) -> None:
    """What is left when the connection is aborted goes nowhere, and no caller is told."""
    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(_aborted())


async def _aborted() -> None:
    loop = asyncio.get_running_loop()
    ours, client = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    buffer = WriteBuffer(transport, loop, bool)
    client.setblocking(False)
    with client:
        buffer.write(HEAD)
        buffer.write(b"x" * (1 << 20))
        transport.abort()
        async with asyncio.timeout(WITHIN_S):
            assert await loop.sock_recv(client, 1) == b""
