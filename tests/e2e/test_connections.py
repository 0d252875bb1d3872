"""Connections that are too many, too slow, too idle or too large: cut, told why, and no more."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.support.bridge_process import RunningBridge, bridge, child, eventually, open_session, rpc
from tests.support.proofs import proves
from tests.support.questioner_bridge import note, serving
from tests.support.raw_http import RawResponse, Wire, exchanged, post, wire

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

PING = json.dumps(rpc(1, "ping")).encode()
KEEPALIVE_TIMER = "02"
"""What `/proc/net/tcp` says of a connection whose peer will be asked for a sign of life."""


def resident_bytes(running: RunningBridge) -> int:
    """The memory that the bridge's own process has in use."""
    status = Path(f"/proc/{running.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) << 10


def timers(port: int) -> list[tuple[str, float]]:
    """The kernel's timer of each connection to a port, at the side that accepted it.

    Its kind, and the seconds until it is due.
    """
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, _, timer, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == port and state == "01":
            kind, _, due = timer.partition(":")
            found.append((kind, int(due, 16) / 100))
    return found


def accepted(port: int) -> int:
    """Connections to a port that the one who accepted them has not closed yet."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    own = [row[3] for row in rows if int(row[1].rpartition(":")[2], 16) == port]
    return sum(state in ("01", "08") for state in own)


@proves("fault 57")
async def test_the_kernel_looks_for_peers_that_are_gone() -> None:
    """Every accepted connection is watched, from half a minute of silence on."""
    async with bridge() as running, wire(running.port) as connection:
        await connection.send(post(PING))
        assert (await connection.response()).status == 200
        await eventually(
            lambda: [kind for kind, _ in timers(running.port)] == [KEEPALIVE_TIMER],
            "the connection has a keep-alive timer",
        )
        ((_, due_s),) = timers(running.port)
        assert 0 < due_s <= 30


@proves("fault 53")
async def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    """After `--keep-alive-timeout`, with nothing said; a call may take longer."""
    async with bridge("--keep-alive-timeout", "300ms") as running:
        async with wire(running.port) as connection:
            for _ in range(2):
                await connection.send(post(PING))
                assert (await connection.response()).status == 200
            assert await connection.rest() == b""
        slow = rpc(2, "tools/call", {"name": "countdown", "arguments": {"seconds": 0.8}})
        heard = await exchanged(running.port, post(json.dumps(slow).encode()))
        assert heard.status == 200


@proves("fault 52")
async def test_a_body_that_drips_is_cut() -> None:
    """A chunk of one byte at a time is progress of a kind, and no excuse."""
    async with bridge("--body-timeout", "400ms") as running, wire(running.port) as connection:
        await connection.send(post(b"", "Content-Length:", "Transfer-Encoding: chunked"))
        answer = asyncio.create_task(connection.response())
        while not answer.done():
            await connection.send(b"1\r\n \r\n")
            # Each drop takes as long as another client's call.
            assert (await exchanged(running.port, post(PING))).status == 200
        assert (await answer).status == 408
        assert "--body-timeout 0.4 s" in (await answer).error["message"]


@proves("fault 88")
async def test_heads_and_framing_are_bounded_like_bodies() -> None:
    """431 however it comes; trailers and what else surrounds a body count too."""
    words = ("--max-header-bytes", "16KiB", "--max-request-bytes", "64KiB")
    async with bridge(*words) as running:
        large = f"X-Large: {'x' * 200_000}"
        many = [f"X-{number}: {'x' * 90}" for number in range(200)]
        for headers in ([large], many):
            whole = post(PING, *headers)
            for pieces in ([whole], [whole[:9000], whole[9000:]], [whole[:40], whole[40:]]):
                assert_too_large(await in_pieces(running, pieces))
        path = post(PING, path="/" + "x" * 20_000)
        assert_too_large(await exchanged(running.port, path))
        fits = post(PING, f"X-Large: {'x' * 15_000}")
        assert (await exchanged(running.port, fits)).status == 200
        async with wire(running.port) as connection:
            await connection.send(post(b"", "Content-Length:", "Transfer-Encoding: chunked"))
            await connection.send(b"2\r\n{}\r\n0\r\nX-Trailer: ")
            heard = asyncio.create_task(connection.response())
            while not heard.done():
                try:
                    await connection.send(b"x" * (1 << 16))
                except ConnectionError:
                    break
            assert (await heard).status in (400, 413)
        assert (await exchanged(running.port, post(PING))).status == 200


async def in_pieces(running: RunningBridge, pieces: list[bytes]) -> RawResponse:
    """The answer to a request that comes in several reads."""
    async with wire(running.port) as connection:
        for piece in pieces:
            await connection.send(piece)
            assert (await exchanged(running.port, post(PING))).status == 200
        return await connection.response()


def assert_too_large(heard: RawResponse) -> None:
    """The refusal of a head."""
    assert (heard.status, heard.headers["connection"]) == (431, "close")
    assert "--max-header-bytes 16384" in heard.error["message"]


@proves("fault 64")
async def test_fifty_endless_bodies_cost_no_more_than_their_limit() -> None:
    """Each is refused as soon as it is too large, and its memory is given back."""
    limit, piece = 256 << 10, b"10000\r\n" + b" " * (1 << 16) + b"\r\n"
    async with bridge("--max-request-bytes", str(limit)) as running:
        assert (await exchanged(running.port, post(PING))).status == 200
        before = resident_bytes(running)

        async def attack() -> RawResponse:
            async with wire(running.port) as connection:
                await connection.send(post(b"", "Content-Length:", "Transfer-Encoding: chunked"))
                heard = asyncio.create_task(connection.response())
                while not heard.done():
                    try:
                        await connection.send(piece)
                    except ConnectionError:
                        break
                return await heard

        for heard in await asyncio.gather(*(attack() for _ in range(50))):
            assert heard.status == 413
            assert f"--max-request-bytes {limit}" in heard.error["message"]
        # The limit itself, a copy of it, and what one read of a connection takes.
        assert resident_bytes(running) - before < 50 * (2 * limit + (128 << 10))
        assert (await exchanged(running.port, post(PING))).status == 200


@proves("fault 54")
async def test_a_client_that_reads_nothing_is_cut(tmp_path: Path) -> None:
    """With a stream and in the middle of one large answer; who is merely slow is not."""
    # On a busy machine the slow client, too, takes its time between two reads.
    words = ("--send-timeout", "2s", "--max-request-bytes", "32MiB")
    async with serving(tmp_path, *words) as served:
        session = await served.own()
        lines = [f"{name}: {value}" for name, value in session.items()]
        listen = "\r\n".join(["GET /mcp HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()
        large = post(json.dumps(rpc(1, "x/echo", {"text": "x" * (12 << 20)})).encode())
        with deaf(served.bridge) as stuck:
            await asyncio.to_thread(stuck.sendall, listen)
            await served.say(session, note("x/flood", data="x" * 1000), times=20_000)
            await served.bridge.logged("connection.stalled")
        with deaf(served.bridge) as stuck:
            await asyncio.to_thread(stuck.sendall, large)
            await served.bridge.logged("connection.stalled", count=2)
        with deaf(served.bridge) as slow:
            await asyncio.to_thread(slow.sendall, large)
            begun, taken = asyncio.get_running_loop().time(), 0
            while asyncio.get_running_loop().time() < begun + 2:
                # A little, and then a call of another client takes its time.
                taken += len(await asyncio.to_thread(slow.recv, 1 << 17))
                await served.turns()
            assert taken > 0
        assert len(await served.bridge.logged("connection.stalled", count=2)) == 2


class deaf(socket.socket):  # noqa: N801 - read as a verb: with deaf(bridge)
    """A connection with a small buffer that is not read."""

    def __init__(self, running: RunningBridge) -> None:
        super().__init__()
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.settimeout(20)
        self.connect(("127.0.0.1", running.port))


@asynccontextmanager
async def wires(running: RunningBridge, count: int) -> AsyncIterator[list[Wire]]:
    """Several connections."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(wire(running.port)) for _ in range(count)]


@proves("fault 85", "fault 104")
async def test_over_the_limit_of_connections_idle_ones_make_room_and_probes_pass() -> None:
    """503 with the limit's name to the rest, at once."""
    words = ("--max-connections", "4", "--json-window", "20s")
    async with bridge(*words) as running:
        slow = rpc(2, "tools/call", {"name": "countdown", "arguments": {"seconds": 10}})
        hold = post(json.dumps(slow).encode())
        async with wires(running, 4) as busy:
            for connection in busy:
                await connection.send(post(PING))
                assert (await connection.response()).status == 200
            # All are idle: each new one gets the place of one of them.
            async with wires(running, 2) as newer:
                for connection in newer:
                    await connection.send(post(PING))
                    assert (await connection.response()).status == 200
        await eventually(lambda: accepted(running.port) == 0, "the bridge has let go of all")
        async with wires(running, 4) as busy:
            for connection in busy:
                await connection.send(hold)
            async with wires(running, 1) as (one,):
                await one.send(post(PING))
                heard = await one.response()
                assert (heard.status, heard.headers["connection"]) == (503, "close")
                assert "--max-connections 4" in heard.error["message"]
                assert int(heard.headers["retry-after"]) > 0
                assert await one.rest() == b""
            probe = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
            for _ in range(3):
                async with wire(running.port) as prober:
                    await prober.send(probe)
                    assert (await prober.response()).status == 200
                    assert await prober.rest() == b"", "it was one over the limit"
            async with wires(running, 12) as flood:
                answers = await asyncio.gather(*(connection.rest() for connection in flood))
                refused = [answer for answer in answers if answer]
                assert len(refused) >= 4
                assert all(answer.startswith(b"HTTP/1.1 503 ") for answer in refused)
            await running.logged("connection.limit_reached")
        await eventually(lambda: accepted(running.port) == 0, "all are closed")
        assert (await exchanged(running.port, post(PING))).status == 200
        running.process.kill()
        await running.process.wait()


@proves("fault 85")
async def test_every_session_that_streams_counts_and_is_let_go(tmp_path: Path) -> None:
    """Two hundred idle streams, then none: a call is served before, during and after."""
    words = ("--", *child("recorder", str(tmp_path)))
    async with bridge(*words) as running, running.client() as client:
        session = await open_session(client)
        lines = [f"{name}: {value}" for name, value in session.items()]
        listen = "\r\n".join(["GET /mcp HTTP/1.1", "Host: localhost", *lines, "", ""])
        async with wires(running, 200) as listening:
            for connection in listening:
                await connection.send(listen.encode())
            for connection in listening:
                assert (await connection.head()).status == 200
            assert (await client.post("/mcp", json=rpc(1, "ping"))).status_code == 200
        answer = await client.post("/mcp", json=rpc(2, "ping"), headers=session)
        assert answer.json()["result"] == {}
