"""No message holds the event loop: its turns are bounded by items as well as by bytes.

The inputs are those of the benchmark `benchmarks/turns.py`, which shows figures by the clock too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import hostile
from tests.e2e.test_faults_bounds import probed
from tests.support.bridge_process import ACCEPT, RunningBridge, bridge, open_session, rpc

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

SERVER = ("--isolation", "shared", "--", sys.executable, str(Path(hostile.__file__)))
MOST_S = 0.06
"""Processor time of the loop while a probe waits for its answer: two or three turns of 20 ms."""
REFUSED = {
    "members of the message": "more than 1000 members",
    "a batch of 90,000": "a batch holds 1 to 100 messages",
    "a batch of numbers": "a batch holds 1 to 100 messages",
}


async def _asked(running: RunningBridge, body: bytes) -> tuple[Any, float]:
    """The answer to a body, and the processor time of the slowest probe during it, in seconds."""
    async with running.client() as client:
        headers = {**await open_session(client, "2025-03-26"), **ACCEPT}
        headers["content-type"] = "application/json"
        plain = rpc(0, "tools/call", {"name": "plain"})
        # What is loaded with the first request of a kind is not part of what a message costs.
        assert (await client.post("/mcp", json=plain, headers=headers)).status_code == 200
        assert (await client.get("/livez")).status_code == 200
        async with probed(running) as took:
            answer = await client.post("/mcp", content=body, headers=headers)
    assert took
    return answer, max(took)


@pytest.mark.parametrize("name", hostile.BODIES)
async def test_no_body_of_a_client_holds_the_loop(name: str) -> None:
    """Members, elements and levels are counted before they are walked, long bodies off the loop."""
    async with bridge(*SERVER) as running:
        answer, slowest_s = await _asked(running, hostile.BODIES[name]())
    assert answer.status_code == (400 if name in REFUSED else 200), answer.text[:200]
    assert REFUSED.get(name, "") in answer.text
    assert slowest_s < MOST_S


@pytest.mark.parametrize("name", [*hostile.OUTPUTS, hostile.STDERR])
async def test_no_output_of_the_server_holds_the_loop(name: str) -> None:
    """Lines, elements and members are counted, slices end a turn, long lines are read off it."""
    params = {"name": name, "_meta": {"progressToken": 1}}
    body = rpc(1, "tools/call", params)
    async with bridge(*SERVER) as running:
        answer, slowest_s = await _asked(running, json.dumps(body).encode())
    assert answer.status_code == 200
    assert slowest_s < MOST_S
