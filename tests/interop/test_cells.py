"""The TypeScript SDK's client of both eras in front of each kind of server."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
from typing import Any

import pytest

from tests.interop.test_interop import node
from tests.support.bridge_process import bridge
from tests.support.proofs import proves
from tests.support.sdk_servers import PEERS, ROOT, interpreter

pytestmark = [pytest.mark.interop, pytest.mark.slow]

WITHIN_S = 90.0
SERVERS = {
    "legacy": (1, ("server_referees.py",)),
    "modern": (2, ("server_referees2.py", "--modern")),
    "dual": (2, ("server_referees2.py",)),
}


async def seen_by(mode: str, url: str, *words: str) -> Any:
    """What the client prints."""
    program = str(ROOT / "tests" / "interop" / "client2.mjs")
    process = await asyncio.create_subprocess_exec(
        node(), program, mode, url, *words, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode(errors="replace")
    return json.loads(out)


@proves("C82", "C83")
@pytest.mark.parametrize("kind", list(SERVERS))
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_typescript_client_is_served_whatever_the_server_speaks(
    kind: str, mode: str
) -> None:
    """Lists, progress, questions, a header argument, a change and a cancellation."""
    version, (program, *words) = SERVERS[kind]
    command = ("--", interpreter(version), str(PEERS / program), *words)
    async with bridge(*command, env={"MCPBRIDGE_CHILD_ERA": "auto"}) as between:
        await between.logged("child.eras_found")
        # Emulated, calls that may ask have their own processes, and the change made by one of
        # them is not the subscriber's, who hears the shared one.
        heard = kind != "legacy" or mode == "legacy"
        seen = await seen_by(mode, f"{between.url}/mcp", *(("changes",) if heard else ()))
    modern = mode == "auto"
    assert (seen["revision"] == "2026-07-28", seen["era"] == "modern") == (modern, modern)
    assert seen["server"] == "referees"
    assert {"test_simple_text", "wait"} <= set(seen["tools"])
    assert seen["text"] == seen["after"] == "This is a simple text response for testing."
    assert seen["steps"] == [0, 50, 100]
    assert seen["sampled"] == "LLM response: sampled from: hum"
    assert "said to: Every field has a default" in seen["asked"]
    assert seen["rooted"] == "file:///peer/place"
    assert json.loads(seen["header"]) == {"region": " H\u00e9 "}
    assert seen.get("changed", False) is heard
    assert seen["aborted"] == "aborted"
