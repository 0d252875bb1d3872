"""`--max-memory`: what is kept for clients is bounded, and the heaviest client gives way."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_process import RunningBridge, asked_until, bridge, initialize, rpc
from tests.support.proofs import proves
from tests.support.raw_http import Wire, wire

pytestmark = pytest.mark.asyncio
MIB = 1 << 20
ECHO = (sys.executable, str(Path(__file__).parents[2] / "benchmarks" / "echo_child.py"))
FLAGS = ("--max-memory", "4MiB", "--json-window", "60s")


def part_of_body(size: int) -> bytes:
    """A POST of which that many bytes of the body come, and no more."""
    head = (
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Accept: application/json, text/event-stream\r\nContent-Length: {2 * MIB}\r\n\r\n"
    )
    return head.encode() + b" " * size


async def served_again(running: RunningBridge) -> None:
    """A new client is let in, long before the time limits of the heavy ones are over."""
    async with running.client() as client:

        async def let_in() -> bool:
            return (await client.post("/mcp", json=initialize())).status_code == 200

        await asked_until(let_in, "a new client is let in")


@proves("fault 123")
async def test_bodies_that_do_not_arrive_are_refused() -> None:
    """503 with the flag's name; probes are answered; others are served again before time is up."""
    async with AsyncExitStack() as held:
        running = await held.enter_async_context(bridge(*FLAGS, "--", *ECHO))
        wires = [await held.enter_async_context(wire(running.port)) for _ in range(3)]
        for each in wires:
            await each.send(part_of_body(MIB + MIB // 2))
        heard = await first_of(wires)
        assert heard["data"]["mcpbridge"]["reason"] == "memory"
        assert "--max-memory" in heard["message"]
        async with running.client() as client:
            assert (await client.get("/livez")).status_code == 200
        await served_again(running)


async def test_a_refused_body_is_let_go_while_its_client_stays() -> None:
    """The connection lingers, so that the client can read the refusal; no task keeps the body."""
    async with bridge(*FLAGS, "--", *ECHO) as running, wire(running.port) as connection:
        await running.logged("child_pool.sized")
        before = await _tasks(running, 1)
        head = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        await connection.send(b"%bContent-Length: %d\r\n\r\n" % (head, 4 * MIB))
        await connection.send(b" " * (4 * MIB - 1))
        assert (await connection.response()).status == 503
        assert await _tasks(running, 2) == before


async def _tasks(running: RunningBridge, count: int) -> dict[str, int]:
    """The number of tasks by coroutine, as the bridge tells it for the `count`-th time."""
    running.signal(signal.SIGUSR1)
    *_, state = await running.logged("serve.state", count=count)
    tasks: dict[str, int] = state["tasks"]
    return tasks


async def first_of(wires: list[Wire]) -> Any:
    """The error in the response that comes first."""
    waits = [asyncio.create_task(each.response()) for each in wires]
    done, late = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    for each in late:
        each.cancel()
    response = done.pop().result()
    assert response.status == 503
    return response.error


@proves("fault 123")
async def test_a_reader_that_takes_nothing_is_cut_and_others_are_served() -> None:
    """Its answers may not be shed; so its session ends, and new clients are let in."""
    flags = ("--max-memory", "4MiB", "--send-timeout", "600s")
    async with bridge(*flags, "--", *ECHO) as running, running.client() as client:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", running.port))
            deaf.sendall(CONNECT)
            path = await asyncio.to_thread(endpoint_in, deaf)
            status = (await client.post(path, json=initialize(0, "2024-11-05"))).status_code
            arguments = {"name": "echo", "arguments": {"text": "x" * (MIB // 2)}}
            number = 0
            while status != 404:
                # Refused at first, and again and again: then who holds most gives way.
                number += 1
                call = rpc(number, "tools/call", arguments)
                status = (await client.post(path, json=call)).status_code
                assert status in (202, 404, 503)
            (cut,) = await running.logged("memory.client_cut")
            assert cut["bytes"] > MIB
            await served_again(running)
            assert (await client.post(path, json=rpc(99, "ping"))).status_code == 404


CONNECT = b"GET /sse HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"


def endpoint_in(connection: socket.socket) -> str:
    """The path for messages, read from the first event; nothing behind it is read."""
    heard = b""
    while not (found := re.search(rb"/messages\?session_id=[0-9a-f]{64}", heard)):
        heard += connection.recv(64)
    return found[0].decode()
