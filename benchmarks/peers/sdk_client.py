"""Clients of the official Python SDK 1.x: `sdk_client.py URL CLIENTS CALLS`.

Each client opens a session and calls the tool `echo` CALLS times, one call after the other, with a
text that no other call has. One JSON line on standard output: how many milliseconds each call took,
and how many answers held another text.
"""

from __future__ import annotations

import json
import sys
import time

import anyio
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client


async def client(url, name, calls, ready, begin, told):
    """One session and its calls; the first, for which much is loaded, does not count."""
    async with streamable_http_client(url) as streams, ClientSession(*streams[:2]) as session:
        await session.initialize()
        await session.call_tool("echo", {"text": "warm"})
        ready.release()
        await begin.wait()
        for number in range(calls):
            text = f"{name}-{number}"
            began = time.perf_counter()
            result = await session.call_tool("echo", {"text": text})
            told["took_ms"].append(round((time.perf_counter() - began) * 1000, 3))
            told["wrong"] += result.isError or result.content[0].text != text


async def main(url, clients, calls):
    """All clients at once, once each has its session."""
    told = {"took_ms": [], "wrong": 0}
    ready, begin = anyio.Semaphore(0), anyio.Event()
    async with anyio.create_task_group() as tasks:
        for name in range(clients):
            tasks.start_soon(client, url, name, calls, ready, begin, told)
        for _ in range(clients):
            await ready.acquire()
        begin.set()
    print(json.dumps(told))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
