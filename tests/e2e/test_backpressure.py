"""A client that stops reading: it costs no other client anything, and the bridge a bounded window.

The readers are bare sockets with small buffers that read a response's head and then nothing; the
child writes 20 to 30 MB in that time, many times what the kernel and one stream may hold.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_process import rpc, run_without_posix
from tests.support.proofs import proves
from tests.support.questioner_bridge import (
    Headers,
    Served,
    note,
    question,
    reading,
    result_of,
    serving,
)
from tests.support.raw_http import post

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

NEWEST = "2025-11-25"
ROUNDS = 20_000
FLOOD = note("x/flood", n="#", data="x" * 1000)
MORE_BYTES = 24 << 20
"""What the bridge may grow by: some windows of 1 MiB, their copies on the way, the allocator."""
SOON_S = 10.0
"""Far more than a call takes on a busy machine, far less than any time limit of the bridge."""


@pytest.fixture(scope="module", autouse=True, params=[False, True], ids=["posix", "without_posix"])
def pipes(request: pytest.FixtureRequest) -> Iterator[None]:
    """The bridges of this module read pipes by the event loop, and by threads as on Windows."""
    with run_without_posix(request.param):
        yield


@contextmanager
def deaf(served: Served, request: bytes) -> Iterator[socket.socket]:
    """A connection that sends a request, reads the head of the response, and nothing more."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(SOON_S)
        connection.connect(("127.0.0.1", served.bridge.port))
        connection.sendall(request)
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(64)
        assert head.startswith(b"HTTP/1.1 200 ")
        yield connection


def listen(session: Headers) -> bytes:
    """A GET of the standalone stream, as bytes."""
    lines = ["GET /mcp HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in session.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def resident_bytes(served: Served) -> int:
    """The memory that the bridge's own process has in use."""
    status = Path(f"/proc/{served.bridge.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) << 10


async def others_are_served(served: Served, until: asyncio.Task[None], least: int) -> int:
    """Calls of another session while the flood lasts, each answered soon; how many they were."""
    other = await served.open()
    count = 0
    while not until.done() or count < least:
        async with asyncio.timeout(SOON_S):
            assert await served.ask(other, "x/echo", n=count) == {"n": count}
        count += 1
    await served.delete(other)
    return count


async def shed(served: Served) -> int:
    """End the bridge, which must not hang; how many notifications it says it has shed."""
    assert await served.bridge.terminate() == 0
    assert served.bridge.events("child.restarting") == [], "the end of a child was no failure"
    (end,) = await served.bridge.logged("serve.ended")
    return int(end["counts"].get("shed_notification", 0))


@proves("fault 32", "fault 54", "C59")
async def test_a_listener_that_stops_reading_delays_nobody(tmp_path: Path) -> None:
    """Its own child's flood is shed, counted, and never kept."""
    async with serving(tmp_path) as served:
        stuck = await served.own()
        await served.ask(stuck, "x/echo")
        before = resident_bytes(served)
        with deaf(served, listen(stuck)):
            flood = asyncio.create_task(served.say(stuck, FLOOD, times=ROUNDS))
            assert await others_are_served(served, flood, 50) >= 50
            await flood
            assert resident_bytes(served) - before < MORE_BYTES
            assert await served.ask(stuck, "x/echo", n=1) == {"n": 1}, "its calls go on too"
            # Some MiB fit into the kernel's buffers; the rest is shed but for the window.
            assert await shed(served) > ROUNDS // 2


@proves("fault 54", "C59")
async def test_a_listener_that_comes_back_gets_what_is_left_in_order(tmp_path: Path) -> None:
    """The window's end is whole; nothing comes twice, and its answers were never shed."""
    async with serving(tmp_path) as served:
        stuck = await served.own(NEWEST)
        with deaf(served, listen(stuck)):
            await served.say(stuck, FLOOD, times=ROUNDS)
            await served.say(stuck, question("kept"))
            await served.say(stuck, FLOOD, times=500)
            await served.say(stuck, note("x/flood", n="end"))
        await served.turns()
        async with reading(served.client, stuck) as listening:
            found: list[Any] = []
            while not found or found[-1]["params"] != {"n": "end"}:
                async with asyncio.timeout(SOON_S):
                    block = await listening.next()
                assert block is not None
                if block.fields.get("data"):
                    found.append(block.message)
            asked = [message for message in found if "id" in message]
            assert [message["method"] for message in asked] == ["elicitation/create"]
            numbers = [int(m["params"]["n"]) for m in found[:-1] if "id" not in m]
            after = numbers.index(0)
            for part in (numbers[:after], numbers[after:]):
                assert part == sorted(set(part))
            assert numbers[after:] == list(range(500))
            await served.reply(stuck, asked[0]["id"], {"still": "there"})
            await served.until_heard('"still":"there"')


@proves("fault 32", "fault 54", "C59")
async def test_a_caller_that_stops_reading_delays_nobody(tmp_path: Path) -> None:
    """Its progress is shed, its answer is not: it is the last thing on the stream."""
    async with serving(tmp_path) as served:
        stuck, pad = await served.open(), "x" * 1000
        params = {"name": "stuck", "_meta": {"progressToken": pad}}
        body = json.dumps(rpc(1, "x/hold", params)).encode()
        lines = [f"{name}: {value}" for name, value in stuck.items()]
        before = resident_bytes(served)
        with deaf(served, post(body, *lines)) as connection:
            flood = asyncio.create_task(flooded(served))
            assert await others_are_served(served, flood, 10) >= 10
            await flood
            assert resident_bytes(served) - before < MORE_BYTES
            assert await served.ask({}, "x/release", name="stuck") == {"released": 1}
            tail = await asyncio.to_thread(read_to_end, connection)
            assert tail.count(b'"progress":') < ROUNDS
            assert answer_at_the_end(tail) == result_of(1, {"held": "stuck"})
        assert await shed(served) > ROUNDS // 2


async def flooded(served: Served) -> None:
    """Progress of the stuck call, in portions between which the shared child serves others."""
    for _ in range(10):
        await served.ask({}, "x/step", name="stuck", times=ROUNDS // 10)


def answer_at_the_end(tail: bytes) -> Any:
    """The last message of a stream."""
    return json.loads(tail.rpartition(b"data: ")[2].partition(b"\r\n")[0])


def read_to_end(connection: socket.socket) -> bytes:
    """The last of what is still to come on a connection that has been left unread."""
    tail = b""
    while not tail.endswith(b"0\r\n\r\n"):
        piece = connection.recv(1 << 16)
        assert piece, "the stream ends as a chunked body does"
        tail = (tail + piece)[-(8 << 20) :]
    return tail


@proves("fault 54", "C59", "C10")
async def test_a_deaf_subscriber_of_a_shared_child_delays_nobody(tmp_path: Path) -> None:
    """Another subscriber gets every update while the deaf one's are shed."""
    async with serving(tmp_path) as served:
        stuck, well = await served.open(), await served.open()
        for session in (stuck, well):
            await served.ask(session, "resources/subscribe", uri="u:all")
        update = note("resources/updated", uri="u:all/#", data="x" * 1000)
        before = resident_bytes(served)
        with deaf(served, listen(stuck)):
            async with reading(served.client, well) as listening:
                for _ in range(ROUNDS // 500):
                    await served.say(well, update, times=500)
                    uris = [block.message["params"]["uri"] for block in await listening.some(500)]
                    assert uris == [f"u:all/{number}" for number in range(500)]
            assert resident_bytes(served) - before < MORE_BYTES
            assert await shed(served) > 0
