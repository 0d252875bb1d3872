"""Little is allowed: open files, processes, stack. Scaled down or refused, in clear words."""

from __future__ import annotations

import json
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.bridge_process import (
    assert_clean,
    bridge,
    eventually,
    initialize,
    open_session,
    rpc,
    started,
)
from tests.support.proofs import proves
from tests.support.raw_http import exchanged, post, wire

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

ASKED: dict[str, object] = {"elicitation": {}}
CALL = rpc(1, "tools/call", {"name": "echo", "arguments": {"text": "x"}})
PROBE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def limited(*limits: str) -> tuple[str, ...]:
    """What starts a program under such limits."""
    program = shutil.which("prlimit")
    assert program is not None, "util-linux has it"
    return (program, *limits)


def open_files(pid: int) -> int:
    """Descriptors that a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@proves("fault 104", "fault 112")
async def test_with_few_open_files_less_is_served_and_said() -> None:
    """`ulimit -n 64`: processes and connections at once are fewer, and all of it works.

    A flood of connections is refused or closed, takes nothing from the reserve, and a process can
    be started in the middle of it.
    """
    async with bridge(under=limited("--nofile=64")) as running, running.client() as client:
        (scaled,) = await running.logged("serve.limits_lowered")
        assert (scaled["max_children"], scaled["max_connections"]) == (3, 12)
        assert scaled["raise"] == "ulimit -n"
        session = await open_session(client)
        line = f"Mcp-Session-Id: {session['mcp-session-id']}"
        call = post(json.dumps(CALL).encode(), line)
        opening = post(json.dumps(initialize(0, capabilities=ASKED)).encode())
        async with AsyncExitStack() as flood, wire(running.port) as one, wire(running.port) as two:
            # Requests that are on their way are not idle connections.
            await one.send(call[:40])
            await two.send(opening[:40])
            for _ in range(80):
                await flood.enter_async_context(wire(running.port))
            await running.logged("connection.limit_reached")
            assert open_files(running.pid) <= 60
            await one.send(call[40:])
            assert json.loads((await one.response()).body)["result"]["content"][0]["text"] == "x"
            await two.send(opening[40:])
            assert (await two.response()).status == 200
            assert len(running.processes()) == 2
        await eventually(lambda: open_files(running.pid) < 40, "the flood is over")
        assert (await exchanged(running.port, PROBE)).status == 200


@proves("fault 104", "fault 112")
async def test_too_few_open_files_are_refused_with_the_number_needed() -> None:
    """Before a port is bound or a server started."""
    async with started("--port", "0", under=limited("--nofile=50")) as running:
        assert await running.ended() == 1
        (failed,) = await running.logged("serve.failed")
        assert "the limit on open files is 50 but at least 52 are needed" in failed["problem"]
        assert "ulimit -n" in failed["problem"]
        assert_clean(running)


@proves("fault 104")
async def test_the_limit_on_open_files_is_raised_where_it_may_be() -> None:
    """A low soft limit costs nothing: the hard one counts."""
    async with bridge(under=limited("--nofile=60:4096")) as running:
        assert running.events("serve.limits_lowered") == []
        limits = Path(f"/proc/{running.pid}/limits").read_text()
        (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
        assert line.split()[3:5] == ["4096", "4096"]


@proves("fault 112")
async def test_a_small_stack_is_raised_or_refused() -> None:
    """Up to the hard limit."""
    async with bridge(under=limited("--stack=131072:8388608")) as running:
        assert (await exchanged(running.port, PROBE)).status == 200
    async with started("--port", "0", under=limited("--stack=262144")) as running:
        assert await running.ended() == 1
        (failed,) = await running.logged("serve.failed")
        assert "the limit on the stack is 256 KiB but 512 KiB are needed" in failed["problem"]
        assert "ulimit -s" in failed["problem"]
        assert_clean(running)
