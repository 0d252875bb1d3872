"""The ends of a shim, of its processes and of its bridge, each as the others see it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_process import (
    eventually,
    messages,
    rpc,
    started,
)
from tests.support.bridge_process import open_session as opened
from tests.support.proofs import proves
from tests.support.shim import address, call, connected, questioner, shim

pytestmark = pytest.mark.slow

NEVER = ("--give-up-after", "0")
QUESTION = {"jsonrpc": "2.0", "id": 5, "method": "elicitation/create", "params": {}}


async def readiness(client: Any, wanted: int) -> None:
    """Ask until the readiness probe answers so."""
    async with asyncio.timeout(20):
        while (await client.get("/readyz")).status_code != wanted:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)  # asks again


@proves("fault 5", "fault 7")
@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_server_that_dies_is_one_error(kind: str, tmp_path: Path) -> None:
    """Exactly one for the call in flight; the session goes on with the next."""
    to = address(kind, tmp_path)
    async with (
        shim(to, command=questioner(tmp_path)) as far,
        connected(to) as near,
        near.client() as client,
    ):
        headers = await opened(client)
        held = asyncio.ensure_future(call(client, headers, "x/hold", {"name": "a", "lines": []}))
        pid = far.events("child.started")[0]["pid"]
        record = tmp_path / "record" / str(pid)
        await eventually(lambda: record.exists() and b"x/hold" in record.read_bytes(), "it is held")
        os.kill(pid, signal.SIGKILL)
        error = (await held)["error"]
        assert error["data"]["mcpbridge"]["reason"] == "child_exited"
        assert error["data"]["mcpbridge"]["executed"] == "maybe"
        assert "exit" not in error["data"]["mcpbridge"]
        assert error["message"] == "the MCP server process ended"

        await near.logged("child.ready", count=2)
        assert (await call(client, headers, "x/echo", {"b": 2}))["result"] == {"b": 2}
        assert far.events("child.exited")[0]["how"] == "signal 9"
        assert len(await near.logged("child.connection_lost")) == 1


async def test_a_shim_that_dies_is_waited_for(tmp_path: Path) -> None:
    """Until it is back the bridge is not ready and answers at once; then all is as before."""
    to = address("unix", tmp_path)
    command = questioner(tmp_path)
    async with started("shim", "--listen", to, "--", *command) as first:
        await first.logged("shim.started")
        async with connected(to, *NEVER) as near, near.client() as client:
            headers = await opened(client)
            first.signal(signal.SIGKILL)
            await first.ended()
            await readiness(client, 503)
            await near.logged("child.spawn_failed")
            refused = await client.post("/mcp", json=rpc(1, "x/echo", {}), headers=headers)
            fault = messages(refused.text)[-1]["error"]["data"]["mcpbridge"]
            assert fault == {"reason": "unreachable", "executed": "no", "retryable": True}
            assert (await client.get("/livez")).status_code == 200
            async with shim(to, command=command):
                await readiness(client, 200)
                assert (await call(client, headers, "x/echo", {"b": 2}))["result"] == {"b": 2}
                assert await near.terminate() == 0


@pytest.mark.parametrize(
    ("kind", "why"), [("unix", "no such file or directory"), ("tcp", "connection refused")]
)
async def test_giving_up_says_why(kind: str, why: str, tmp_path: Path) -> None:
    """The exit status is that of a failure, the last words name the address."""
    to = address(kind, tmp_path)
    async with started("--port", "0", "--connect", to, "--give-up-after", "2") as near:
        assert await near.ended() == 1
        (gave_up,) = await near.logged("serve.gave_up")
        assert gave_up["last_words"] == [f"cannot connect to {to}: {why}"]


@proves("fault 96")
async def test_both_may_be_told_to_end_at_once(tmp_path: Path) -> None:
    """Two containers of a pod get SIGTERM together: the call in flight is answered."""
    to = address("unix", tmp_path)
    async with (
        shim(to, command=questioner(tmp_path)) as far,
        connected(to) as near,
        near.client() as client,
    ):
        headers = await opened(client)
        record = tmp_path / "record" / str(far.events("child.started")[0]["pid"])
        held = asyncio.ensure_future(call(client, headers, "x/hold", {"name": "a", "lines": []}))
        release = rpc("r", "x/release", {"name": "a"})
        await eventually(lambda: b"x/hold" in record.read_bytes(), "it is held")
        far.signal(signal.SIGTERM)
        near.signal(signal.SIGTERM)
        await far.logged("shim.signal")
        await near.logged("drain.phase_changed", lambda each: each["phase"] == "draining")
        assert far.process.returncode is None
        await client.post("/mcp", json=release, headers=headers)
        assert (await held)["result"] == {"held": "a"}
        assert (await near.ended(), await far.ended()) == (0, 0)
