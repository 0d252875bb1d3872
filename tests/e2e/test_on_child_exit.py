"""What becomes of sessions and of the bridge when a server process ends by itself."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.bridge_process import (
    assert_clean,
    bridge,
    eventually,
    open_session,
    rpc,
    started,
)
from tests.support.proofs import proves

ASKED: dict[str, object] = {"elicitation": {}}


@proves("fault 6", "C54")
@pytest.mark.slow
@pytest.mark.parametrize("capabilities", [{}, ASKED], ids=["shared", "own"])
async def test_sessions_end_with_their_child_where_that_is_asked_for(
    capabilities: dict[str, object],
) -> None:
    """With `end`: 404 for the sessions of that child, and a new session works."""
    async with bridge("--on-child-exit", "end") as running, running.client() as client:
        before = running.processes()
        headers = await open_session(client, capabilities=capabilities)
        for pid in running.processes() - before if capabilities else before:
            os.kill(pid, signal.SIGKILL)
        await running.logged("child.exited")
        gone = await client.post("/mcp", json=rpc(1, "tools/list"), headers=headers)
        if gone.status_code == 200:
            # The record may be read a moment before the session has been told.
            assert gone.json()["error"]["data"]["mcpbridge"]["reason"] == "child_exited"
            gone = await client.post("/mcp", json=rpc(1, "tools/list"), headers=headers)
        assert (gone.status_code, gone.json()["id"]) == (404, 1)
        if not capabilities:
            await running.logged("child.ready", count=2)
        again = await open_session(client, capabilities=capabilities)
        answer = await client.post("/mcp", json=rpc(2, "tools/list"), headers=again)
        assert answer.status_code == 200


@proves("fault 7")
@pytest.mark.slow
async def test_the_bridge_ends_with_its_child_where_that_is_asked_for() -> None:
    """`--on-child-exit exit`: the status is the child's, so that a runtime sees it."""
    async with started("--port", "0", "--on-child-exit", "exit") as running:
        await running.logged("child.ready")
        (pid,) = running.processes()
        os.kill(pid, signal.SIGKILL)
        assert await running.ended() == 128 + signal.SIGKILL
        assert len(await running.logged("child.started")) == 1
        await eventually(lambda: not running.processes(), "no process is left", 5)
        assert_clean(running)
