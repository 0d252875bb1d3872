"""Behind nginx, HAProxy and Caddy every client gets its own answers, whatever another offers.

These proxies keep connections to the bridge and send requests of many clients on each. Bytes of one
client's body that the bridge took for a request would be answered to another client.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.proxies.fronts import FRONTS, front
from tests.support.bridge_process import ACCEPT, bridge, rpc

CALLS = 10
WITHIN_S = 60.0
JSON = ("-H", "content-type: application/json", "-H", "accept: application/json, text/event-stream")


@pytest_asyncio.fixture(params=["direct", *FRONTS])
async def port(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[int]:
    """The port that clients see: the bridge's own, or that of a proxy in front of it."""
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(bridge())
        if request.param == "direct":
            yield running.port
        else:
            yield await stack.enter_async_context(front(request.param, running.port, tmp_path))


async def ran(*argv: str) -> str:
    """What a program writes to stdout; it must end with status 0."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(WITHIN_S):
        out, problems = await process.communicate()
    assert process.returncode == 0, problems.decode()
    return out.decode()


async def test_curl_that_offers_http_2_is_served(port: int) -> None:
    """One connection, several calls, each with the offer."""
    url = f"http://127.0.0.1:{port}/mcp"
    words: list[str] = []
    for number in range(CALLS):
        words += ["--next"] if words else []
        body = json.dumps(rpc(number, "ping"))
        words += ["-sS", "-f", "--http2", "-w", "\n", *JSON, "-d", body, url]
    said = await ran("curl", *words)
    answers = [json.loads(line) for line in said.splitlines() if line]
    assert answers == [{"jsonrpc": "2.0", "id": number, "result": {}} for number in range(CALLS)]


async def test_the_client_of_the_jdk_is_served(port: int) -> None:
    """It offers HTTP/2 with its first request, unless told otherwise."""
    program = Path(__file__).with_name("Calls.java")
    said = await ran("java", str(program), f"http://127.0.0.1:{port}/mcp", str(CALLS))
    wanted = [f'200 {{"jsonrpc":"2.0","id":{number + 1},"result":{{}}}}' for number in range(CALLS)]
    assert said.splitlines() == wanted


PLANTED = (
    b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b'content-length: 49\r\n\r\n{"jsonrpc":"2.0","id":"planted","method":"ping"}\n'
)
LAST = b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("offer", ["h2c", "websocket", "foo"])
async def test_a_body_is_never_the_next_request(port: int, offer: str) -> None:
    """What one client plants behind an offer is answered neither to it nor to others."""
    head = (
        f"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"connection: Upgrade\r\nupgrade: {offer}\r\ncontent-length: {len(PLANTED)}\r\n\r\n"
    ).encode()

    async def plant() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        await writer.drain()
        # The body must reach the bridge in its own segment: an answer to another client is
        # the event that the head has had time to arrive.
        await client.post(url, json=rpc("between", "ping"), headers=ACCEPT)
        writer.write(PLANTED)
        writer.write(LAST)
        await writer.drain()
        said = await reader.read()
        assert re.findall(rb"HTTP/1.1 (\d+)", said) in ([b"400", b"200"], [b"400"]), said
        assert b"planted" not in said
        writer.close()

    url = f"http://127.0.0.1:{port}/mcp"
    async with httpx.AsyncClient(timeout=WITHIN_S) as client, asyncio.timeout(WITHIN_S):
        for round_number in range(3):
            await plant()
            for number in range(CALLS):
                wanted = f"own-{round_number}-{number}"
                response = await client.post(url, json=rpc(wanted, "ping"), headers=ACCEPT)
                assert response.json() == {"jsonrpc": "2.0", "id": wanted, "result": {}}
