"""Clients that send their request too slowly are cut, and no other client notices."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.bridge_process import RunningBridge, bridge, rpc
from tests.support.proofs import proves

HEAD = (
    b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"content-length: 50\r\n\r\n"
)


async def told(running: RunningBridge, *sent: bytes) -> bytes:
    """All that a client hears that sends this and then nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for piece in sent:
        writer.write(piece)
        await writer.drain()
    async with asyncio.timeout(10):
        heard = await reader.read()
    writer.close()
    return heard


@proves("fault 51", "fault 52", "fault 93")
@pytest.mark.slow
async def test_slow_senders_are_cut_with_the_name_of_the_limit() -> None:
    """Half a head, a head without its body, nothing at all."""
    words = ("--header-timeout", "300ms", "--body-timeout", "300ms")
    async with bridge(*words) as running, running.client() as client:
        half, silent, bodiless, patient = await asyncio.gather(
            told(running, HEAD[:40]),
            told(running),
            told(running, HEAD, b'{"jsonrpc"'),
            told(running, HEAD.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n")),
        )
        assert half.startswith(b"HTTP/1.1 408 ")
        assert b"--header-timeout 0.3 s" in half
        assert silent == b""
        assert bodiless.startswith(b"HTTP/1.1 408 ")
        assert b"--body-timeout 0.3 s" in bodiless
        assert b"HTTP/1.1 408 " in patient
        answer = await client.post("/mcp", json=rpc(1, "tools/list"))
        assert answer.status_code == 200


@pytest.mark.slow
async def test_a_call_that_takes_long_is_not_slow_to_arrive() -> None:
    """The limits are on the request alone: answers and idle streams take their time."""
    words = ("--header-timeout", "200ms", "--body-timeout", "200ms")
    async with bridge(*words) as running, running.client() as client:
        call = rpc(1, "tools/call", {"name": "countdown", "arguments": {"seconds": 0.8}})
        answer = await client.post("/mcp", json=call)
        assert answer.json()["result"]["content"][0]["text"] == "liftoff"
        again = await client.post("/mcp", json=rpc(2, "ping"))
        assert again.status_code == 200
