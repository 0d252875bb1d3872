"""LangChain for JavaScript over HTTP+SSE, whose stream a restarted bridge cuts."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
from typing import Any

import pytest

from tests.interop.test_interop import HERE, node
from tests.support.bridge_process import DEMO, bridge

pytestmark = [pytest.mark.interop, pytest.mark.slow]

WITHIN_S = 60.0
AT_ONCE = 8


async def _line(client: asyncio.subprocess.Process) -> dict[str, Any]:
    """The next line that the client writes; fails with its last words if it has ended."""
    assert client.stdout is not None
    assert client.stderr is not None
    async with asyncio.timeout(WITHIN_S):
        line = await client.stdout.readline()
        assert line, (await client.stderr.read()).decode(errors="replace")[-3000:]
    said: dict[str, Any] = json.loads(line)
    return said


async def test_a_client_goes_on_by_itself_when_the_bridge_was_restarted() -> None:
    """Its EventSource connects again; the calls of the old client need no new handshake.

    Until then a call fails or is answered, and none hangs. The stream of the new bridge never sees
    `initialize`; eight calls at once on it each get their own answer.
    """
    async with bridge("--", *DEMO) as first:
        port = first.port
        client = await asyncio.create_subprocess_exec(
            *(node(), str(HERE / "langchain.mjs"), f"{first.url}/sse"),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )
        try:
            assert await _line(client) == {"event": "called"}
            assert await first.terminate() == 0
            async with bridge("--port", str(port), "--", *DEMO):
                assert client.stdin is not None
                client.stdin.write(b"go\n")
                report = await _line(client)
        finally:
            if client.returncode is None:
                client.kill()
            await client.wait()
    assert "echo" in report["tools"]
    assert report["before"] == "before \u2028 \U0001f98a"
    assert report["after"] == "after \u2028 \U0001f98a"
    assert report["own"] == AT_ONCE
