"""Clients that make a bridge keep as much as it will: `python -m tests.suites.attackers URL NAME`.

Each attack goes on until standard input ends. What a bridge refuses is tried again, and a
connection that it cuts is opened again. A separate process, so that the clock of the suite that
measures the bridge is not held by it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import uvloop

from tests.suites.wire import Connection, Response, open_session
from tests.support.bridge_process import ACCEPT, initialize
from tests.support.modern_client import ALL, headers_of, meta

MIB = 1 << 20
BODY = 4 * MIB - 4096
"""A little less than the default of `--max-request-bytes`."""
PAUSE_S = 0.05
"""Between two tries of what was refused."""
ASKED: dict[str, Any] = {"elicitation": {}}
"""What a client offers that gets a process for itself."""
FAILURES = (OSError, EOFError, AssertionError)
"""A bridge that defends itself refuses, cuts and closes."""

Attack = Callable[[str], Awaitable[None]]
NUMBERS = itertools.count(1)


def call(**arguments: Any) -> bytes:
    """The body of a call of the tool `greedy`."""
    return request("tools/call", name="greedy", arguments=arguments, _meta={"progressToken": 1})


def request(method: str, **params: Any) -> bytes:
    """The body of a request."""
    message = {"jsonrpc": "2.0", "id": next(NUMBERS), "method": method, "params": params}
    return json.dumps(message).encode()


async def again(work: Callable[[], Awaitable[object]]) -> None:
    """Do the work again and again, with or without success."""
    while True:
        with suppress(*FAILURES):
            await work()
        await asyncio.sleep(PAUSE_S)  # the pause of a client that tries again


async def all_at_once(count: int, work: Callable[[], Awaitable[object]]) -> None:
    """Do the work that many times at once, again and again."""
    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(again(work))


async def deaf(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that takes next to nothing from the network."""
    place = urlsplit(url)
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (place.hostname, place.port))
        return await asyncio.open_connection(sock=made.dup(), limit=4096)


def head(method: str, path: str, length: int | None = None, **headers: str) -> bytes:
    """The head of a request."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if length is not None:
        lines += [f"content-length: {length}", "content-type: application/json"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: localhost", *lines, "", ""]).encode()


async def slow_sse_readers(url: str) -> None:
    """40 connections of 2024-11-05 whose clients call and do not read."""

    async def one() -> None:
        reader, writer = await deaf(url)
        try:
            writer.write(head("GET", "/sse", accept="text/event-stream"))
            event = await reader.readuntil(b"session_id=")
            path = "/messages?session_id=" + (await reader.readexactly(64)).decode()
            del event
            posts = Connection(url)
            first = json.dumps(initialize(0, "2024-11-05")).encode()
            for body in itertools.chain([first], calls(answer=MIB // 4)):
                response = await posts.request("POST", {}, body, path=path)
                if response.status not in (202, 503):
                    break
                # More at once would be refused for their number.
                await asyncio.sleep(2 * PAUSE_S)  # the pace of this client
            posts.close()
        finally:
            writer.close()

    await all_at_once(40, one)


def calls(**arguments: Any) -> Iterator[bytes]:
    """The bodies of calls without end."""
    while True:
        yield call(**arguments)


async def finished_streams(url: str) -> None:
    """60 sessions whose answers come as event streams, which are kept for resumption."""

    async def one() -> None:
        connection = Connection(url)
        try:
            headers = await open_session(connection)
            for body in calls(say=True, answer=MIB // 4):
                await accepted(connection, headers, body)
        finally:
            connection.close()

    await all_at_once(60, one)


async def accepted(connection: Connection, headers: dict[str, str], body: bytes) -> Response:
    """The response to a POST; waits a moment if it was refused.

    Raises:
        AssertionError: The session has ended.
    """
    response = await connection.request("POST", headers, body)
    assert response.status != 404
    if b'"memory"' in response.body[:4096]:
        await asyncio.sleep(PAUSE_S)  # the pause of a client that tries again
    return response


async def subscriptions(url: str) -> None:
    """150 listens of a thousand long resources each, whose clients do not read."""
    uris = [f"test://{number}/" + "x" * 3000 for number in range(1000)]
    wanted = {"notifications": {"resourceSubscriptions": uris}, "_meta": meta()}
    listen = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": wanted}
    body = json.dumps(listen).encode()

    async def one() -> None:
        reader, writer = await deaf(url)
        try:
            names = {k.replace("-", "_"): v for k, v in headers_of(listen).items()}
            writer.write(head("POST", "/mcp", len(body), **names) + body)
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(MIB)
            await asyncio.sleep(3600)  # it holds its subscription until the suite ends
        finally:
            writer.close()

    async def news() -> None:
        connection = Connection(url)
        headers = await open_session(connection)
        while True:
            for uri in uris[:20]:
                told = request("x/update", uri=uri, times=10, size=1000)
                await accepted(connection, headers, told)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(all_at_once(150, one))
        tasks.create_task(again(news))


async def stopped_child(url: str) -> None:
    """4 sessions whose own processes are stopped, which get calls and notifications."""

    async def one() -> None:
        connection = Connection(url)
        hello = json.dumps(initialize(0, "2025-11-25", ASKED)).encode()
        response = await connection.request("POST", ACCEPT, hello)
        pid = int(response.messages()[-1]["result"]["serverInfo"]["version"])
        headers = {**ACCEPT, "mcp-session-id": response.headers["mcp-session-id"]}
        os.kill(pid, signal.SIGSTOP)
        try:
            # Each of them ends with the session.
            sending = (send_all(url, headers, notes=bool(number % 2)) for number in range(16))
            await asyncio.gather(*sending, return_exceptions=True)
        finally:
            with suppress(OSError):
                os.kill(pid, signal.SIGCONT)

    await all_at_once(4, one)


async def send_all(url: str, headers: dict[str, str], *, notes: bool) -> None:
    """Send large notifications, or large calls, until the session has ended."""
    params = {"text": "x" * MIB}
    note = json.dumps({"jsonrpc": "2.0", "method": "notifications/x", "params": params}).encode()
    connection = Connection(url)
    try:
        while True:
            await accepted(connection, headers, note if notes else call(text="x" * MIB))
    finally:
        connection.close()


async def large_calls(url: str) -> None:
    """64 calls of 4 MB at once, which are not answered."""

    async def one() -> None:
        connection = Connection(url)
        try:
            headers = await open_session(connection)
            await accepted(connection, headers, call(hold=True, text="x" * BODY))
        finally:
            connection.close()

    await all_at_once(64, one)


async def unfinished_bodies(url: str) -> None:
    """200 connections, each with a body that lacks its last byte."""

    async def one() -> None:
        place = urlsplit(url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        try:
            writer.write(head("POST", "/mcp", BODY, accept=ACCEPT["accept"]))
            writer.write(b" " * (BODY - 1))
            await reader.read()
        finally:
            writer.close()

    await all_at_once(200, one)


async def large_hellos(url: str) -> None:
    """Sessions without end whose `initialize` has 4 MB."""
    hello = initialize(0)
    hello["params"]["clientInfo"]["title"] = "x" * BODY
    body = json.dumps(hello).encode()

    async def one() -> None:
        connection = Connection(url)
        try:
            while True:
                await accepted(connection, dict(ACCEPT), body)
        finally:
            connection.close()

    await all_at_once(8, one)


async def deaf_asker(url: str) -> None:
    """4 sessions with their own processes, which ask without end and read nothing."""

    async def one() -> None:
        connection = Connection(url)
        try:
            headers = await open_session(connection, capabilities=ASKED)
            await accepted(connection, headers, call(flood=True))
        finally:
            connection.close()

    await all_at_once(4, one)


async def modern_questions(url: str) -> None:
    """Calls of 2026-07-28 with 64 questions of 1 MB each, which are not answered."""

    async def one() -> None:
        connection = Connection(url)
        arguments = {"ask": 64, "size": MIB, "hold": True}
        params = {"name": "greedy", "arguments": arguments, "_meta": meta(ALL)}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        try:
            body = json.dumps(message).encode()
            await accepted(connection, headers_of(message), body)
        finally:
            connection.close()

    await all_at_once(16, one)


async def slow_readers(url: str) -> None:
    """100 connections that ask for answers of 8 MB, and do not read."""
    connection = Connection(url)
    headers = await open_session(connection)
    connection.close()
    names = {k.replace("-", "_"): v for k, v in headers.items()}

    async def one() -> None:
        _, writer = await deaf(url)
        try:
            # More than the system's buffers take.
            body = call(answer=8 * MIB)
            writer.write(head("POST", "/mcp", len(body), **names) + body)
            await asyncio.sleep(5)  # the client that does not read; its bridge may cut it before
        finally:
            writer.close()

    await all_at_once(100, one)


ATTACKS: dict[str, Attack] = {
    each.__name__: each
    for each in (
        slow_sse_readers,
        slow_readers,
        finished_streams,
        subscriptions,
        stopped_child,
        large_calls,
        unfinished_bodies,
        large_hellos,
        deaf_asker,
        modern_questions,
    )
}
"""By name."""


async def main() -> None:
    """Attack until standard input ends."""
    url, name = sys.argv[1:]
    attack = asyncio.create_task(again(lambda: ATTACKS[name](url)))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    attack.cancel()
    with suppress(asyncio.CancelledError):
        await attack


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
