"""FastMCP 4 behind the bridge: 32 calls at once of a modern client that offers abilities."""

from __future__ import annotations

import pytest

from tests.support.bridge_process import RunningBridge, bridge
from tests.support.sdk_clients import python_clients, reported
from tests.support.sdk_servers import fastmcp4_command

pytestmark = [pytest.mark.interop, pytest.mark.slow]

CALLS = 32
MOST_PROCESSES = 6
# No call falls back to the shared process because a busy machine starts processes slowly.
BOUNDED = ("--max-children", str(MOST_PROCESSES), "--queue-timeout", "60s")
ECHO = ("--echo-tool", "echo", "--echo-argument", "text")
QUESTION = ("--echo-tool", "ask", "--echo-argument", "question")


@pytest.mark.parametrize(
    ("era", "flags", "tool", "most"),
    [
        ("auto", (), ECHO, 1),
        ("legacy", BOUNDED, ECHO, MOST_PROCESSES),
        ("legacy", BOUNDED, QUESTION, MOST_PROCESSES),
    ],
    ids=["modern-echoes", "legacy-echoes", "legacy-questions"],
)
async def test_calls_at_once_that_may_ask_need_few_processes(
    era: str, flags: tuple[str, ...], tool: tuple[str, ...], most: int
) -> None:
    """The client offers elicitation, sampling and roots; each call gets its own answer.

    Spoken to in its own era, the server needs one process for all. In the era before it each
    call holds a process, and so does its question until the client has answered it; the processes
    are the client's own, which its next calls use again.
    """
    client = python_clients()["mcp2-auto"]
    words = ("--declare", "--calls", str(CALLS), "--together", str(CALLS), *tool)
    env = {"MCPBRIDGE_CHILD_ERA": era}
    async with bridge(*flags, "--", *fastmcp4_command(), env=env) as between:
        report = await reported(client, "echoes", *words, target=(f"{between.url}/mcp",))
        at_once = _most_at_once(between)
        async with between.client() as operator:
            metrics = (await operator.get("/metrics")).text
    assert (report["right"], report["wrong"]) == (CALLS, [])
    assert at_once <= most
    assert "mcpbridge_shared_fallbacks_total 0.0" in metrics


def _most_at_once(running: RunningBridge) -> int:
    """Most server processes that ran at once, by the log."""
    steps = {"child.started": 1, "child.stopped": -1, "child.exited": -1}
    count = most = 0
    for record in running.log:
        count += steps.get(record["event"], 0)
        most = max(most, count)
    return most
